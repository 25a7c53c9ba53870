"""What was plugged in: sessions by charger, at this moment or at past ones, and their events.

What is read depends on what was plugged in, not on how much there is: see the indexes in
migrations/0002.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import NamedTuple

import msgspec

from tether.domain.course import Step
from tether.domain.session_record import OrderedEvent, Seen, SessionRecord
from tether.storage.engine import Engine, Row, batch, batch_of, columns_of
from tether.storage.events import Events
from tether.storage.session_records import ordered_events_in
from tether.storage.turns import Rest

KEYS = 1000  # of sessions, that are read at once
SESSIONS = 100  # whose events are read at once
EVENTS_OF_EACH = 50  # sessions with more events are read one by one, …
EVENTS_AT_ONCE = 1000  # … in parts of this size
FIRST_STARTED = 50  # sessions of a charger, when many chargers are looked at: most have fewer …
STARTED_AT_ONCE = 500  # … and then so many
LONGEST_SPAN = 48  # bits of ms: some thousand years
FIRST_MS = -(2**62)
_LAST = "\x7f"  # behind every id


class SessionKey(NamedTuple):
    """What tells a session from all others, and orders them by charger."""

    charger_id: str
    vehicle_id: str
    start_ms: int
    start_rank: int


class EventsWanted(NamedTuple):
    """Which events are wanted of the session of this number: those of its vehicle in this time."""

    number: int
    vehicle_id: str
    charger_id: str
    from_ms: int
    until_ms: int


class PastSession(NamedTuple):
    """A session, and the JSON of what it is of."""

    session: SessionRecord
    vehicle: str
    charger: str


class PastCourse(NamedTuple):
    """How the vehicle of a session that has ended was, and the JSON of what it is of."""

    start_ms: int
    end_ms: int
    steps: list[Step]
    vehicle: str
    charger: str


class ActiveSession(NamedTuple):
    """A session that lasts: where it is in the order by charger, and the JSON of what it is of."""

    charger_id: str
    start_ms: int
    id: str
    body: str
    vehicle: str | None
    charger: str | None


_KEY = columns_of(SessionKey)
_KEY_OF_S = ", ".join(f"s.{name}" for name in SessionKey._fields)

# The sessions that last, by charger; $2 to $4 is the position after which the page begins.
ACTIVE = """
SELECT s.charger_id, s.start_ms, s.id, s.body,
       (SELECT v.body FROM vehicles v WHERE v.partner = $1 AND v.id = s.vehicle_id),
       (SELECT c.body FROM chargers c WHERE c.partner = $1 AND c.id = s.charger_id)
FROM sessions s
WHERE s.partner = $1 AND s.end_ms IS NULL AND s.live = 1
  AND (s.charger_id, s.start_ms, s.id) > ($2, $3, $4) AND s.charger_id <= $5
ORDER BY s.charger_id, s.start_ms, s.id LIMIT $6
"""

# The sessions that still last and had begun by $4, behind the position $2 and $3.
BEGUN = f"""
SELECT s.start_ms, s.id, {_KEY_OF_S} FROM sessions s
WHERE s.partner = $1 AND s.end_ms IS NULL AND s.live = 1
  AND (s.start_ms, s.id) > ($2, $3) AND s.start_ms <= $4
  AND s.charger_id >= $5 AND s.charger_id <= $6
ORDER BY s.start_ms, s.id LIMIT $7
"""

# Which spans there are among the sessions that began after an instant, up to $3.
SPANS = f"""
WITH {batch("wanted", "span BIGINT", "after_ms BIGINT")}
SELECT w.span FROM wanted w
WHERE (SELECT 1 FROM sessions s
       WHERE s.partner = $1 AND s.span = w.span AND s.end_ms IS NOT NULL AND s.live = 1
         AND s.start_ms > w.after_ms AND s.start_ms <= $3
       LIMIT 1) IS NOT NULL
"""

# The sessions of span $7 that lasted at $4. In this order lies the index by span alone. `|| ''`:
# else SQLite reads those of all times in the index by charger, and sorts them.
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

# The first $6 sessions at each charger in $2 that began behind the position $3 and $4, up to $5,
# and lasted at one of the moments from $7 on in steps of $8, as a list of JSON arrays. One index
# has all of it. Not written as a join, as those below: see events.py.
STARTED = f"""
WITH {batch("wanted", "charger_id")}
SELECT w.charger_id,
(SELECT c.body FROM chargers c WHERE c.partner = $1 AND c.id = w.charger_id),
(
    SELECT string_agg(
        '["' || x.vehicle_id || '",' || x.start_ms || ',' || x.start_rank || ',"' || x.id || '",'
        || coalesce(x.end_ms || ',' || x.course || ',' || x.vehicle, '0,null,null') || ']',
        ','
    )
    FROM (
        SELECT s.vehicle_id, s.start_ms, s.start_rank, s.id, s.end_ms, s.course,
               CASE WHEN s.course IS NULL THEN NULL ELSE
               (SELECT v.body FROM vehicles v WHERE v.partner = $1 AND v.id = s.vehicle_id)
               END AS vehicle
        FROM sessions s
        WHERE s.partner = $1 AND s.charger_id = w.charger_id
          AND (s.start_ms, s.id) > ($3, $4) AND s.start_ms <= $5 AND s.live + 0 = 1
          AND (s.end_ms IS NULL OR $7 + (s.start_ms - $7 + $8 - 1) / $8 * $8 < s.end_ms)
        ORDER BY s.start_ms, s.id LIMIT $6
    ) x
) FROM wanted w ORDER BY w.place
"""

OF_KEYS = f"""
WITH {batch("wanted", *_KEY)}
SELECT (
    SELECT '[' || s.body || ',' || coalesce(s.seen, 'null') || ']' FROM sessions s
    WHERE s.partner = $1 AND s.vehicle_id = w.vehicle_id AND s.start_ms = w.start_ms
      AND s.start_rank = w.start_rank AND s.charger_id = w.charger_id AND s.live = 1
),
(SELECT v.body FROM vehicles v WHERE v.partner = $1 AND v.id = w.vehicle_id),
(SELECT c.body FROM chargers c WHERE c.partner = $1 AND c.id = w.charger_id)
FROM wanted w ORDER BY w.place
"""

_EVENTS_WANTED = f"WITH {batch('wanted', *columns_of(EventsWanted))}"


def _newest(condition: str) -> str:
    """Of each session the newest instant of an event that the condition takes.

    It is looked for in the order of the one index that has it, lest PostgreSQL read all events of
    the vehicle in another one and sort them.
    """
    return f"""
{_EVENTS_WANTED}
SELECT w.number, (
    SELECT e.at_ms FROM vehicle_history e
    WHERE e.partner = $1 AND e.vehicle_id = w.vehicle_id AND e.at_ms >= w.from_ms
      AND e.at_ms <= w.until_ms AND {condition}
    ORDER BY e.at_ms DESC, e.type DESC, e.charger_id DESC, e.stamp DESC LIMIT 1
) FROM wanted w
"""


SOC_AT = _newest("{event_json} ->> 'stateOfCharge' IS NOT NULL")
POWER_AT = _newest("{event_json} ->> 'chargePower' IS NOT NULL AND e.charger_id = w.charger_id")
HEARD_AT = _newest("true")

# Of each session the first $3 of its events that are wanted, as a list of JSON arrays. Only one
# index has this order, so it is that one which is read.
EVENTS = f"""
{_EVENTS_WANTED}
SELECT w.number, w.vehicle_id, w.charger_id, w.from_ms, w.until_ms, (
    SELECT string_agg('[' || x.seq || ',' || x.at_ms || ',' || x.body || ']', ',') FROM (
        SELECT e.seq, e.at_ms, e.body FROM vehicle_history e
        WHERE e.partner = $1 AND e.vehicle_id = w.vehicle_id AND e.at_ms >= w.from_ms
          AND e.at_ms <= w.until_ms
        ORDER BY e.at_ms, e.type, e.charger_id, e.stamp LIMIT $3
    ) x
) FROM wanted w
"""


class _Started(msgspec.Struct, array_like=True, gc=False):
    """A session as a list of JSON arrays has it; only its key where its course is not known."""

    vehicle_id: str
    start_ms: int
    start_rank: int
    id: str
    end_ms: int
    steps: list[Step] | None
    vehicle: msgspec.Raw


_started = msgspec.json.Decoder(list[_Started])
_session = msgspec.json.Decoder(tuple[SessionRecord, list[Seen] | None])


class PluggedIn:
    """What is and was plugged in, of all partners. Every method raises Unavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._events = Events(engine)
        event_json = engine.dialect.event_json
        self._soc_at = SOC_AT.format(event_json=event_json)
        self._power_at = POWER_AT.format(event_json=event_json)

    async def now(
        self, partner: int, first: str, last: str, limit: int
    ) -> AsyncIterator[list[ActiveSession]]:
        """The sessions that last at the chargers from the first to the last id, by charger."""
        position: tuple[object, ...] = (first, FIRST_MS, "")
        rows: list[Row] = [()] * limit
        while len(rows) == limit:
            rows = await self._engine.scan(ACTIVE, partner, *position, last, limit)
            yield [ActiveSession(*row) for row in rows]
            position = tuple(rows[-1][:3]) if rows else ()

    async def at(
        self, partner: int, first: str, last: str, at_ms: int
    ) -> AsyncIterator[list[SessionKey]]:
        """The keys of all sessions that lasted at the moment, in runs that are each in order."""
        bounds = (at_ms, first, last)
        async for run in self._run(BEGUN, partner, FIRST_MS, *bounds):
            yield run
        spans = batch_of((span, at_ms - (1 << span)) for span in range(1, LONGEST_SPAN))
        for (span,) in await self._engine.scan(SPANS, partner, spans, at_ms):
            async for run in self._run(ENDED, partner, at_ms - (1 << span), *bounds, span):
                yield run

    async def _run(
        self, sql: str, partner: int, after_ms: int, *parameters: object
    ) -> AsyncIterator[list[SessionKey]]:
        position: tuple[object, ...] = (after_ms, _LAST)
        rows: list[Row] = [()] * KEYS
        while len(rows) == KEYS:
            rows = await self._engine.scan(sql, partner, *position, *parameters, KEYS)
            yield sorted(SessionKey(*row[2:]) for row in rows)
            position = tuple(rows[-1][:2]) if rows else ()

    async def chargers(self, partner: int, first: str, last: str, limit: int) -> list[str]:
        """The ids of the chargers from the first to the last, in order."""
        rows = await self._engine.scan(CHARGERS, partner, first, last, limit)
        return [charger_id for (charger_id,) in rows]

    async def started(
        self, partner: int, charger_ids: Sequence[str], moments: range
    ) -> AsyncIterator[tuple[str, list[PastCourse], list[SessionKey]]]:
        """The sessions that began at these chargers after the first of these moments and lasted at
        another one: some at a time, of one charger, in the order of the chargers, each of which
        comes once at least. Of those whose course is not known the keys.
        """
        wanted = batch_of([charger_id] for charger_id in charger_ids)
        until_ms, grid = moments[-1], (moments[0], moments.step)
        rows = await self._engine.scan(
            STARTED, partner, wanted, moments[0], _LAST, until_ms, FIRST_STARTED, *grid
        )
        for charger_id, charger, text in rows:
            found, limit = _started.decode(f"[{text or ''}]"), FIRST_STARTED
            yield charger_id, *_of_charger(charger_id, charger, found)
            while len(found) == limit:
                one, last, limit = batch_of([[charger_id]]), found[-1], STARTED_AT_ONCE
                ((*_, more),) = await self._engine.scan(
                    STARTED, partner, one, last.start_ms, last.id, until_ms, limit, *grid
                )
                found = _started.decode(f"[{more or ''}]")
                yield charger_id, *_of_charger(charger_id, charger, found)

    async def of_keys(self, partner: int, keys: Iterable[SessionKey]) -> list[PastSession]:
        """Those of these sessions that still exist."""
        rows = await self._engine.scan(OF_KEYS, partner, batch_of(keys))
        found = []
        for text, vehicle, charger in rows:
            if text and vehicle and charger:
                session, seen = _session.decode(text)
                found.append(PastSession(session.with_seen(seen), vehicle, charger))
        return found

    async def soc_at(self, partner: int, wanted: Sequence[EventsWanted]) -> list[tuple[int, int]]:
        """The number of each session, and when its state of charge was told last, if it was."""
        return await self._newest(self._soc_at, partner, wanted)

    async def power_at(self, partner: int, wanted: Sequence[EventsWanted]) -> list[tuple[int, int]]:
        """The same of the power at its charger."""
        return await self._newest(self._power_at, partner, wanted)

    async def heard_at(self, partner: int, wanted: Sequence[EventsWanted]) -> list[tuple[int, int]]:
        """The same of any event of its vehicle."""
        return await self._newest(HEARD_AT, partner, wanted)

    async def _newest(
        self, sql: str, partner: int, wanted: Sequence[EventsWanted]
    ) -> list[tuple[int, int]]:
        rows = await self._engine.scan(sql, partner, batch_of(wanted)) if wanted else []
        return [(number, at_ms) for number, at_ms in rows if at_ms is not None]

    async def events(
        self, partner: int, wanted: Sequence[EventsWanted]
    ) -> AsyncIterator[tuple[EventsWanted, list[OrderedEvent]]]:
        """The events of each session, in order; those of a long session come in several parts."""
        rest = Rest()
        for start in range(0, len(wanted), SESSIONS):
            some = batch_of(wanted[start : start + SESSIONS])
            for *columns, text in await self._engine.scan(EVENTS, partner, some, EVENTS_OF_EACH):
                one, events = EventsWanted(*columns), ordered_events_in(text)
                if len(events) < EVENTS_OF_EACH:
                    yield one, events
                else:
                    async for part in self._events.portions_of_vehicle(
                        partner, one.vehicle_id, one.from_ms, EVENTS_AT_ONCE, until_ms=one.until_ms
                    ):
                        yield one, sorted(part)
                await rest.if_long()


def _of_charger(
    charger_id: str, charger: str | None, found: Iterable[_Started]
) -> tuple[list[PastCourse], list[SessionKey]]:
    """What was found, and the keys of those whose course is not known."""
    courses, keys = list[PastCourse](), list[SessionKey]()
    for one in found:
        if one.steps is None:
            keys.append(SessionKey(charger_id, one.vehicle_id, one.start_ms, one.start_rank))
        elif charger:  # else the partner is being deleted
            vehicle = bytes(one.vehicle).decode()
            courses.append(PastCourse(one.start_ms, one.end_ms, one.steps, vehicle, charger))
    return courses, keys
