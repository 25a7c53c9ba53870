"""Sessions as partners read them: one by its id, and lists."""

from functools import lru_cache
from typing import NamedTuple

import msgspec

from tether.domain.errors import NotFound
from tether.domain.filters import SessionFilter
from tether.domain.models import Charger, Vehicle, from_json
from tether.domain.session_record import SessionRecord
from tether.domain.session_views import StoredSession
from tether.storage.engine import Engine, Row
from tether.storage.turns import Rest

PORTION = 100  # sessions that are read at once
PORTIONS = 50  # for one page
READ_AT_ONCE = 2_000  # sessions that a portion may look at
MOST_BYTES = 2_000_000  # as they are stored; one has up to 1,000 charge periods

Place = tuple[int, str]
"""Where a session is in the order of a list: its instant there, and its id."""

_SESSION = """
SELECT s.id, s.body, s.live,
       (SELECT v.body FROM vehicles v WHERE v.partner = $1 AND v.id = s.vehicle_id),
       (SELECT c.body FROM chargers c WHERE c.partner = $1 AND c.id = s.charger_id),
       u.version, u.updated_ms
FROM sessions s JOIN session_versions u ON u.partner = $1 AND u.id = s.id
"""
GET = f"{_SESSION} WHERE s.partner = $1 AND s.id = $2 AND s.live = 1"

_CONDITIONS = ("s.charger_id = ", "s.vehicle_id = ", "s.start_ms >= ", "s.start_ms < ")


def page_statement(wanted: SessionFilter, after: Place | None) -> tuple[str, list[object]]:
    """The statement for a page of sessions and its parameters from $3 on; $1 partner, $2 limit.

    They are in the order of their start, or of their last change where changes are asked for, and
    then those are among them that were removed.

    It reads READ_AT_ONCE sessions at most. If there are as many, it adds a row for the place of the
    last of them, without a body: its id, and its instant as the last column.
    """
    given = tuple(value is not None for value in wanted[:4])
    changes = wanted.updated_from_ms is not None
    sql = _page(given, wanted.active, changes, after is not None)
    parameters: list[object] = [value for value in wanted[:4] if value is not None]
    if after is not None:
        return sql, [*parameters, *after]
    return sql, [*parameters, wanted.updated_from_ms] if changes else parameters


@lru_cache
def _page(given: tuple[bool, ...], active: bool | None, changes: bool, resumed: bool) -> str:
    names = [start for start, used in zip(_CONDITIONS, given, strict=True) if used]
    conditions = [f"{start}${place}" for place, start in enumerate(names, start=3)]
    instant, id = ("u.updated_ms", "u.id") if changes else ("s.start_ms", "s.id")
    if given[1] and not changes:
        # No index of a vehicle's sessions has the id, which orders those of one instant. `|| ''`:
        # else SQLite reads all vehicles' sessions in an index that has it.
        id = "s.id || ''"
    # What is read is what an index has one after the other; of these the others are chosen.
    read, chosen = (["u.partner = $1"], conditions) if changes else (["s.partner = $1"], [])
    if not changes:
        key = "s.vehicle_id" if given[1] else "s.charger_id"
        read += [text for text in conditions if text.startswith((key, "s.start_ms"))]
        chosen += [text for text in conditions if text not in read]
        if active and not given[1]:
            read += ["s.end_ms IS NULL", "s.live = 1"]
        else:
            chosen.append("s.live = 1")
    if active is not None and "s.end_ms IS NULL" not in read:
        # `+ 0`: else PostgreSQL may read all that have ended, in an index without this order.
        chosen.append("s.end_ms IS NULL" if active else "s.end_ms + 0 IS NOT NULL")
    next_place = 3 + len(names)
    if resumed:
        read.append(f"({instant}, {id}) > (${next_place}, ${next_place + 1})")
    elif changes:
        read.append(f"{instant} >= ${next_place}")
    order = f"ORDER BY {instant}, {id}"
    table = "session_versions u" if changes else "sessions s"
    return f"""
WITH stop AS MATERIALIZED (
    SELECT {instant} AS instant, {id} AS id FROM {table} WHERE {" AND ".join(read)}
    {order} LIMIT 1 OFFSET {READ_AT_ONCE - 1}
)
SELECT * FROM (
    {_SESSION} WHERE {" AND ".join(["s.partner = $1", *read, *chosen])}
      AND ({instant}, {id}) <= (coalesce((SELECT instant FROM stop), {2**62}),
                                coalesce((SELECT id FROM stop), '~'))
    {order} LIMIT $2
) page
UNION ALL SELECT id, NULL, 0, NULL, NULL, 0, instant FROM stop
"""


class SessionPage(NamedTuple):
    """Sessions; if `stop` is given there may be more behind that place."""

    found: list[StoredSession]
    stop: Place | None


class Sessions:
    """The sessions of all partners, as far as they are derived. Every method raises Unavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def get(self, partner: int, session_id: str) -> StoredSession:
        """The session. Raises NotFound."""
        row = await self._engine.look_up(GET, partner, session_id)
        found = None if row is None else _session(row)
        if found is None:
            raise NotFound
        return found

    async def page(
        self, partner: int, wanted: SessionFilter, after: Place | None, limit: int
    ) -> SessionPage:
        """Sessions in the order of their start, or of their last change; from `after` on.

        Where they are large, or few of many are wanted, there may be fewer, or none.
        """
        found: list[StoredSession] = []
        size, rest = 0, Rest()
        for _ in range(PORTIONS):
            portion = min(PORTION, limit - len(found))
            sql, parameters = page_statement(wanted, after)
            rows = await self._engine.scan(sql, partner, portion, *parameters)
            stop = rows.pop() if rows and rows[-1][1] is None else None
            for row in rows:
                if (session := _session(row)) is not None:
                    found.append(session)
                    size += len(row[1])
                    after = _place(session, wanted)
                if size > MOST_BYTES:
                    return SessionPage(found, after)
                await rest.if_long()
            if len(found) >= limit or (len(rows) < portion and stop is None):
                return SessionPage(found, None)
            if stop is not None and len(rows) < portion:
                after = stop[-1], stop[0]
        return SessionPage(found, after)


def _place(session: StoredSession, wanted: SessionFilter) -> Place:
    changes = wanted.updated_from_ms is not None
    return session.updated_ms if changes else session.record.start_ms, session.id


def _session(row: Row) -> StoredSession | None:
    session_id, body, live, vehicle, charger, version, updated_ms = row
    if not (vehicle and charger):  # the partner is being deleted
        return None
    return StoredSession(
        session_id,
        _record.decode(body),
        from_json(Vehicle, vehicle),
        from_json(Charger, charger),
        version,
        updated_ms,
        removed=not live,
    )


_record = msgspec.json.Decoder(SessionRecord)
