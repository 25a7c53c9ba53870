"""The sessions that are active now, or were at past moments, by charger, and their events.

The cost of a read depends on what it finds, not on what is stored: see the indexes in
migrations/0002.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import NamedTuple

import msgspec

from tether.domain.session_record import EventReading, OrderedEvent, SessionRecord
from tether.domain.timeline import ReadingKind, Step
from tether.storage.engine import (
    Engine,
    Repository,
    batch,
    batch_of,
    columns,
    columns_of,
    json_array,
    json_id,
    json_list,
    pages,
)
from tether.storage.entities import charger_of, vehicle_of
from tether.storage.events import Events
from tether.storage.session_records import event_list, ordered_events_in
from tether.storage.sessions import spans_before
from tether.storage.turns import TimeSlice

KEYS = 1000  # of sessions, in one read
SESSIONS = 100  # whose events are read at once
EVENTS_OF_EACH = 50  # sessions with more events are read one by one, …
EVENTS_AT_ONCE = 1000  # … in parts of this size
FIRST_STARTED = 50  # sessions of a charger in the first read: most chargers have fewer …
STARTED_AT_ONCE = 500  # … and in each read after that
FIRST_MS = -(2**62)
_LAST = "\x7f"  # comes after every id


class SessionKey(NamedTuple):
    """Identifies a session of a partner. Keys sort by charger."""

    charger_id: str
    vehicle_id: str
    start_ms: int
    start_rank: int


class EventsWanted(NamedTuple):
    """A query for the events of a session: the events of its vehicle in this time. The caller
    numbers the queries.
    """

    number: int
    vehicle_id: str
    charger_id: str
    from_ms: int
    until_ms: int


class PastSession(NamedTuple):
    """A session, and the JSON of its vehicle and charger."""

    session: SessionRecord
    vehicle: str
    charger: str


class PastTimeline(NamedTuple):
    """How the vehicle was during an ended session, and the JSON of vehicle and charger."""

    start_ms: int
    end_ms: int
    steps: list[Step]
    vehicle: str
    charger: str


class ActiveSession(NamedTuple):
    """A session that has not ended: its position in the order by charger, its JSON, and the JSON of
    its vehicle and charger.
    """

    charger_id: str
    start_ms: int
    id: str
    body: str
    vehicle: str | None
    charger: str | None


_KEY = columns_of(SessionKey)
_KEY_OF_S = columns("s", SessionKey._fields)

# The sessions that have not ended, by charger. $2 to $4 is the position before the page.
ACTIVE = f"""
SELECT s.charger_id, s.start_ms, s.id, s.body, {vehicle_of("s")}, {charger_of("s")}
FROM sessions s
WHERE s.partner = $1 AND s.end_ms IS NULL AND s.live = 1
  AND (s.charger_id, s.start_ms, s.id) > ($2, $3, $4) AND s.charger_id <= $5
ORDER BY s.charger_id, s.start_ms, s.id LIMIT $6
"""

# The sessions that began by $4 and have not ended. $2 and $3 is the position before the page.
BEGUN = f"""
SELECT s.start_ms, s.id, {_KEY_OF_S} FROM sessions s
WHERE s.partner = $1 AND s.end_ms IS NULL AND s.live = 1
  AND (s.start_ms, s.id) > ($2, $3) AND s.start_ms <= $4
  AND s.charger_id >= $5 AND s.charger_id <= $6
ORDER BY s.start_ms, s.id LIMIT $7
"""

# The ended sessions of span $7 that were active at $4. The index by span has this order. Without
# `|| ''` SQLite reads the sessions of all times in the index by charger, and sorts them.
ENDED = f"""
SELECT s.start_ms, s.vehicle_id, {_KEY_OF_S} FROM sessions s
WHERE s.partner = $1 AND s.span = $7 AND s.end_ms IS NOT NULL AND s.live = 1
  AND (s.start_ms, s.vehicle_id) > ($2, $3) AND s.start_ms <= $4 AND s.end_ms > $4
  AND s.charger_id || '' >= $5 AND s.charger_id || '' <= $6
ORDER BY s.start_ms, s.vehicle_id LIMIT $8
"""

CHARGERS = """
SELECT c.id FROM chargers c WHERE c.partner = $1 AND c.id >= $2 AND c.id <= $3
ORDER BY c.id LIMIT $4
"""

_STARTED = json_array(
    json_id("x.vehicle_id"), "x.start_ms", "x.start_rank", json_id("x.id"),
    "coalesce(x.end_ms || ',' || x.course || ',' || x.vehicle, '0,null,null')",
)  # fmt: skip
_STARTED_ROWS = f"""
    SELECT s.vehicle_id, s.start_ms, s.start_rank, s.id, s.end_ms, s.course,
           CASE WHEN s.course IS NULL THEN NULL ELSE {vehicle_of("s")} END AS vehicle
    FROM sessions s
    WHERE s.partner = $1 AND s.charger_id = w.charger_id
      AND (s.start_ms, s.id) > ($3, $4) AND s.start_ms <= $5 AND s.live + 0 = 1
      AND (s.end_ms IS NULL OR $7 + (s.start_ms - $7 + $8 - 1) / $8 * $8 < s.end_ms)
    ORDER BY s.start_ms, s.id LIMIT $6
"""
# The first $6 sessions at each charger in $2 that began after the position $3 and $4, up to $5, and
# were active at one of the moments from $7 on in steps of $8. One index has all columns. Like the
# statements below, it is not written as a join: see events.py.
STARTED = f"""
WITH {batch("wanted", "charger_id")}
SELECT w.charger_id, {charger_of("w")}, {json_list(_STARTED, _STARTED_ROWS)}
FROM wanted w ORDER BY w.place
"""

OF_KEYS = f"""
WITH {batch("wanted", *_KEY)}
SELECT (
    SELECT {json_array("s.body", "coalesce(s.seen, 'null')")} FROM sessions s
    WHERE s.partner = $1 AND s.vehicle_id = w.vehicle_id AND s.start_ms = w.start_ms
      AND s.start_rank = w.start_rank AND s.charger_id = w.charger_id AND s.live = 1
), {vehicle_of("w")}, {charger_of("w")}
FROM wanted w ORDER BY w.place
"""

_EVENTS_WANTED = f"WITH {batch('wanted', *columns_of(EventsWanted))}"
_IN_HISTORY = """
FROM vehicle_history e WHERE e.partner = $1 AND e.vehicle_id = w.vehicle_id
AND e.at_ms >= w.from_ms AND e.at_ms <= w.until_ms
"""


def _newest(condition: str) -> str:
    """For each session the newest instant of an event that meets the condition.

    The order selects the right index. Otherwise PostgreSQL may read all events of the vehicle in
    another index, and sort them.
    """
    return f"""
{_EVENTS_WANTED}
SELECT w.number, (
    SELECT e.at_ms {_IN_HISTORY} AND {condition}
    ORDER BY e.at_ms DESC, e.type DESC, e.charger_id DESC, e.stamp DESC LIMIT 1
) FROM wanted w
"""


SOC_AT = _newest("{event_json} ->> 'stateOfCharge' IS NOT NULL")
POWER_AT = _newest("{event_json} ->> 'chargePower' IS NOT NULL AND e.charger_id = w.charger_id")
HEARD_AT = _newest("true")
_NEWEST: dict[ReadingKind, str] = {"soc": SOC_AT, "power": POWER_AT, "event": HEARD_AT}

# For each session the first $3 of its events. The order selects the only index that has it.
_EVENTS = f"""
    SELECT e.seq, e.at_ms, e.body {_IN_HISTORY}
    ORDER BY e.at_ms, e.type, e.charger_id, e.stamp LIMIT $3
"""
EVENTS = f"""
{_EVENTS_WANTED}
SELECT {event_list(_EVENTS)} FROM wanted w ORDER BY w.place
"""


class _Started(msgspec.Struct, array_like=True, gc=False):
    """A session of STARTED. It has only a key if its timeline is not stored."""

    vehicle_id: str
    start_ms: int
    start_rank: int
    id: str
    end_ms: int
    steps: list[Step] | None
    vehicle: msgspec.Raw


_started = msgspec.json.Decoder(list[_Started])
_session = msgspec.json.Decoder(tuple[SessionRecord, list[EventReading] | None])


class PluggedIn(Repository):
    """Active sessions of all partners, now and at past moments. Every method raises Unavailable."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._events = Events(engine)

    async def now(
        self, partner: int, first: str, last: str, limit: int
    ) -> AsyncIterator[list[ActiveSession]]:
        """The active sessions at the chargers from the first to the last id, by charger."""
        after = (first, FIRST_MS, "")
        async for rows in pages(self._engine, ACTIVE, partner, after, last, limit=limit):
            yield [ActiveSession(*row) for row in rows]

    async def at(
        self, partner: int, first: str, last: str, at_ms: int
    ) -> AsyncIterator[list[SessionKey]]:
        """The keys of the sessions that were active at the moment, in several sorted lists."""
        bounds = (at_ms, first, last)
        queries = [(BEGUN, FIRST_MS, bounds)] + [
            (ENDED, at_ms - (1 << span), (*bounds, span))
            for span in await spans_before(self._engine, partner, at_ms + 1)
        ]
        for sql, after_ms, parameters in queries:
            async for rows in pages(
                self._engine, sql, partner, (after_ms, _LAST), *parameters, limit=KEYS
            ):
                yield sorted(SessionKey(*row[2:]) for row in rows)

    async def chargers(self, partner: int, first: str, last: str, limit: int) -> list[str]:
        """The ids of the chargers from the first to the last, in order."""
        rows = await self._engine.scan(CHARGERS, partner, first, last, limit)
        return [charger_id for (charger_id,) in rows]

    async def started(
        self, partner: int, charger_ids: Sequence[str], moments: range
    ) -> AsyncIterator[tuple[str, list[PastTimeline], list[SessionKey]]]:
        """The sessions that began at these chargers after the first of these moments and were
        active at a later one. Yields portions of one charger each, in the order of the chargers,
        at least one for each. Sessions without a stored timeline are yielded as keys.
        """
        until_ms, grid = moments[-1], (moments[0], moments.step)
        wanted = batch_of([charger_id] for charger_id in charger_ids)
        rows = await self._engine.scan(
            STARTED, partner, wanted, moments[0], _LAST, until_ms, FIRST_STARTED, *grid
        )
        for charger_id, charger, text in rows:
            found, limit = _started.decode(text), FIRST_STARTED
            yield charger_id, *_divided(charger_id, charger, found)
            while len(found) == limit:
                only, last, limit = batch_of([[charger_id]]), found[-1], STARTED_AT_ONCE
                ((*_, more),) = await self._engine.scan(
                    STARTED, partner, only, last.start_ms, last.id, until_ms, limit, *grid
                )
                found = _started.decode(more)
                yield charger_id, *_divided(charger_id, charger, found)

    async def of_keys(self, partner: int, keys: Iterable[SessionKey]) -> list[PastSession]:
        """The sessions with these keys that still exist."""
        rows = await self._engine.scan(OF_KEYS, partner, batch_of(keys))
        found = []
        for text, vehicle, charger in rows:
            if text and vehicle and charger:
                session, readings = _session.decode(text)
                found.append(PastSession(session.with_readings(readings), vehicle, charger))
        return found

    async def newest(
        self, partner: int, wanted: Sequence[EventsWanted], kind: ReadingKind
    ) -> list[tuple[int, int]]:
        """The number of each query, and the instant of the newest event with a state of charge,
        with a power at the session's charger, or of any kind. Sessions without such an event are
        left out.
        """
        sql = _NEWEST[kind].format(event_json=self._engine.dialect.event_json)
        rows = await self._engine.scan(sql, partner, batch_of(wanted)) if wanted else []
        return [(number, at_ms) for number, at_ms in rows if at_ms is not None]

    async def events(
        self, partner: int, wanted: Sequence[EventsWanted]
    ) -> AsyncIterator[tuple[EventsWanted, list[OrderedEvent]]]:
        """The events of each session, in order. Long sessions are yielded in several parts."""
        time_slice = TimeSlice()
        for start in range(0, len(wanted), SESSIONS):
            portion = wanted[start : start + SESSIONS]
            rows = await self._engine.scan(EVENTS, partner, batch_of(portion), EVENTS_OF_EACH)
            for query, (text,) in zip(portion, rows, strict=True):
                events = ordered_events_in(text)
                if len(events) < EVENTS_OF_EACH:
                    yield query, events
                else:
                    _, vehicle_id, _, from_ms, until_ms = query
                    async for part in self._events.portions_of_vehicle(
                        partner, vehicle_id, from_ms, EVENTS_AT_ONCE, until_ms=until_ms
                    ):
                        yield query, sorted(part)
                await time_slice.yield_if_over()


def _divided(
    charger_id: str, charger: str | None, found: Iterable[_Started]
) -> tuple[list[PastTimeline], list[SessionKey]]:
    """The timelines that are stored, and the keys of the other sessions."""
    timelines, keys = list[PastTimeline](), list[SessionKey]()
    for session in found:
        start_ms, steps = session.start_ms, session.steps
        if steps is None:
            keys.append(SessionKey(charger_id, session.vehicle_id, start_ms, session.start_rank))
        elif charger:  # otherwise the partner is being deleted
            vehicle = bytes(session.vehicle).decode()
            timelines.append(PastTimeline(start_ms, session.end_ms, steps, vehicle, charger))
    return timelines, keys
