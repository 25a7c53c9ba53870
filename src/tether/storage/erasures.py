"""Chargers and vehicles that are being erased, and the statements by which all of one goes."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import msgspec

from tether.domain.models import ERASED, Charger, Entity, Vehicle, Withdrawal, from_json, to_json
from tether.storage.dialect import Dialect
from tether.storage.engine import Engine, Statement, batch, batch_of, where_found
from tether.storage.webhook_rows import FORGET_SOME

AT_ONCE = 250  # rows in a transaction, for which others wait
SESSIONS_AT_ONCE = 50  # which are in many indexes
NOTED_AT_ONCE = 500  # of those for which everything is looked through each time
MOST_COUNTED = 10_000  # events, before it is said that there are more
# What names it and was noted in memory by then, here or on another node, is not written so long
# after the end. Whoever has notes for longer drops them.
NOTED_MS = 60_000

KINDS: dict[str, type[Entity]] = {"chargers": Charger, "vehicles": Vehicle}

ALL = "SELECT partner, kind, code FROM erasures WHERE kind <> 'ended' ORDER BY begun_ms"
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
THERE = """
SELECT 1 FROM {one}s x WHERE x.partner = $1 AND x.id = $2
AND EXISTS (SELECT 1 FROM erasures WHERE partner = $1 AND kind = '{one}s' AND code = $3)
"""
DONE = "DELETE FROM erasures WHERE partner = $1 AND kind = $2 AND code = $3"
ENDED = """
INSERT INTO erasures (partner, kind, code, begun_ms) VALUES ($1, 'ended', $2, $3)
ON CONFLICT (partner, kind, code) DO UPDATE SET begun_ms = excluded.begun_ms
"""
LONG_ENDED = """
SELECT partner, code FROM erasures WHERE kind = 'ended' AND begun_ms NOT BETWEEN $1 AND $2
"""

EVENTS = f"""
SELECT (SELECT x.id FROM events x WHERE x.partner = $1 AND x.seq = e.seq) FROM {{one}}_events e
WHERE e.partner = $1 AND e.{{one}}_id = $2 ORDER BY e.seq LIMIT {AT_ONCE}
"""
# Followers learn from the versions that these sessions are gone.
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
SELECT at_ms, id FROM refused_requests WHERE partner = $1 AND {{names}} LIMIT {NOTED_AT_ONCE}
"""
FORGET_REQUESTS = f"""
WITH {batch("batch", "at_ms BIGINT", "id")}
DELETE FROM refused_requests WHERE partner = $1
AND (at_ms, id) IN (SELECT b.at_ms, b.id FROM batch b)
"""

# What receivers answered may name it, too.
ATTEMPTS = f"""
SELECT webhook, id FROM webhook_attempts WHERE partner = $1 AND {{names}} LIMIT {NOTED_AT_ONCE}
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
        this = (partner, id, erasure.code)
        counts = await self._engine.write_all(
            *before,
            Statement(erasure.sql(ADD), given),
            *where_found(also, erasure.sql(THERE), *this),
            Statement(erasure.sql(REMOVE), this),
            *_forgetting_snapshot(erasure),
        )
        return bool(counts[len(before)])

    async def some_events(self, erasure: Erasure) -> list[str]:
        """The ids of some of its events."""
        rows = await self._engine.scan(erasure.sql(EVENTS), erasure.partner, erasure.id)
        return [id for (id,) in rows if id is not None]

    async def forget_some(self, erasure: Erasure) -> bool:
        """Removes some of what still names it, once nothing is derived from it; whether more of it
        may be left.
        """
        partner, _, id = erasure
        if await self._engine.write(erasure.sql(SESSIONS), partner, id):
            return True
        taken = []
        if id != ERASED:  # else it is what others are renamed to
            taken = await self._engine.scan(erasure.sql(WITHDRAWALS), partner, id)
        if taken:
            rows = batch_of((seq, _without(body, erasure)) for seq, body in taken)
            await self._engine.write(erasure.sql(RENAME), partner, rows)
            return True
        if await self._forget_noted(partner, id):
            return True
        await self._engine.write_all(
            *(Statement(erasure.sql(sql), (partner, id)) for sql in FORGET_ENDPOINTS),
            *_forgetting_snapshot(erasure),
        )
        return False

    async def _forget_noted(self, partner: int, id: str) -> int:
        """Removes some of what was noted of requests and names it; how many rows."""
        count = 0
        for find, forget, names in (
            (REQUESTS, FORGET_REQUESTS, names_in_request),
            (ATTEMPTS, FORGET_SOME, names_in_attempt),
        ):
            sql = find.format(names=names(self._engine.dialect, "$2", id))
            rows = await self._engine.scan(sql, partner, id)
            if rows:
                await self._engine.write(forget, partner, batch_of(rows))
            count += len(rows)
        return count

    async def end(self, erasure: Erasure, now_ms: int) -> None:
        """Nothing of it is in any row: nothing is to be left in the files either. It is done."""
        await self._engine.forget(erasure.id)
        partner, kind, _ = erasure
        await self._engine.write_all(
            Statement(DONE, (partner, kind, erasure.code)),
            Statement(ENDED, (partner, erasure.code, now_ms)),
        )

    async def forget_ended(self, now_ms: int) -> None:
        """Removes what still says that something was erased, where that is long enough ago."""
        ended = await self._engine.read(LONG_ENDED, now_ms - NOTED_MS, now_ms + NOTED_MS)
        for partner, code in ended:
            id = bytes.fromhex(code).decode()
            late = 0  # what was written by a statement that began before
            while count := await self._forget_noted(partner, id):
                late += count
            if late:
                await self._engine.forget(id)
            await self._engine.write(DONE, partner, "ended", code)


def _forgetting_snapshot(erasure: Erasure) -> list[Statement]:
    if KINDS[erasure.kind] is not Vehicle:
        return []
    return [Statement(FORGET_SNAPSHOT, (erasure.partner, erasure.id, erasure.code))]


def _without(body: str, erasure: Erasure) -> str:
    """What followers are told of a withdrawal, without the id."""
    name = f"{erasure.kind[:-1]}_id"
    shown = msgspec.structs.replace(from_json(Withdrawal, body.encode()), **{name: ERASED})
    return to_json(shown).decode()


def unless_erased(dialect: Dialect, partner: str, names: "Names") -> str:
    """SQL that is true unless the row names what is being erased of the partner, or was a moment
    ago: it may have been noted before that.
    """
    id = dialect.of_hex.format("x.code")
    return f"""NOT EXISTS (
    SELECT 1 FROM erasures x WHERE x.partner = {partner} AND {names(dialect, id)}
)"""


Names: TypeAlias = Callable[..., str]
"""SQL that is true for a row that names an id: of the dialect, the SQL of the id, and the id itself
where that is known. Of the columns those are looked through that have text of others.
"""


def names_in_request(dialect: Dialect, sought: str, id: str = _ESCAPED) -> str:
    """As `Names`, of a refused request."""
    path, text = _plain("path", "%", id), _plain("(answer || ' ' || body)", "\\u00", id)
    return f"{dialect.position}({path} || ' ' || {text} || ' ' || id, {sought}) > 0"


def names_in_attempt(dialect: Dialect, sought: str, id: str = _ESCAPED) -> str:
    """As `Names`, of an attempt of a webhook."""
    text = _plain("(error || ' ' || answer)", "\\u00", id)
    return f"{dialect.position}({text}, {sought}) > 0"


def _plain(column: str, mark: str, id: str) -> str:
    """SQL for the text with the characters of this id as they are, which may be written as a mark
    and two digits: `%3A` in addresses, a backslash with `u003a` in JSON.
    """
    for character in sorted(set(id) & set(_ESCAPED)):
        for code in {f"{ord(character):02x}", f"{ord(character):02X}"}:
            column = f"replace({column}, '{mark}{code}', '{character}')"
    return column
