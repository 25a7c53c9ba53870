"""Chargers and vehicles that are being erased, and the statements by which all of one goes."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from tether.domain.models import ERASED, Charger, Entity, Vehicle, Withdrawal, from_json, to_json
from tether.storage.engine import Engine, Statement, batch, batch_of

AT_ONCE = 500  # rows in a transaction, for which others wait
MOST_COUNTED = 10_000  # events, before it is said that there are more

KINDS: dict[str, type[Entity]] = {"chargers": Charger, "vehicles": Vehicle}

ALL = "SELECT partner, kind, code FROM erasures ORDER BY begun_ms"
FIND = "SELECT 1 FROM erasures WHERE partner = $1 AND kind = $2 AND code = $3"
_EVENTS = "SELECT 1 FROM {one}_events e WHERE e.partner = $1 AND e.{one}_id = $2"
COUNT = f"SELECT count(*) FROM ({_EVENTS} LIMIT {MOST_COUNTED + 1}) x"
# $5 says whether the entity may have events.
ADD = f"""
INSERT INTO erasures (partner, kind, code, begun_ms)
SELECT $1, '{{one}}s', $3, $4
WHERE EXISTS (SELECT 1 FROM {{one}}s x WHERE x.partner = $1 AND x.id = $2)
  AND ($5 = 1 OR NOT EXISTS ({_EVENTS}))
ON CONFLICT (partner, kind, code) DO NOTHING
"""
REMOVE = """
DELETE FROM {one}s WHERE partner = $1 AND id = $2
AND EXISTS (SELECT 1 FROM erasures WHERE partner = $1 AND kind = '{one}s' AND code = $3)
"""
# Else a session that it keeps would show again when the events go that ended it.
FORGET_SNAPSHOT = """
DELETE FROM snapshots WHERE partner = $1 AND vehicle_id = $2
AND EXISTS (SELECT 1 FROM erasures WHERE partner = $1 AND kind = 'vehicles' AND code = $3)
"""
DONE = "DELETE FROM erasures WHERE partner = $1 AND kind = $2 AND code = $3"

EVENTS = f"""
SELECT (SELECT x.id FROM events x WHERE x.partner = $1 AND x.seq = e.seq) FROM {{one}}_events e
WHERE e.partner = $1 AND e.{{one}}_id = $2 ORDER BY e.seq LIMIT {AT_ONCE}
"""
# Followers learn from the versions that these sessions are gone.
SESSIONS = f"""
DELETE FROM sessions WHERE partner = $1 AND {{one}}_id = $2 AND id IN (
    SELECT s.id FROM sessions s WHERE s.partner = $1 AND s.{{one}}_id = $2 AND s.live = 0
    LIMIT {AT_ONCE}
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
SELECT at_ms, id FROM refused_requests
WHERE partner = $1 AND {{position}}({{path}} || ' ' || {{text}} || ' ' || id, $2) > 0
LIMIT {AT_ONCE}
"""
FORGET_REQUESTS = f"""
WITH {batch("batch", "at_ms BIGINT", "id")}
DELETE FROM refused_requests WHERE partner = $1
AND (at_ms, id) IN (SELECT b.at_ms, b.id FROM batch b)
"""

# What receivers answered may name it, too.
ATTEMPTS = f"""
SELECT webhook, id FROM webhook_attempts
WHERE partner = $1 AND {{position}}({{text}}, $2) > 0 LIMIT {AT_ONCE}
"""
FORGET_ATTEMPTS = f"""
WITH {batch("batch", "webhook", "id")}
DELETE FROM webhook_attempts WHERE partner = $1
AND (webhook, id) IN (SELECT b.webhook, b.id FROM batch b)
"""
# What is for it alone has nothing to tell any more.
_ENDPOINTS = "SELECT w.id FROM webhooks w WHERE w.partner = $1 AND w.{one}_id = $2"
FORGET_ENDPOINTS = (
    f"DELETE FROM webhook_attempts WHERE partner = $1 AND webhook IN ({_ENDPOINTS})",
    f"DELETE FROM webhook_parked WHERE partner = $1 AND webhook IN ({_ENDPOINTS})",
    "DELETE FROM webhooks WHERE partner = $1 AND {one}_id = $2",
    f"UPDATE webhooks SET description = replace(description, $2, '{ERASED}') WHERE partner = $1",
)

_ESCAPED = ":@+*~"  # of the characters of an id, those that clients write in another way


class Erasure(NamedTuple):
    """What is erased: the charger or vehicle of this id; `kind` is the table it was in."""

    partner: int
    kind: str
    id: str

    @property
    def code(self) -> str:
        """The id as it stands in the table of erasures: else it would be there for a while yet."""
        return code_of(self.id)

    def sql(self, text: str) -> str:
        """The statement for this kind."""
        return text.format(one=self.kind[:-1])


def code_of(id: str) -> str:
    """The bytes of an id in hexadecimal."""
    return id.encode().hex()


class Erasures:
    """All erasures under way. Every method raises Unavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def all(self) -> list[Erasure]:
        """Those that are not done, the oldest first."""
        rows = await self._engine.read(ALL)
        return [Erasure(one, kind, bytes.fromhex(code).decode()) for one, kind, code in rows]

    async def is_under_way(self, erasure: Erasure) -> bool:
        """Whether it has begun and is not done."""
        return bool(await self._engine.read(FIND, erasure.partner, erasure.kind, erasure.code))

    async def count_events(self, erasure: Erasure) -> int:
        """How many events name it; one more than MOST_COUNTED where there are more."""
        sql = erasure.sql(COUNT)
        ((count,),) = await self._engine.scan(sql, erasure.partner, erasure.id)
        return int(count)

    async def begin(
        self, erasure: Erasure, now_ms: int, also: Sequence[Statement], *, with_events: bool
    ) -> bool:
        """Removes the charger or vehicle itself, so that no event is added any more, and notes that
        the rest of it has to go. False if there is none, or it has events and must have none.
        """
        partner, _, id = erasure
        given = (partner, id, erasure.code, now_ms, int(with_events))
        before = [Statement(sql, ()) for sql in self._engine.dialect.stops_adding]
        counts = await self._engine.write_all(
            *before,
            Statement(erasure.sql(ADD), given),
            Statement(erasure.sql(REMOVE), (partner, id, erasure.code)),
            *_forgetting_snapshot(erasure),
            *also,
        )
        return bool(counts[len(before)])

    async def some_events(self, erasure: Erasure) -> list[str]:
        """The ids of some of its events."""
        rows = await self._engine.scan(erasure.sql(EVENTS), erasure.partner, erasure.id)
        return [id for (id,) in rows if id is not None]

    async def forget_some(self, erasure: Erasure) -> int:
        """Removes some of what still names it, once nothing is derived from it; how many rows."""
        partner, _, id = erasure
        gone = await self._engine.write(erasure.sql(SESSIONS), partner, id)
        taken = []
        if id != ERASED:  # else it is what others are renamed to
            taken = await self._engine.scan(erasure.sql(WITHDRAWALS), partner, id)
        if taken:
            rows = batch_of((seq, _without(body, erasure)) for seq, body in taken)
            await self._engine.write(erasure.sql(RENAME), partner, rows)
        position = self._engine.dialect.position
        sql = REQUESTS.format(
            position=position,
            path=_plain("path", "%", id),
            text=_plain("(answer || ' ' || body)", "\\u00", id),
        )
        requests = await self._engine.scan(sql, partner, id)
        if requests:
            await self._engine.write(FORGET_REQUESTS, partner, batch_of(requests))
        sql = ATTEMPTS.format(
            position=position, text=_plain("(error || ' ' || answer)", "\\u00", id)
        )
        attempts = await self._engine.scan(sql, partner, id)
        if attempts:
            await self._engine.write(FORGET_ATTEMPTS, partner, batch_of(attempts))
        await self._engine.write_all(
            *(Statement(erasure.sql(sql), (partner, id)) for sql in FORGET_ENDPOINTS),
            *_forgetting_snapshot(erasure),
        )
        return gone + len(taken) + len(requests) + len(attempts)

    async def end(self, erasure: Erasure) -> None:
        """Nothing of it is in any row: nothing is to be left in the files either. It is done."""
        await self._engine.forget(erasure.id)
        await self._engine.write(DONE, erasure.partner, erasure.kind, erasure.code)


def _forgetting_snapshot(erasure: Erasure) -> list[Statement]:
    if KINDS[erasure.kind] is not Vehicle:
        return []
    return [Statement(FORGET_SNAPSHOT, (erasure.partner, erasure.id, erasure.code))]


def _without(body: str, erasure: Erasure) -> str:
    """What followers are told of a withdrawal, without the id."""
    name = f"{erasure.kind[:-1]}_id"
    shown = msgspec.structs.replace(from_json(Withdrawal, body.encode()), **{name: ERASED})
    return to_json(shown).decode()


def _plain(column: str, mark: str, id: str) -> str:
    """SQL for the text with the characters of this id as they are, which may be written as a mark
    and two digits: `%3A` in addresses, a backslash with `u003a` in JSON.
    """
    for character in sorted(set(id) & set(_ESCAPED)):
        for code in {f"{ord(character):02x}", f"{ord(character):02X}"}:
            column = f"replace({column}, '{mark}{code}', '{character}')"
    return column
