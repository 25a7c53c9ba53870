"""The capacity of plugged-in vehicles: reads sessions and events, and adds up the figures.

Chargers come in the order of their ids, one page at a time, so that neither memory nor the pauses
of the event loop grow with the fleet.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from functools import lru_cache
from heapq import merge
from itertools import groupby, islice
from typing import NamedTuple

import msgspec

from tether.domain.capacity import Box, Figures, Pair, Totals, pair_of, share_of
from tether.domain.errors import Invalid
from tether.domain.models import Charger, Vehicle, area_of, from_json
from tether.domain.session_record import OrderedEvent, SessionRecord
from tether.domain.timeline import (
    STALE,
    Condition,
    Reading,
    ReadingKind,
    Timeline,
    condition_of,
    newest_at,
    relevant_readings,
    steps_of,
    stored_readings,
    timeline_at,
)
from tether.projections.projector import Projector
from tether.storage.plugged_in import EventsWanted, PastSession, PastTimeline, PluggedIn
from tether.storage.turns import TimeSlice, in_steps

PAGE = 100  # sessions that are read at once
CHARGERS = 20  # in a query for sessions
MAX_AREA_MOMENTS = 20_000  # areas times moments: their figures are in memory together
LONGEST_CACHED = 1000  # characters of a charger and a vehicle together

_LAST = "\x7f"  # sorts after every id


class CapacityQuery(NamedTuple):
    """Selects the chargers from the id `first` to `last` that are in the box, and past moments.

    Without moments it asks for the present, `now_ms`. It leaves out vehicles without an event for
    longer than `max_age_ms`.
    """

    first: str = ""
    last: str = _LAST
    box: Box | None = None
    moments: range | None = None
    max_age_ms: int | None = None
    now_ms: int = 0


class EntryPosition(NamedTuple):
    """The id of a charger or an area, and the index of a moment."""

    name: str
    moment: int


class Entry(NamedTuple):
    """The figures at a position. The area of chargers without coordinates has no name."""

    position: EntryPosition
    figures: Figures


class OccupiedCharger(NamedTuple):
    """A charger with the vehicles that were plugged in there, each with its timeline."""

    charger_id: str
    charger: str
    vehicles: list[tuple[Pair, Timeline]]


class PluggedInVehicle(NamedTuple):
    """A vehicle that was plugged in at a charger, and its timeline at the moments of the query."""

    charger_id: str
    charger: str
    vehicle: str
    timeline: Timeline


class IncompleteVehicle(NamedTuple):
    """A plugged-in vehicle that lacks a value."""

    vehicle_id: str
    charger_id: str


_sessions = msgspec.json.Decoder(SessionRecord)


class Capacities:
    """The capacity of plugged-in vehicles. Every method raises Unavailable as the store's do.

    With `stale` no method waits for events that are not derived yet.
    """

    def __init__(self, plugged_in: PluggedIn, projector: Projector) -> None:
        self._plugged_in = plugged_in
        self._projector = projector

    async def totals(
        self, partner: int, query: CapacityQuery, *, stale: bool = False
    ) -> list[Figures]:
        """The sums over these chargers at each moment, or one sum for now."""
        totals = Totals(query.moments or range(1))
        async for charger in self._occupied(partner, query, stale=stale):
            await in_steps(totals.adding(charger.vehicles))
        return await in_steps(totals.summing())

    async def by_charger(
        self,
        partner: int,
        query: CapacityQuery,
        after: EntryPosition | None,
        limit: int,
        *,
        stale: bool = False,
    ) -> list[Entry]:
        """The figures of each charger at each moment with a vehicle plugged in: the first `limit`
        entries after a position.
        """
        if after is not None:
            query = query._replace(first=max(query.first, after.name))
        entries: list[Entry] = []
        async for charger in self._occupied(partner, query, stale=stale):
            totals = Totals(query.moments or range(1))
            await in_steps(totals.adding(charger.vehicles))
            figures = await in_steps(totals.summing())
            entries += _entries(charger.charger_id, figures, after)
            if len(entries) >= limit:
                break
        return entries[:limit]

    async def by_area(
        self, partner: int, query: CapacityQuery, *, stale: bool = False
    ) -> list[Entry]:
        """The figures of each area at each moment with a vehicle plugged in there.

        Raises Invalid if there are too many areas for so many moments.
        """
        moments = query.moments or range(1)
        areas: dict[str, Totals] = {}
        async for charger in self._occupied(partner, query, stale=stale):
            area = area_of(from_json(Charger, charger.charger)) or ""
            if area not in areas and (len(areas) + 1) * len(moments) > MAX_AREA_MOMENTS:
                raise Invalid(
                    "by",
                    f"At most {MAX_AREA_MOMENTS:,} areas times moments can be asked for: take "
                    "fewer moments, or give bbox.",
                )
            await in_steps(areas.setdefault(area, Totals(moments)).adding(charger.vehicles))
        entries: list[Entry] = []
        for area in sorted(areas):
            entries += _entries(area, await in_steps(areas.pop(area).summing()), None)
        return entries

    async def incomplete(self, partner: int, most: int) -> dict[str, list[IncompleteVehicle]]:
        """The plugged-in vehicles that lack a value now, by charger: up to `most` for each unknown
        of `UnknownCapacity` that belongs to a vehicle. Does not wait for events to be derived.
        """
        incomplete: dict[str, list[IncompleteVehicle]] = {
            "state_of_charge": [],
            "charge_power": [],
            "common_charge_power": [],
            "common_discharge_power": [],
        }
        time_slice = TimeSlice()
        async for plugged_in in self._now(partner, CapacityQuery()):
            await time_slice.yield_if_over()
            ((_, condition),) = plugged_in.timeline
            assert condition is not None
            share = share_of(_pair_of_bodies(plugged_in.charger, plugged_in.vehicle), condition)
            lacks = share.no_soc, share.no_power, share.no_common_charge, share.no_common_discharge
            for vehicles, lacks_it in zip(incomplete.values(), lacks, strict=True):
                if lacks_it and len(vehicles) < most:
                    vehicle = from_json(Vehicle, plugged_in.vehicle)
                    vehicles.append(IncompleteVehicle(vehicle.id, plugged_in.charger_id))
            if all(len(vehicles) == most for vehicles in incomplete.values()):
                break
        return incomplete

    async def _occupied(
        self, partner: int, query: CapacityQuery, *, stale: bool
    ) -> AsyncIterator[OccupiedCharger]:
        """The chargers with vehicles plugged in at one of the moments."""
        if not stale:
            await self._projector.catch_up(partner)
        read = self._now if query.moments is None else self._past
        current: OccupiedCharger | None = None
        box, in_box, time_slice = query.box, True, TimeSlice()
        async for charger_id, charger, vehicle, timeline in read(partner, query):
            if current is None or charger_id != current.charger_id:
                if current is not None and current.vehicles:
                    yield current
                current = OccupiedCharger(charger_id, charger, [])
                in_box = box is None or box.has(from_json(Charger, charger))
            if in_box:
                current.vehicles.append((_pair_of_bodies(charger, vehicle), timeline))
            await time_slice.yield_if_over()
        if current is not None and current.vehicles:
            yield current

    # Now ------------------------------------------------------------------------------------------

    async def _now(self, partner: int, query: CapacityQuery) -> AsyncIterator[PluggedInVehicle]:
        async for page in self._plugged_in.now(partner, query.first, query.last, PAGE):
            for charger_id, _, _, body, vehicle, charger in page:
                if vehicle and charger:  # otherwise the partner is being deleted
                    timeline: Timeline = [(0, _condition(body, query))]
                    yield PluggedInVehicle(charger_id, charger, vehicle, timeline)

    # At past moments ------------------------------------------------------------------------------

    async def _past(self, partner: int, query: CapacityQuery) -> AsyncIterator[PluggedInVehicle]:
        moments, max_age_ms = query.moments, query.max_age_ms
        assert moments is not None
        async for charger_id, timelines, sessions in self._lasting(partner, query, moments):
            for start_ms, end_ms, steps, vehicle, charger in timelines:
                if timeline := timeline_at(start_ms, end_ms, steps, moments, max_age_ms):
                    yield PluggedInVehicle(charger_id, charger, vehicle, timeline)
            records = [past.session for past in sessions]
            readings = await self._readings(partner, records, moments, heard=max_age_ms is not None)
            for (record, vehicle, charger), read in zip(sessions, readings, strict=True):
                steps = steps_of(record, read)
                if timeline := timeline_at(
                    record.start_ms, record.end_ms, steps, moments, max_age_ms
                ):
                    yield PluggedInVehicle(record.charger_id, charger, vehicle, timeline)

    async def _lasting(
        self, partner: int, query: CapacityQuery, moments: range
    ) -> AsyncIterator[tuple[str, list[PastTimeline], list[PastSession]]]:
        """All sessions that lasted at one of the moments, and a few more, by charger."""
        at = self._plugged_in.at(partner, query.first, query.last, moments[0])
        runs = [run async for run in at]
        # A session that ended while they were read is in two of the runs.
        lasted = (key for key, _ in groupby(merge(*runs)))
        if len(moments) == 1:
            while keys := list(islice(lasted, PAGE)):
                yield "", [], await self._plugged_in.of_keys(partner, keys)
            return
        first, next_lasted = query.first, next(lasted, None)
        while ids := await self._plugged_in.chargers(partner, first, query.last, CHARGERS):
            started = self._plugged_in.started(partner, ids, moments)
            async for charger_id, timelines, keys in started:
                while next_lasted is not None and next_lasted.charger_id <= charger_id:
                    keys.append(next_lasted)
                    next_lasted = next(lasted, None)
                for start in range(0, len(keys), PAGE):
                    page = keys[start : start + PAGE]
                    yield charger_id, [], await self._plugged_in.of_keys(partner, page)
                yield charger_id, timelines, []
            first = ids[-1] + " "

    async def _readings(
        self, partner: int, sessions: Sequence[SessionRecord], moments: range, *, heard: bool
    ) -> list[list[Reading]]:
        """The readings that decide each session's timeline at the moments.

        `heard`: also the newest event of any kind before each moment.
        """
        first_ms, last_ms = moments[0], moments[-1]
        readings: list[list[Reading]] = [[] for _ in sessions]
        older: defaultdict[ReadingKind, list[EventsWanted]] = defaultdict(list)
        events: list[EventsWanted] = []
        for number, session in enumerate(sessions):
            if (stored := stored_readings(session)) is not None:
                readings[number] = stored
                continue
            if session.start_ms <= first_ms:
                readings[number], since = newest_at(session, first_ms, heard=heard)
                for kind, since_ms in since.items():
                    older[kind].append(_wanted(number, session, since_ms, first_ms))
            from_ms = max(session.start_ms, first_ms + 1)
            until_ms = min(last_ms, session.last.at_ms)
            if from_ms <= until_ms:
                events.append(_wanted(number, session, from_ms, until_ms))
        for kind, wanted in older.items():
            newest = await self._plugged_in.newest(partner, wanted, kind)
            events += (_wanted(number, sessions[number], at_ms, at_ms) for number, at_ms in newest)
        async for query, found in self._plugged_in.events(partner, events):
            read = _readings_of(sessions[query.number], found)
            readings[query.number] += relevant_readings(read, moments, heard=heard)
        return readings


def _entries(name: str, figures: Iterable[Figures], after: EntryPosition | None) -> Iterator[Entry]:
    """The entries after the position that have a vehicle plugged in."""
    for moment, at_moment in enumerate(figures):
        position = EntryPosition(name, moment)
        if (at_moment.vehicles or at_moment.stale) and (after is None or position > after):
            yield Entry(position, at_moment)


def _wanted(number: int, session: SessionRecord, from_ms: int, until_ms: int) -> EventsWanted:
    return EventsWanted(number, session.vehicle_id, session.charger_id, from_ms, until_ms)


def _condition(body: str, query: CapacityQuery) -> Condition:
    """The newest known condition of the session's vehicle."""
    session = _sessions.decode(body)
    age_ms = query.now_ms - session.last.at_ms
    if query.max_age_ms is not None and age_ms > query.max_age_ms:
        return STALE
    return condition_of(session)


def _readings_of(session: SessionRecord, events: Iterable[OrderedEvent]) -> Iterator[Reading]:
    """The readings of the session's events. A power counts only at the session's charger."""
    begin = (session.start_ms, session.start_rank, session.charger_id)
    for position, event in events:
        if position[:3] >= begin:
            power = event.charge_power if position.charger_id == session.charger_id else None
            yield position.at_ms, event.state_of_charge, power


def _pair_of_bodies(charger: str, vehicle: str) -> Pair:
    """What a charger and a vehicle can do together, by their JSON.

    Fleets have many chargers and vehicles of few kinds, so the result is cached by kind.
    """
    # Long bodies are not cached: each may have hundreds of long numbers.
    cached = len(charger) + len(vehicle) <= LONGEST_CACHED
    # The id comes first in both, the position last: neither matters.
    return (_pair_of_kinds if cached else _pair_of_kinds.__wrapped__)(
        charger.partition(",")[2].partition(',"latitude"')[0].rstrip("}"), vehicle.partition(",")[2]
    )


@lru_cache(maxsize=4096)
def _pair_of_kinds(charger: str, vehicle: str) -> Pair:
    return pair_of(
        from_json(Charger, f'{{"id":"",{charger}}}'), from_json(Vehicle, f'{{"id":"",{vehicle}')
    )
