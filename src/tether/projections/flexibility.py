"""What is read to say how much power and energy plugged-in vehicles could move.

Chargers come in the order of their ids, a page at a time, so that neither memory nor the pauses of
the event loop grow with the fleet. What is read depends on what was plugged in, not on how much
there is: see the indexes in migrations/0002.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from heapq import merge
from itertools import groupby, islice
from typing import NamedTuple, TypeVar

import msgspec

from tether.domain.areas import area_of
from tether.domain.course import (
    STALE,
    Condition,
    Course,
    Reading,
    Step,
    Told,
    condition_of,
    course_at,
    left_out,
    newest_at,
    readings_beside,
    steps_of,
    thinned,
)
from tether.domain.errors import Invalid
from tether.domain.flexibility import Box, Figures, Pair, Totals
from tether.domain.models import Charger, from_json
from tether.domain.session_record import OrderedEvent, SessionRecord
from tether.projections.projector import Projector
from tether.projections.unknowns import Lacking, lacking, pair_of_bodies
from tether.storage.events import Events
from tether.storage.plugged_in import EventsWanted, PastCourse, PastSession, PluggedIn
from tether.storage.session_records import ordered_events_in
from tether.storage.turns import Rest, in_steps

PAGE = 100  # sessions that are read at once
SESSIONS = 100  # whose events are read at once
EVENTS = 50  # of each of them: those of a session with more are read by themselves
CHARGERS = 20  # of which the sessions of a window of time are looked up at once
READINGS = 1000  # events of such a session
MOST_OF_AREAS = 20_000  # areas times moments, of which the figures are in memory together

_LAST = "\x7f"  # behind every id


class Chargers(NamedTuple):
    """Which chargers are asked for: the ids from `first` to `last`, and of these those in a box."""

    first: str = ""
    last: str = _LAST
    box: Box | None = None

    def beginning(self, charger_id: str) -> "Chargers":
        """Those of them from this one on."""
        return self._replace(first=max(self.first, charger_id))


class MaxAge(NamedTuple):
    """Vehicles that were not heard of for longer are left out. `now_ms` is the present."""

    ms: int
    now_ms: int


class Asked(NamedTuple):
    """What is asked for: of which chargers, at which moments (None: now), how old at most."""

    chargers: Chargers
    moments: range | None
    max_age: MaxAge | None = None


class EntryPosition(NamedTuple):
    """A charger or an area, and which of the moments."""

    name: str
    moment: int


class Entry(NamedTuple):
    """The figures at a position. The area of chargers without coordinates has no name."""

    position: EntryPosition
    figures: Figures


class Occupied(NamedTuple):
    """A charger, and which vehicles were plugged in at it, and how."""

    charger_id: str
    charger: str
    there: list[tuple[Pair, Course]]


class Found(NamedTuple):
    """A vehicle that was plugged in at a charger, and how it was at the moments in question."""

    charger_id: str
    charger: str
    vehicle: str
    course: Course


T = TypeVar("T")
_sessions = msgspec.json.Decoder(SessionRecord)


class Capacities:
    """What could be moved. Every method raises Unavailable as the store's do.

    With `stale` none waits for what is not derived yet.
    """

    def __init__(self, plugged_in: PluggedIn, events: Events, projector: Projector) -> None:
        self._plugged_in = plugged_in
        self._of_vehicles = events
        self._projector = projector

    async def totals(self, partner: int, asked: Asked, *, stale: bool = False) -> list[Figures]:
        """The sums over these chargers, at each of the moments or by the newest that is known."""
        if not stale:
            await self._projector.catch_up(partner)
        totals = Totals(asked.moments or range(1))
        async for one in self._occupied(partner, asked):
            await in_steps(totals.adding(one.there))
        return await in_steps(totals.summing())

    async def by_charger(
        self,
        partner: int,
        asked: Asked,
        after: EntryPosition | None,
        limit: int,
        *,
        stale: bool = False,
    ) -> list[Entry]:
        """The figures of each of these chargers at each moment with a vehicle plugged in, the first
        `limit` of them behind a place.
        """
        if not stale:
            await self._projector.catch_up(partner)
        if after is not None:
            asked = asked._replace(chargers=asked.chargers.beginning(after.name))
        found: list[Entry] = []
        async for one in self._occupied(partner, asked):
            totals = Totals(asked.moments or range(1))
            await in_steps(totals.adding(one.there))
            figures = await in_steps(totals.summing())
            found += _entries(one.charger_id, figures, after)
            if len(found) >= limit:
                break
        return found[:limit]

    async def by_area(self, partner: int, asked: Asked, *, stale: bool = False) -> list[Entry]:
        """The figures of each area at each moment with a vehicle plugged in there.

        Raises Invalid if there are too many areas for so many moments.
        """
        if not stale:
            await self._projector.catch_up(partner)
        moments = asked.moments or range(1)
        areas: dict[str, Totals] = {}
        async for one in self._occupied(partner, asked):
            area = area_of(from_json(Charger, one.charger)) or ""
            if area not in areas and (len(areas) + 1) * len(moments) > MOST_OF_AREAS:
                raise Invalid(
                    "by",
                    f"At most {MOST_OF_AREAS:,} areas times moments can be asked for: take fewer "
                    "moments, or give bbox.",
                )
            await in_steps(areas.setdefault(area, Totals(moments)).adding(one.there))
        found: list[Entry] = []
        for area in sorted(areas):
            found += _entries(area, await in_steps(areas.pop(area).summing()), None)
        return found

    async def lacking(self, partner: int, most: int) -> dict[str, list[Lacking]]:
        """Of which vehicles that are plugged in something is not known now: by what it is, as in
        `UnknownCapacity`, the first `most` of each. Does not wait for what is not derived yet.
        """
        return await lacking(self._plugged_in, partner, most)

    async def _occupied(self, partner: int, asked: Asked) -> AsyncIterator[Occupied]:
        """The chargers at which vehicles were plugged in, with these."""
        chargers, moments, max_age = asked
        pages = self._now if moments is None else self._past
        now: Occupied | None = None
        suits, rest = True, Rest()
        async for page in pages(partner, chargers, moments or range(1), max_age):
            for found in page:
                if now is None or found.charger_id != now.charger_id:
                    if now is not None and now.there:
                        yield now
                    now = Occupied(found.charger_id, found.charger, [])
                    if chargers.box is not None:
                        suits = chargers.box.has(from_json(Charger, found.charger))
                if suits:
                    now.there.append((pair_of_bodies(found.charger, found.vehicle), found.course))
                await rest.if_long()
        if now is not None and now.there:
            yield now

    # Now ------------------------------------------------------------------------------------------

    async def _now(
        self, partner: int, chargers: Chargers, _: range, max_age: MaxAge | None
    ) -> AsyncIterator[Iterable[Found]]:
        async for page in self._plugged_in.now(partner, chargers.first, chargers.last, PAGE):
            yield (
                Found(
                    one.charger_id, one.charger, one.vehicle, [(0, _condition(one.body, max_age))]
                )
                for one in page
                if one.vehicle and one.charger  # else the partner is being deleted
            )

    # At past moments ------------------------------------------------------------------------------

    async def _past(
        self, partner: int, chargers: Chargers, moments: range, max_age: MaxAge | None
    ) -> AsyncIterator[Iterable[Found]]:
        async for charger_id, courses, sessions in self._lasting(partner, chargers, moments):
            yield (
                Found(charger_id, charger, vehicle, course)
                for start_ms, end_ms, steps, vehicle, charger in courses
                if (course := _course(start_ms, end_ms, steps, moments, max_age))
            )
            if sessions:
                records = [one.session for one in sessions]
                heard = max_age is not None
                readings = await self._readings(partner, records, moments, heard=heard)
                yield (
                    Found(record.charger_id, charger, vehicle, course)
                    for (record, vehicle, charger), told in zip(sessions, readings, strict=True)
                    for steps in [steps_of(record, told)]
                    if (course := _course(record.start_ms, record.end_ms, steps, moments, max_age))
                )

    async def _lasting(
        self, partner: int, chargers: Chargers, moments: range
    ) -> AsyncIterator[tuple[str, list[PastCourse], list[PastSession]]]:
        """All sessions that lasted at one of the moments, and a few more, by charger."""
        at = self._plugged_in.at(partner, chargers.first, chargers.last, moments[0])
        runs = [run async for run in at]
        # A session that ended in between is in two of them.
        lasted = (key for key, _ in groupby(merge(*runs)))
        if len(moments) == 1:
            while keys := list(islice(lasted, PAGE)):
                yield "", [], await self._plugged_in.of_keys(partner, keys)
            return
        first, waiting = chargers.first, next(lasted, None)
        while ids := await self._plugged_in.chargers(partner, first, chargers.last, CHARGERS):
            async for charger_id, found, keys in self._plugged_in.started(partner, ids, moments):
                while waiting is not None and waiting.charger_id <= charger_id:
                    keys.append(waiting)
                    waiting = next(lasted, None)
                for start in range(0, len(keys), PAGE):
                    some = keys[start : start + PAGE]
                    yield charger_id, [], await self._plugged_in.of_keys(partner, some)
                yield charger_id, found, []
            first = ids[-1] + " "

    # What was read of them ------------------------------------------------------------------------

    async def _readings(
        self, partner: int, sessions: Sequence[SessionRecord], moments: range, *, heard: bool
    ) -> list[list[Told]]:
        """What tells how each session was at the moments, and with `heard` when it was heard."""
        first_ms, last_ms = moments[0], moments[-1]
        readings: list[list[Told]] = [[] for _ in sessions]
        socs, powers, heards, events = [], [], [], []
        for number, session in enumerate(sessions):
            if (beside := readings_beside(session)) is not None:
                readings[number] = beside
                continue
            if session.start_ms <= first_ms:
                known = newest_at(session, first_ms)
                readings[number] += known.readings
                if known.soc_since is not None:
                    socs.append(_wanted(sessions, number, known.soc_since, first_ms))
                if known.power_since is not None:
                    powers.append(_wanted(sessions, number, known.power_since, first_ms))
                if heard and session.last.at_ms <= first_ms:
                    readings[number].append(Reading(session.last.at_ms))
                elif heard:
                    heards.append(_wanted(sessions, number, session.start_ms, first_ms))
            from_ms = max(session.start_ms, first_ms + 1)
            until_ms = min(last_ms, session.last.at_ms)
            if from_ms <= until_ms:
                events.append(_wanted(sessions, number, from_ms, until_ms))
        newest = [
            *await self._plugged_in.soc_at(partner, socs),
            *await self._plugged_in.power_at(partner, powers),
            *await self._plugged_in.heard_at(partner, heards),
        ]
        events += (_wanted(sessions, number, at_ms, at_ms) for number, at_ms in newest)
        for start in range(0, len(events), SESSIONS):
            async for number, some in self._events(partner, events[start : start + SESSIONS]):
                told = _readings_of(sessions[number], some)
                readings[number] += thinned(told, moments, heard=heard)
        return readings

    async def _events(
        self, partner: int, wanted: Sequence[EventsWanted]
    ) -> AsyncIterator[tuple[int, list[OrderedEvent]]]:
        """The numbers and events of these sessions; many of one session in portions."""
        rows = await self._plugged_in.events(partner, wanted, EVENTS)
        async for one, text in _with_pauses(rows):
            events = ordered_events_in(text)
            if len(events) < EVENTS:
                yield one.number, events
            else:
                async for some in self._of_vehicles.portions_of_vehicle(
                    partner, one.vehicle_id, one.from_ms, READINGS, until_ms=one.until_ms
                ):
                    yield one.number, some


async def _with_pauses(rows: Iterable[T]) -> AsyncIterator[T]:
    """The rows; between two of them, each of which may be large, others are served."""
    rest = Rest()
    for row in rows:
        yield row
        await rest.if_long()


def _entries(name: str, figures: Iterable[Figures], after: EntryPosition | None) -> Iterator[Entry]:
    """Those with a vehicle plugged in, behind the position."""
    for moment, one in enumerate(figures):
        position = EntryPosition(name, moment)
        if (one.vehicles or one.stale) and (after is None or position > after):
            yield Entry(position, one)


def _wanted(
    sessions: Sequence[SessionRecord], number: int, from_ms: int, until_ms: int
) -> EventsWanted:
    session = sessions[number]
    return EventsWanted(number, session.vehicle_id, session.charger_id, from_ms, until_ms)


def _course(
    start_ms: int, end_ms: int | None, steps: Sequence[Step], moments: range, max_age: MaxAge | None
) -> Course:
    """How the vehicle of the session was at these moments."""
    course = course_at(start_ms, end_ms, steps, moments)
    if max_age is None or not course:
        return course
    return left_out(course, start_ms, steps, moments, max_age.ms)


def _condition(body: str, max_age: MaxAge | None) -> Condition:
    """How the vehicle of the session is by the newest that is known."""
    session = _sessions.decode(body)
    if max_age is not None and max_age.now_ms - session.last.at_ms > max_age.ms:
        return STALE
    return condition_of(session)


def _readings_of(session: SessionRecord, events: Iterable[OrderedEvent]) -> Iterator[Reading]:
    """What these say of the session; powers only if they are those at its charger."""
    begin = (session.start_ms, session.start_rank, session.charger_id)
    for position, event in sorted(events):
        if position[:3] >= begin:
            power = event.charge_power if position.charger_id == session.charger_id else None
            yield Reading(position.at_ms, event.state_of_charge, power)
