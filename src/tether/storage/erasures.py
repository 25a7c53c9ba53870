"""Erasures of chargers and vehicles, and the statements that delete all data about one."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import msgspec

from tether.domain.models import ERASED, Charger, Entity, Vehicle, Withdrawal, from_json, to_json
from tether.storage.dialect import Dialect
from tether.storage.engine import Repository, Statement, batch, batch_of, delete_batch, where_found

AT_ONCE = 250  # rows in a transaction; other writes wait for it
SESSIONS_AT_ONCE = 50  # fewer, because they are in many indexes
LOGGED_AT_ONCE = 500  # requests or attempts; more, because each statement reads all of the partner
MAX_COUNTED = 10_000  # events
# For this time after an erasure no node stores a request that names the entity. Nodes do not keep
# requests in memory for longer.
ENDED_MS = 60_000

KINDS: dict[str, type[Entity]] = {"chargers": Charger, "vehicles": Vehicle}

ALL = "SELECT partner, kind, code FROM erasures WHERE kind <> 'ended' ORDER BY begun_ms"
FIND = "SELECT 1 FROM erasures WHERE partner = $1 AND kind = $2 AND code = $3"
_EVENTS = "SELECT 1 FROM {one}_events e WHERE e.partner = $1 AND e.{one}_id = $2"
COUNT = f"SELECT count(*) FROM ({_EVENTS} LIMIT {MAX_COUNTED + 1}) x"
# $5 says whether the entity may have events, $6 which version it must have; 0 means any.
ADD = f"""
INSERT INTO erasures (partner, kind, code, begun_ms)
SELECT $1, '{{one}}s', $3, $4
WHERE EXISTS (SELECT 1 FROM {{one}}s x
              WHERE x.partner = $1 AND x.id = $2 AND $6 IN (0, x.version))
  AND ($5 = 1 OR NOT EXISTS ({_EVENTS}))
ON CONFLICT (partner, kind, code) DO NOTHING
"""
DELETE_ENTITY = """
DELETE FROM {one}s WHERE partner = $1 AND id = $2
AND EXISTS (SELECT 1 FROM erasures WHERE partner = $1 AND kind = '{one}s' AND code = $3)
"""
# A snapshot may have a session that a later event ended. When that event is withdrawn, the session
# would become active again.
DELETE_SNAPSHOT = """
DELETE FROM snapshots WHERE partner = $1 AND vehicle_id = $2
AND EXISTS (SELECT 1 FROM erasures WHERE partner = $1 AND kind = 'vehicles' AND code = $3)
"""
EXISTS = """
SELECT 1 FROM {one}s x WHERE x.partner = $1 AND x.id = $2
AND EXISTS (SELECT 1 FROM erasures WHERE partner = $1 AND kind = '{one}s' AND code = $3)
"""
DELETE_ERASURE = "DELETE FROM erasures WHERE partner = $1 AND kind = $2 AND code = $3"
ADD_ENDED = """
INSERT INTO erasures (partner, kind, code, begun_ms) VALUES ($1, 'ended', $2, $3)
ON CONFLICT (partner, kind, code) DO UPDATE SET begun_ms = excluded.begun_ms
"""
ENDED_LONG_AGO = """
SELECT partner, code FROM erasures WHERE kind = 'ended' AND begun_ms NOT BETWEEN $1 AND $2
"""

EVENTS = f"""
SELECT (SELECT x.id FROM events x WHERE x.partner = $1 AND x.seq = e.seq) FROM {{one}}_events e
WHERE e.partner = $1 AND e.{{one}}_id = $2 ORDER BY e.seq LIMIT {AT_ONCE}
"""
# Their rows in session_versions stay: clients learn from these that the sessions are gone.
SESSIONS = f"""
DELETE FROM sessions WHERE partner = $1 AND {{one}}_id = $2 AND id IN (
    SELECT s.id FROM sessions s WHERE s.partner = $1 AND s.{{one}}_id = $2 AND s.live = 0
    LIMIT {SESSIONS_AT_ONCE}
)
"""
WITHDRAWALS = f"""
SELECT seq, body FROM withdrawals WHERE partner = $1 AND {{one}}_id = $2
ORDER BY seq LIMIT {AT_ONCE}
"""
RENAME = f"""
WITH {batch("batch", "seq BIGINT", "body")}
UPDATE withdrawals SET {{one}}_id = '{ERASED}', body = (
    SELECT b.body FROM batch b WHERE b.seq = withdrawals.seq
)
WHERE partner = $1 AND seq IN (SELECT b.seq FROM batch b)
"""
REQUESTS = f"""
SELECT at_ms, id FROM refused_requests WHERE partner = $1 AND {{names}} LIMIT {LOGGED_AT_ONCE}
"""
DELETE_REQUESTS = delete_batch("refused_requests", "at_ms BIGINT", "id")

# The answers of receivers may also name it.
ATTEMPTS = f"""
SELECT webhook, id FROM webhook_attempts WHERE partner = $1 AND {{names}} LIMIT {LOGGED_AT_ONCE}
"""
DELETE_ATTEMPTS = delete_batch("webhook_attempts", "webhook", "id")
# An endpoint that is filtered for this entity has nothing to deliver any more.
_ENDPOINTS = "SELECT w.id FROM webhooks w WHERE w.partner = $1 AND w.{one}_id = $2"
DELETE_ENDPOINTS = (
    f"DELETE FROM webhook_attempts WHERE partner = $1 AND webhook IN ({_ENDPOINTS})",
    f"DELETE FROM webhook_parked WHERE partner = $1 AND webhook IN ({_ENDPOINTS})",
    "DELETE FROM webhooks WHERE partner = $1 AND {one}_id = $2",
    f"UPDATE webhooks SET description = replace(description, $2, '{ERASED}') WHERE partner = $1",
)


class Erasure(NamedTuple):
    """The erasure of the charger or vehicle with this id; `kind` is its table."""

    partner: int
    kind: str
    id: str

    @property
    def code(self) -> str:
        """The id in the table of erasures, encoded because the id must not stay in the database."""
        return code_of(self.id)

    def sql(self, text: str) -> str:
        """The statement for this kind."""
        return text.format(one=self.kind[:-1])


def code_of(id: str) -> str:
    """The bytes of an id in hexadecimal."""
    return id.encode().hex()


class Erasures(Repository):
    """All erasures under way. Every method raises Unavailable."""

    async def all(self) -> list[Erasure]:
        """The erasures under way, the oldest first."""
        rows = await self._engine.read(ALL)
        return [
            Erasure(partner, kind, bytes.fromhex(code).decode()) for partner, kind, code in rows
        ]

    async def is_under_way(self, erasure: Erasure) -> bool:
        """Whether the erasure has begun and not ended."""
        return bool(await self._engine.read(FIND, erasure.partner, erasure.kind, erasure.code))

    async def count_events(self, erasure: Erasure) -> int:
        """The number of its events; one more than MAX_COUNTED if there are more."""
        sql = erasure.sql(COUNT)
        ((count,),) = await self._engine.scan(sql, erasure.partner, erasure.id)
        return int(count)

    async def begin(
        self,
        erasure: Erasure,
        now_ms: int,
        also: Sequence[Statement],
        *,
        with_events: bool,
        version: int,
    ) -> bool:
        """Deletes the charger or vehicle itself, so that no more events are added, and stores that
        the erasure has begun. False if it does not exist, has another version, unless that is 0, or
        has events and `with_events` is False.
        """
        partner, _, id = erasure
        this = (partner, id, erasure.code)
        before = [Statement(sql, ()) for sql in self._engine.dialect.stops_adding]
        counts = await self._engine.write_all(
            *before,
            Statement(erasure.sql(ADD), (*this, now_ms, int(with_events), version)),
            *where_found(also, erasure.sql(EXISTS), *this),
            Statement(erasure.sql(DELETE_ENTITY), this),
            Statement(DELETE_SNAPSHOT, this),
        )
        return bool(counts[len(before)])

    async def next_events(self, erasure: Erasure) -> list[str]:
        """The ids of its first events, at most AT_ONCE."""
        rows = await self._engine.scan(erasure.sql(EVENTS), erasure.partner, erasure.id)
        return [id for (id,) in rows if id is not None]

    async def delete_some(self, erasure: Erasure) -> bool:
        """Deletes some of the data that still names the entity. Returns whether there may be more.

        Its events must be withdrawn before, and the sessions derived again.
        """
        partner, _, id = erasure
        if await self._engine.write(erasure.sql(SESSIONS), partner, id):
            return True
        withdrawals = []
        if id != ERASED:  # other ids are renamed to this one
            withdrawals = await self._engine.scan(erasure.sql(WITHDRAWALS), partner, id)
        if withdrawals:
            rows = batch_of((seq, _without_id(body, erasure)) for seq, body in withdrawals)
            await self._engine.write(erasure.sql(RENAME), partner, rows)
            return True
        if await self._delete_logged(partner, id):
            return True
        await self._engine.write_all(
            *(Statement(erasure.sql(sql), (partner, id)) for sql in DELETE_ENDPOINTS),
            Statement(DELETE_SNAPSHOT, (partner, id, erasure.code)),
        )
        return False

    async def _delete_logged(self, partner: int, id: str) -> int:
        """Deletes some of the requests and attempts that have this id; returns how many."""
        count = 0
        for find, delete, names in (
            (REQUESTS, DELETE_REQUESTS, names_in_request),
            (ATTEMPTS, DELETE_ATTEMPTS, names_in_attempt),
        ):
            sql = find.format(names=names(self._engine.dialect, "$2"))
            rows = await self._engine.scan(sql, partner, id)
            if rows:
                await self._engine.write(delete, partner, batch_of(rows))
            count += len(rows)
        return count

    async def end(self, erasure: Erasure, now_ms: int) -> None:
        """Ends the erasure when no row has the id any more. Also removes it from the files."""
        await self._engine.erase_text(erasure.id)
        partner, kind, _ = erasure
        await self._engine.write_all(
            Statement(DELETE_ERASURE, (partner, kind, erasure.code)),
            Statement(ADD_ENDED, (partner, erasure.code, now_ms)),
        )

    async def delete_ended(self, now_ms: int) -> None:
        """Deletes the records of erasures that ended long enough ago."""
        ended = await self._engine.read(ENDED_LONG_AGO, now_ms - ENDED_MS, now_ms + ENDED_MS)
        for partner, code in ended:
            id = bytes.fromhex(code).decode()
            late = 0  # rows from statements that began before the end
            while count := await self._delete_logged(partner, id):
                late += count
            if late:
                await self._engine.erase_text(id)
            await self._engine.write(DELETE_ERASURE, partner, "ended", code)


def _without_id(body: str, erasure: Erasure) -> str:
    """The JSON of a withdrawal without the id."""
    name = f"{erasure.kind[:-1]}_id"
    withdrawal = msgspec.structs.replace(from_json(Withdrawal, body.encode()), **{name: ERASED})
    return to_json(withdrawal).decode()


def unless_erased(dialect: Dialect, partner: str, names: "Names") -> str:
    """SQL that is true unless the row names an entity of the partner that is being erased, or was
    erased just before.
    """
    id = dialect.of_hex.format("x.code")
    return f"""NOT EXISTS (
    SELECT 1 FROM erasures x WHERE x.partner = {partner} AND {names(dialect, id)}
)"""


Names: TypeAlias = Callable[[Dialect, str], str]
"""Makes SQL that is true if an id, which is SQL, too, is in the texts of a row."""


def names_in_request(dialect: Dialect, id: str) -> str:
    """As `Names`, of a refused request."""
    return f"{dialect.position}(path || ' ' || answer || ' ' || body || ' ' || id, {id}) > 0"


def names_in_attempt(dialect: Dialect, id: str) -> str:
    """As `Names`, of an attempt of a webhook."""
    return f"{dialect.position}(error || ' ' || answer, {id}) > 0"
