"""What new events change in the sessions that are stored, and whether these are as they should be.

Nothing here writes, and the events beyond a given sequence number are not looked at.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from tether.domain.charge_period import Report
from tether.domain.earlier_sessions import RECENT, EventPosition, SessionContext, Start
from tether.domain.models import Event, from_json
from tether.domain.session_builder import SessionBuilder
from tether.domain.session_record import MOST_TAKEN, PlacedEvent, SessionRecord, placed_event
from tether.storage import session_queries as queries
from tether.storage.engine import Engine, Row
from tether.storage.session_rows import (
    Change,
    numbered,
    placed_event_in,
    placed_events_in,
    read_record,
    row_of,
    rows_in,
    start_in,
    text_of,
    ties_of,
)

PAGE = 1000  # events of one vehicle
VEHICLES = 10_000  # of which is looked up at once what waits
STAYS = 100  # stays of one vehicle
LATE_AT_ONCE = 100  # vehicles of which events came late …
LATE_EVENTS = 5_000  # … and so many events, as they are in memory together
LATE_MOST = 200  # events or stays of such a vehicle; with more it is looked at by itself
TURN = 100  # events or vehicles after which others have theirs
END_OF_TIME = 2**62

BEGINNING: Start = (-END_OF_TIME, 0, "")


class Portion(NamedTuple):
    """Some of a vehicle's stays: how many there are, and which of them differ."""

    stays: int
    changes: list[Change]


class Late(NamedTuple):
    """A vehicle of which events came late, and where the first and the last of them lie."""

    vehicle: str
    first: EventPosition
    last: EventPosition
    events: int


class Changes:
    """Finds out what is to be changed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def of_events(self, partner: int, rows: list[Row]) -> tuple[list[Change], list[Late]]:
        """What these events change, the next ones behind those that the sessions contain.

        What those change that came late is left to `of_late`. Empties `rows`: they are megabytes.
        """
        facts: defaultdict[str, list[PlacedEvent]] = defaultdict(list)
        for place, (seq, at_ms, vehicle_id, body) in enumerate(rows):
            facts[vehicle_id].append(placed_event(seq, at_ms, from_json(Event, body)))
            await let_others(place)
        rows.clear()
        known = await self._engine.scan(
            queries.LAST_STAYS, partner, numbered([vehicle] for vehicle in facts)
        )
        changes: list[Change] = []
        late: list[Late] = []
        reports: dict[tuple[str, Start], list[Report]] = defaultdict(list)
        for place, (vehicle, last) in enumerate(known):
            await let_others(place)
            new = sorted(facts.pop(vehicle))
            stay, before = read_record(last) if last else (None, SessionContext())
            if stay is not None and new[0].place.at_ms <= stay.last.at_ms:
                late.append(Late(vehicle, new[0].place, new[-1].place, len(new)))
                continue
            was = None if stay is None else _state(stay)
            timeline = SessionBuilder(stay, before).take(new)
            # Else the next stay has begun after its end.
            if stay is not None and was is not None and was != _state(stay):
                lasts = stay.end_ms is None and was[1] is None
                changes.append(Change(stay, before, grown=lasts))
            changes += (Change(*begun) for begun in timeline.begun)
            for start, report in timeline.reports:
                reports[vehicle, start].append(report)
        for (vehicle, start), (stay, before) in (await self._stays(partner, reports)).items():
            stay.reports = [*stay.reports, *reports[vehicle, start]]
            changes.append(Change(stay, before))
        return changes, late

    async def waiting(self, partner: int, after: int, until: int) -> AsyncIterator[list[Late]]:
        """Of which vehicles events come behind the number `after`, up to `until`, as if all of
        them were late; many vehicles at a time, in the order of their ids.
        """
        last = ""
        while rows := await self._engine.scan(
            queries.VEHICLES_AFTER, partner, after, until, last, VEHICLES
        ):
            yield [
                Late(
                    vehicle,
                    EventPosition(first_ms, -1, "", 0),
                    EventPosition(last_ms, END_OF_TIME, "", 0),
                    count,
                )
                for vehicle, count, first_ms, last_ms in rows
            ]
            last = rows[-1][0]

    async def of_vehicle(
        self, partner: int, vehicle: str, seq: int, late: Late | None = None
    ) -> AsyncIterator[Portion]:
        """What changes in a vehicle's stays when they are derived again from the events to `seq`.

        With `late` only those that these events can have changed: from the stay on which the first
        lies, up to where the stays behind the last are again as they are stored.
        """
        begin, before = BEGINNING, SessionContext()
        if late is not None:
            begin, before = await self._begin(partner, vehicle, late.first.at_ms)
        first, told = begin, set[Start]()
        until_ms: int | None = None
        timeline = SessionBuilder(before=before)
        async for instant in self._instants(partner, vehicle, seq, begin[0]):
            count = len(timeline.begun)
            timeline.take(fact for fact in instant if fact.place.seq not in before.taken)
            if len(timeline.begun) == count:
                continue
            start = timeline.begun[-1][0].start
            if late is not None and start[0] > late.last.at_ms:
                rows = await self._stored(partner, vehicle, start, 1)
                if rows and _is_again(timeline.begun[-1], rows[0]):
                    timeline.begun.pop()
                    until_ms = start[0]
                    break
            if len(timeline.begun) > STAYS + RECENT:
                wanted, timeline.begun = timeline.begun[:STAYS], timeline.begun[STAYS:]
                end = timeline.begun[0][0].start
                portion = await self._portion(partner, vehicle, begin, end, wanted, told=told)
                begin = end
                yield portion
        last = None if until_ms is None else start
        yield await self._portion(
            partner, vehicle, begin, last, timeline.begun, told=told, until_ms=until_ms
        )
        reports: dict[tuple[str, Start], list[Report]] = defaultdict(list)
        for earlier in told:
            if earlier < first:
                reports[vehicle, earlier] = []
        for earlier, report in timeline.reports:
            reports[vehicle, earlier].append(report)
        changes = []
        for (_, start), (stay, known) in (await self._stays(partner, reports)).items():
            new = reports[vehicle, start]
            old = [
                one for one in stay.reports
                if one.at_ms < first[0] or (one.at_ms == first[0] and one.seq in before.taken)
            ]  # fmt: skip
            later = _after(stay.reports, until_ms)
            if stay.reports != [*old, *new, *later]:
                stay.reports = [*old, *new, *later]
                changes.append(Change(stay, known))
        yield Portion(0, changes)

    async def _begin(self, partner: int, vehicle: str, at_ms: int) -> tuple[Start, SessionContext]:
        """The start of the newest stay that began before this instant and from which a vehicle can
        be derived again, and what it knows of before.
        """
        for _ in range(STAYS):
            rows = await self._engine.scan(queries.STAY_AT, partner, vehicle, at_ms, -1, "")
            if not rows:
                break
            stay, before = read_record(rows[0][0])
            if len(before.taken) < MOST_TAKEN:
                return stay.start, before
            at_ms = stay.start_ms
        return BEGINNING, SessionContext()

    async def _stays(
        self, partner: int, wanted: Iterable[tuple[str, Start]]
    ) -> dict[tuple[str, Start], tuple[SessionRecord, SessionContext]]:
        """The stays of these vehicles and starts, and what they know of before."""
        keys = list(wanted)
        if not keys:
            return {}
        places = numbered((vehicle, *start) for vehicle, start in keys)
        rows = await self._engine.scan(queries.STAYS_OF, partner, places)
        found = (read_record(text) for (text,) in rows if text is not None)
        return {(stay.vehicle_id, stay.start): (stay, before) for stay, before in found}

    async def _instants(
        self, partner: int, vehicle: str, seq: int, from_ms: int
    ) -> AsyncIterator[list[PlacedEvent]]:
        """The facts of a vehicle from then on, those of an instant together, not all at once."""
        waiting, limit = [], PAGE
        while True:
            rows = await self._engine.scan(
                queries.EVENTS_OF_VEHICLE, partner, vehicle, from_ms, limit, seq
            )
            # Of the last instant there may be more, and they would have to be put in order.
            until = rows[-1][1] if len(rows) == limit else None
            waiting = [placed_event_in(row) for row in rows if until is None or row[1] < until]
            for _, instant in groupby(sorted(waiting), key=_at_ms):
                yield list(instant)
            if until is None:
                return
            limit = PAGE if waiting else 2 * limit
            from_ms = until

    async def _portion(
        self,
        partner: int,
        vehicle: str,
        begin: Start,
        end: Start | None,
        wanted: list[tuple[SessionRecord, SessionContext]],
        *,
        told: set[Start],
        until_ms: int | None = None,
    ) -> Portion:
        """What is not stored as it should of the stays that begin from `begin` to before `end`.

        Adds to `told` the earlier stays of which events of the stored ones told. What events after
        `until_ms` told of these stays remains.
        """
        known: list[Row] = []
        while rows := await self._stored(partner, vehicle, begin, STAYS):
            known += (row for row in rows if end is None or start_in(row) < end)
            if len(rows) < STAYS or (end is not None and start_in(rows[-1]) >= end):
                break
            last = start_in(rows[-1])
            begin = (*last[:2], last[2] + "\x01")  # no id has a smaller character
        for row in known:
            told.update(ties_of(row).told)
        return Portion(len(wanted), _compared(wanted, known, until_ms))

    async def _stored(self, partner: int, vehicle: str, begin: Start, limit: int) -> list[Row]:
        return await self._engine.scan(queries.STAYS_FROM, partner, vehicle, *begin, limit)

    # Many vehicles at once ------------------------------------------------------------------------

    async def of_late(
        self, partner: int, seq: int, late: Sequence[Late]
    ) -> AsyncIterator[list[Change]]:
        """What changes with late events: as a rule two statements do for many vehicles."""
        for one in late:
            if one.events >= LATE_MOST:
                async for portion in self.of_vehicle(partner, one.vehicle, seq, one):
                    yield portion.changes
        for some in _grouped(one for one in late if one.events < LATE_MOST):
            bounds = await self._bounds(partner, some)
            wanted = numbered(
                (one.vehicle, *bounds[one.vehicle].start, bounds[one.vehicle].until_ms)
                for one in some
            )
            contents = await self._engine.scan(
                queries.LATE_CONTENTS, partner, wanted, seq, LATE_MOST
            )
            late_of = {one.vehicle: one for one in some}
            for place, (vehicle, events, stays) in enumerate(contents):
                await let_others(place)
                one = late_of[vehicle]
                differing = _between(one, bounds[vehicle], placed_events_in(events), rows_in(stays))
                if differing is None:
                    async for portion in self.of_vehicle(partner, vehicle, seq, one):
                        yield portion.changes
                else:
                    yield differing

    async def _bounds(self, partner: int, late: Iterable[Late]) -> dict[str, "_Bounds"]:
        """Of each vehicle where it is to be derived again."""
        places = ((one.vehicle, one.first.at_ms, one.last.at_ms) for one in late)
        found = await self._engine.scan(queries.LATE_BOUNDS, partner, numbered(places))
        bounds = {}
        for vehicle, stay, until_ms in found:
            end_ms = END_OF_TIME if until_ms is None else until_ms
            if stay is None:
                bounds[vehicle] = _Bounds(SessionContext(), BEGINNING, end_ms)
            else:
                began, before = read_record(stay)
                bounds[vehicle] = _Bounds(before, began.start, end_ms)
        return bounds


def _grouped(late: Iterable[Late]) -> Iterator[list[Late]]:
    """Those which are looked at together."""
    group: list[Late] = []
    events = 0
    for one in late:
        if group and (len(group) == LATE_AT_ONCE or events + one.events > LATE_EVENTS):
            yield group
            group, events = [], 0
        group.append(one)
        events += one.events
    if group:
        yield group


class _Bounds(NamedTuple):
    """From where on a vehicle is derived again, what is known of before, and to where at least."""

    before: SessionContext
    start: Start
    until_ms: int


def _between(
    late: Late, bounds: _Bounds, facts: list[PlacedEvent], known: list[Row]
) -> list[Change] | None:
    """What changes between the bounds; None if it goes on beyond them, or there is too much."""
    taken = bounds.before.taken
    if len(taken) >= MOST_TAKEN or LATE_MOST in (len(facts), len(known)):
        return None
    if any(start < bounds.start for row in known for start in ties_of(row).told):
        return None
    timeline = SessionBuilder(before=bounds.before)
    stored = {start_in(row): row for row in known}
    for _, instant in groupby(facts, key=_at_ms):
        count = len(timeline.begun)
        timeline.take(fact for fact in instant if fact.place.seq not in taken)
        if timeline.reports:
            return None
        if len(timeline.begun) > count:
            start = timeline.begun[-1][0].start
            behind = start[0] > late.last.at_ms and start in stored
            if behind and _is_again(timeline.begun[-1], stored[start]):
                timeline.begun.pop()
                before = [row for row in known if start_in(row) < start]
                return _compared(timeline.begun, before, start[0])
    return _compared(timeline.begun, known) if bounds.until_ms == END_OF_TIME else None


def _compared(
    wanted: Iterable[tuple[SessionRecord, SessionContext]],
    known: Iterable[Row],
    until_ms: int | None = None,
) -> list[Change]:
    """What of the wanted stays is not stored just so, and what is stored beyond.

    What events after `until_ms` told of them remains.
    """
    missing = {stay.start: (stay, before) for stay, before in wanted}
    changes = []
    for *row, version in known:
        found = missing.pop(start_in(row), None)
        if found is None:
            changes.append(Change(*read_record(f"[{row[-2]},{row[-1]}]"), live=False))
            continue
        if until_ms is not None:
            later = _after(ties_of([*row, version]).reports, until_ms)
            found[0].reports = [*found[0].reports, *later]
        should = row_of(Change(*found))
        if version is None or should[:-1] != tuple(row[:-1]):
            changes.append(Change(*found))
        elif should[-1] != row[-1]:
            changes.append(Change(*found, visible=False))
    return changes + [Change(*begun) for begun in missing.values()]


def _is_again(begun: tuple[SessionRecord, SessionContext], row: Row) -> bool:
    """Whether the stay begins as it is stored: then all that follows is as it is stored."""
    stay, before = begun
    return stay.start == start_in(row) and text_of(before) == row[-2]


def _after(reports: list[Report], until_ms: int | None) -> list[Report]:
    """Those of events after the instant; none without one."""
    return [one for one in reports if until_ms is not None and one.at_ms > until_ms]


def _state(stay: SessionRecord) -> tuple[EventPosition, int | None, int]:
    """What differs as soon as an event changes the stay."""
    return stay.last, stay.end_ms, len(stay.reports)


def _at_ms(fact: PlacedEvent) -> int:
    return fact.place.at_ms


async def let_others(place: int) -> None:
    """Lets requests have their turn now and then: much is computed here without a pause."""
    if place % TURN == TURN - 1:
        await asyncio.sleep(0)
