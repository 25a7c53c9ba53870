"""What new events change in the sessions that are stored, and whether these are as they should be.

Nothing here writes, and the events beyond a given sequence number are not looked at.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from tether.domain.charge_period import Report
from tether.domain.earlier_sessions import RECENT, EventPosition, SessionContext, Start
from tether.domain.models import Event, from_json
from tether.domain.session_builder import SessionBuilder
from tether.domain.session_record import MOST_TAKEN, OrderedEvent, SessionRecord, ordered_event
from tether.storage.engine import Row
from tether.storage.events import END_OF_TIME, Events
from tether.storage.session_records import Change, Derived, SessionRecords, Stored, text_of
from tether.storage.turns import Rest

PAGE = 1000  # events of one vehicle
VEHICLES = 10_000  # of which is looked up at once what waits
SESSIONS = 100  # sessions of one vehicle
LATE_AT_ONCE = 100  # vehicles of which events came late …
LATE_EVENTS = 5_000  # … and so many events, as they are in memory together
LATE_MOST = 200  # events or sessions of such a vehicle; with more it is looked at by itself

BEGINNING: Start = (-END_OF_TIME, 0, "")
END: Start = (END_OF_TIME, 0, "")


class ChangedPortion(NamedTuple):
    """Some of a vehicle's sessions: how many there are, and which of them differ."""

    sessions: int
    changes: list[Change]


class Late(NamedTuple):
    """A vehicle of which events came late or were taken back: the instants of the first and of the
    last of them, and how many they are.
    """

    vehicle: str
    first_ms: int
    last_ms: int
    events: int


class Changes:
    """Finds out what is to be changed."""

    def __init__(self, events: Events, records: SessionRecords) -> None:
        self._events = events
        self._records = records

    async def of_events(self, partner: int, rows: list[Row]) -> tuple[list[Change], list[Late]]:
        """What these events change, the next ones behind those that the sessions contain.

        What those change that came late or were taken back is left to `of_late`. Empties `rows`:
        they are megabytes.
        """
        events: defaultdict[str, list[OrderedEvent]] = defaultdict(list)
        withdrawn: defaultdict[str, list[int]] = defaultdict(list)
        rest = Rest()
        for seq, at_ms, vehicle_id, body in rows:
            if body is None:
                withdrawn[vehicle_id].append(at_ms)
            else:
                events[vehicle_id].append(ordered_event(seq, at_ms, from_json(Event, body)))
            await rest.if_long()
        rows.clear()
        changes: list[Change] = []
        late: list[Late] = []
        for vehicle, instants in withdrawn.items():
            all_ms = [*instants, *map(_at_ms, events.pop(vehicle, ()))]
            late.append(Late(vehicle, min(all_ms), max(all_ms), len(all_ms)))
        known = await self._records.last(partner, list(events))
        reports: dict[tuple[str, Start], list[Report]] = defaultdict(list)
        for vehicle, last in known:
            await rest.if_long()
            new = sorted(events.pop(vehicle))
            session, before = last or (None, SessionContext())
            if session is not None and new[0].position.at_ms <= session.last.at_ms:
                late.append(Late(vehicle, _at_ms(new[0]), _at_ms(new[-1]), len(new)))
                continue
            was = None if session is None else _state(session)
            timeline = SessionBuilder(session, before).take(new)
            # Else the next session has begun after its end.
            if session is not None and was is not None and was != _state(session):
                lasts = session.end_ms is None and was[1] is None
                changes.append(Change(session, before, grown=lasts))
            changes += (Change(*begun) for begun in timeline.begun)
            for start, report in timeline.reports:
                reports[vehicle, start].append(report)
        for (vehicle, start), (session, before) in (
            await self._records.of_starts(partner, reports)
        ).items():
            session.reports = [*session.reports, *reports[vehicle, start]]
            changes.append(Change(session, before))
        return changes, late

    async def waiting(
        self, partner: int, after: int, until: int, *, to_end: bool
    ) -> AsyncIterator[list[Late]]:
        """Of which vehicles events come or were taken back behind the number `after`, up to
        `until`, as if all of them were late; many vehicles at a time, in the order of their ids.

        `to_end`: as if they reached to the end of time, so that all sessions behind are compared.
        """
        last = ""
        while found := await self._events.vehicles_following(partner, after, until, last, VEHICLES):
            yield [
                Late(vehicle, first_ms, END_OF_TIME if to_end else last_ms, count)
                for vehicle, count, first_ms, last_ms in found
            ]
            last = found[-1].vehicle_id

    async def of_vehicle(
        self, partner: int, vehicle: str, seq: int, late: Late | None = None
    ) -> AsyncIterator[ChangedPortion]:
        """What changes in a vehicle's sessions when they are derived again from events to `seq`.

        With `late` only those that these events can have changed: from the session on which the
        first lies, up to where those behind the last are again as they are stored.
        """
        begin, before = BEGINNING, SessionContext()
        if late is not None:
            begin, before = await self._begin(partner, vehicle, late.first_ms)
        first, told = begin, set[Start]()
        until_ms: int | None = None
        timeline = SessionBuilder(before=before)
        async for instant in self._instants(partner, vehicle, seq, begin[0]):
            count = len(timeline.begun)
            timeline.take(one for one in instant if one.position.seq not in before.taken)
            if len(timeline.begun) == count:
                continue
            start = timeline.begun[-1][0].start
            if late is not None and start[0] > late.last_ms:
                stored = await self._records.between_starts(partner, vehicle, start, END, 1)
                if stored and _is_again(timeline.begun[-1], stored[0]):
                    timeline.begun.pop()
                    until_ms = start[0]
                    break
            if len(timeline.begun) > SESSIONS + RECENT:
                wanted, timeline.begun = timeline.begun[:SESSIONS], timeline.begun[SESSIONS:]
                end = timeline.begun[0][0].start
                portion = await self._portion(partner, vehicle, begin, end, wanted, told=told)
                begin = end
                yield portion
        last = END if until_ms is None else start
        while between := await self._end_of_some(partner, vehicle, begin, last):
            wanted = [one for one in timeline.begun if one[0].start < between]
            timeline.begun = timeline.begun[len(wanted) :]
            yield await self._portion(
                partner, vehicle, begin, between, wanted, told=told, until_ms=until_ms
            )
            begin = between
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
        told_of = await self._records.of_starts(partner, reports)
        for (_, start), (session, known) in told_of.items():
            new = reports[vehicle, start]
            old = [
                one for one in session.reports
                if one.at_ms < first[0] or (one.at_ms == first[0] and one.seq in before.taken)
            ]  # fmt: skip
            later = _after(session.reports, until_ms)
            if session.reports != [*old, *new, *later]:
                session.reports = [*old, *new, *later]
                changes.append(Change(session, known))
        yield ChangedPortion(0, changes)

    async def _begin(self, partner: int, vehicle: str, at_ms: int) -> tuple[Start, SessionContext]:
        """The start of the newest session that began before this instant and from which a vehicle
        can be derived again, and what it knows of before.
        """
        for _ in range(SESSIONS):
            found = await self._records.last_before(partner, vehicle, at_ms)
            if found is None:
                break
            session, before = found
            if len(before.taken) < MOST_TAKEN:
                return session.start, before
            at_ms = session.start_ms
        return BEGINNING, SessionContext()

    async def _instants(
        self, partner: int, vehicle: str, seq: int, from_ms: int
    ) -> AsyncIterator[list[OrderedEvent]]:
        """The events of a vehicle from then on, those of an instant together, not all at once."""
        portions = self._events.portions_of_vehicle(partner, vehicle, from_ms, PAGE, until=seq)
        async for portion in portions:
            for _, instant in groupby(sorted(portion), key=_at_ms):
                yield list(instant)

    async def _end_of_some(
        self, partner: int, vehicle: str, begin: Start, last: Start
    ) -> Start | None:
        """Where SESSIONS of those that are stored from `begin` on end, if others follow."""
        end = await self._records.start_behind(partner, vehicle, begin, SESSIONS)
        return end if end is not None and end < last else None

    async def _portion(
        self,
        partner: int,
        vehicle: str,
        begin: Start,
        end: Start,
        wanted: list[Derived],
        *,
        told: set[Start],
        until_ms: int | None = None,
    ) -> ChangedPortion:
        """What is not stored as it should of the sessions that begin from `begin` to before `end`.

        Adds to `told` the earlier sessions of which events of the stored ones told. What events
        after `until_ms` told of these sessions remains.
        """
        known: list[Stored] = []
        while some := await self._records.between_starts(
            partner, vehicle, begin, end, SESSIONS + 1
        ):
            known += some
            if len(some) <= SESSIONS:
                break
            last = some[-1].row.start
            begin = (*last[:2], last[2] + "\x01")  # no id has a smaller character
        for stored in known:
            told.update(stored.row.ties.told)
        return ChangedPortion(len(wanted), _compared(wanted, known, until_ms))

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
            wanted = (
                (one.vehicle, bounds[one.vehicle].start, bounds[one.vehicle].until_ms)
                for one in some
            )
            contents = await self._records.between(partner, seq, LATE_MOST, wanted)
            late_of, rest = {one.vehicle: one for one in some}, Rest()
            for vehicle, events, known in contents:
                await rest.if_long()
                one = late_of[vehicle]
                differing = _between(one, bounds[vehicle], events, known)
                if differing is None:
                    async for portion in self.of_vehicle(partner, vehicle, seq, one):
                        yield portion.changes
                else:
                    yield differing

    async def _bounds(self, partner: int, late: Iterable[Late]) -> dict[str, "_Bounds"]:
        """Of each vehicle where it is to be derived again."""
        places = ((one.vehicle, one.first_ms, one.last_ms) for one in late)
        bounds = {}
        for vehicle, (last, until_ms) in (await self._records.around(partner, places)).items():
            start, before = BEGINNING, SessionContext()
            if last is not None:
                start, before = last[0].start, last[1]
            bounds[vehicle] = _Bounds(before, start, END_OF_TIME if until_ms is None else until_ms)
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
    late: Late, bounds: _Bounds, events: list[OrderedEvent], known: list[Stored]
) -> list[Change] | None:
    """What changes between the bounds; None if it goes on beyond them, or there is too much."""
    taken = bounds.before.taken
    if len(taken) >= MOST_TAKEN or LATE_MOST in (len(events), len(known)):
        return None
    if any(start < bounds.start for one in known for start in one.row.ties.told):
        return None
    timeline = SessionBuilder(before=bounds.before)
    stored = {one.row.start: one for one in known}
    for _, instant in groupby(events, key=_at_ms):
        count = len(timeline.begun)
        timeline.take(one for one in instant if one.position.seq not in taken)
        if timeline.reports:
            return None
        if len(timeline.begun) > count:
            start = timeline.begun[-1][0].start
            behind = start[0] > late.last_ms and start in stored
            if behind and _is_again(timeline.begun[-1], stored[start]):
                timeline.begun.pop()
                before = [one for one in known if one.row.start < start]
                return _compared(timeline.begun, before, start[0])
    return _compared(timeline.begun, known) if bounds.until_ms == END_OF_TIME else None


def _compared(
    wanted: Iterable[Derived],
    known: Iterable[Stored],
    until_ms: int | None = None,
) -> list[Change]:
    """What of the wanted sessions is not stored just so, and what is stored beyond.

    What events after `until_ms` told of them remains.
    """
    missing = {session.start: (session, before) for session, before in wanted}
    changes = []
    for row, version in known:
        found = missing.pop(row.start, None)
        if found is None:
            changes.append(Change(*row.derived, live=False))
            continue
        if until_ms is not None:
            found[0].reports = [*found[0].reports, *_after(row.ties.reports, until_ms)]
        should = Change(*found).row
        if version is None or should != row:
            seen = version is None or should.shown != row.shown
            changes.append(Change(*found, visible=seen))
    return changes + [Change(*begun) for begun in missing.values()]


def _is_again(begun: Derived, stored: Stored) -> bool:
    """Whether the session begins as it is stored: then all that follows is as it is stored."""
    session, before = begun
    return session.start == stored.row.start and text_of(before) == stored.row.before


def _after(reports: list[Report], until_ms: int | None) -> list[Report]:
    """Those of events after the instant; none without one."""
    return [one for one in reports if until_ms is not None and one.at_ms > until_ms]


def _state(session: SessionRecord) -> tuple[EventPosition, int | None, int]:
    """What differs as soon as an event changes the session."""
    return session.last, session.end_ms, len(session.reports)


def _at_ms(one: OrderedEvent) -> int:
    return one.position.at_ms
