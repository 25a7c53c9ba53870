"""Finds the changes of stored sessions: by new events, by late ones, or by a check of all.

Nothing here writes. Events after a given sequence number are not read.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from tether.domain.earlier_sessions import RECENT, EventPosition, LateReport, Start
from tether.domain.models import Event, from_json
from tether.domain.session_builder import SessionBuilder
from tether.domain.session_record import MAX_TAKEN, OrderedEvent, SessionRecord, ordered_event
from tether.projections.recompute import (
    BEGINNING,
    MAX_LATE,
    Beginning,
    batches_of,
    begins_as_stored,
    changes_between,
    differences,
    reports_after,
)
from tether.storage.engine import Row
from tether.storage.events import END_OF_TIME, Events, VehicleEvents
from tether.storage.session_records import Change, SessionRecords, SessionRow
from tether.storage.snapshots import Snapshot, Snapshots
from tether.storage.turns import TimeSlice

PAGE = 1000  # events of one vehicle
VEHICLES = 10_000  # of the backlog that one query returns
SESSIONS = 100  # sessions of one vehicle

END: Start = (END_OF_TIME, 0, "")


class ChangedPortion(NamedTuple):
    """Some of a vehicle's sessions: how many there are, and which of them change."""

    sessions: int
    changes: list[Change]


class Changes:
    """Finds the changes of stored sessions. Every method raises Unavailable."""

    def __init__(self, events: Events, records: SessionRecords, snapshots: Snapshots) -> None:
        self._events = events
        self._records = records
        self._snapshots = snapshots

    async def of_events(
        self, partner: int, rows: list[Row]
    ) -> tuple[list[Change], list[VehicleEvents]]:
        """The changes by these events, which follow the events that the sessions contain.

        Also returns the late and withdrawn events of each vehicle: `of_late` finds their changes.
        Empties `rows`: they are megabytes.
        """
        events: defaultdict[str, list[OrderedEvent]] = defaultdict(list)
        withdrawn: defaultdict[str, list[int]] = defaultdict(list)
        time_slice = TimeSlice()
        for seq, at_ms, vehicle_id, body in rows:
            if body is None:
                withdrawn[vehicle_id].append(at_ms)
            else:
                events[vehicle_id].append(ordered_event(seq, at_ms, from_json(Event, body)))
            await time_slice.yield_if_over()
        rows.clear()
        changes: list[Change] = []
        late: list[VehicleEvents] = []
        for vehicle, instants in (await self._not_expired(partner, withdrawn)).items():
            all_ms = [*instants, *map(_at_ms, events.pop(vehicle, ()))]
            late.append(VehicleEvents(vehicle, len(all_ms), min(all_ms), max(all_ms)))
        known = await self._records.last(partner, list(events))  # decodes one at a time
        reports: dict[tuple[str, Start], list[LateReport]] = defaultdict(list)
        for vehicle, last in known:
            await time_slice.yield_if_over()
            if last is None:
                continue
            new = sorted(events.pop(vehicle))
            session, context = last
            if new[0].position.at_ms <= session.last.at_ms:
                late.append(VehicleEvents.of(vehicle, new))
                continue
            was = _state(session)
            builder = SessionBuilder(session, context).take(new)
            if was != _state(session):  # otherwise the events are only of the next sessions
                still_active = session.end_ms is None and was[1] is None
                changes.append(Change(SessionRow.of(session, context), grown=still_active))
            for begun in builder.begun:
                await time_slice.yield_if_over()
                changes.append(Change(SessionRow.of(*begun)))
            for start, report in builder.reports:
                reports[vehicle, start].append(report)
        new_changes, new_late = await self._of_new_vehicles(partner, events)
        for (vehicle, start), (session, context) in (
            await self._records.of_starts(partner, reports)
        ).items():
            session.reports = [*session.reports, *reports[vehicle, start]]
            changes.append(Change(SessionRow.of(session, context)))
        return changes + new_changes, late + new_late

    async def _of_new_vehicles(
        self, partner: int, events: dict[str, list[OrderedEvent]]
    ) -> tuple[list[Change], list[VehicleEvents]]:
        """The changes by these events of vehicles that have no session yet. See `of_events`."""
        cut_ms = await self._snapshots.instants(partner, events)
        changes, late, time_slice = list[Change](), list[VehicleEvents](), TimeSlice()
        for vehicle, new in events.items():
            await time_slice.yield_if_over()
            new.sort()
            if vehicle in cut_ms:  # it continues from its snapshot, maybe with older events
                late.append(VehicleEvents.of(vehicle, new))
            else:
                for begun in SessionBuilder().take(new).begun:
                    await time_slice.yield_if_over()
                    changes.append(Change(SessionRow.of(*begun)))
        return changes, late

    async def _not_expired(
        self, partner: int, withdrawn: dict[str, list[int]]
    ) -> dict[str, list[int]]:
        """The instants of each vehicle that come after its snapshot, if it has one."""
        cut_ms = await self._snapshots.instants(partner, withdrawn)
        for vehicle, until_ms in cut_ms.items():
            withdrawn[vehicle] = [at_ms for at_ms in withdrawn[vehicle] if at_ms >= until_ms]
        return {vehicle: instants for vehicle, instants in withdrawn.items() if instants}

    async def of_backlog(
        self, partner: int, after: int, until: int, *, to_end: bool
    ) -> AsyncIterator[list[VehicleEvents]]:
        """The vehicles with events or withdrawals after the number `after`, up to `until`. All of
        these count as late. Yields many vehicles at a time, in the order of their ids.

        `to_end`: all later sessions of these vehicles are compared.
        """
        last = ""
        while found := await self._events.vehicles_following(partner, after, until, last, VEHICLES):
            last = found[-1].vehicle
            yield [late._replace(last_ms=END_OF_TIME) for late in found] if to_end else found

    async def of_vehicle(
        self,
        partner: int,
        vehicle: str,
        seq: int,
        late: VehicleEvents | None = None,
        snapshot: Snapshot | None = None,
    ) -> AsyncIterator[ChangedPortion]:
        """The changes when a vehicle's sessions are computed again from the events up to `seq`.

        With `late` it computes only the sessions that these events can have changed. It begins with
        the session of the first event, and ends at the first later session that begins as it is
        stored. With `snapshot` it begins at this snapshot, which the caller then stores.
        """
        beginning = Beginning.of(snapshot)
        if snapshot is None:
            beginning = await self._find_beginning(
                partner, vehicle, None if late is None else late.first_ms
            )
        begin = beginning.start
        reported = set[Start]()
        until_ms: int | None = None
        builder = beginning.builder()
        async for instant in self._events_by_instant(partner, vehicle, seq, beginning):
            count = len(builder.begun)
            builder.take(instant)
            if len(builder.begun) == count:
                continue
            start = builder.begun[-1][0].start
            if late is not None and start[0] > late.last_ms:
                stored = await self._records.between_starts(partner, vehicle, start, END, 1)
                if stored and begins_as_stored(builder.begun[-1], stored[0]):
                    builder.begun.pop()
                    until_ms = start[0]
                    break
            if len(builder.begun) > SESSIONS + RECENT:
                _add_first(builder, beginning, begin)
                end = builder.begun[SESSIONS][0].start
                async for portion in self._portions(
                    partner, vehicle, builder, begin, end, reported=reported
                ):
                    yield portion
                begin = end
        _add_first(builder, beginning, begin)
        end = END if until_ms is None else start
        async for portion in self._portions(
            partner, vehicle, builder, begin, end, reported=reported, until_ms=until_ms
        ):
            yield portion
        reports: dict[tuple[str, Start], list[LateReport]] = defaultdict(list)
        for earlier in reported:
            if earlier < beginning.start:
                reports[vehicle, earlier] = []
        for earlier, report in builder.reports:
            # Expired sessions have no reports.
            if beginning.start != BEGINNING or earlier[0] >= beginning.from_ms:
                reports[vehicle, earlier].append(report)
        changes = await self._report_changes(partner, beginning, reports, until_ms=until_ms)
        yield ChangedPortion(0, changes)

    async def _report_changes(
        self,
        partner: int,
        beginning: Beginning,
        reports: dict[tuple[str, Start], list[LateReport]],
        *,
        until_ms: int | None,
    ) -> list[Change]:
        """The changes of earlier sessions. `reports` has the reports on them by the events from the
        beginning on.
        """
        first, taken = beginning.start, beginning.context.taken
        changes = []
        for key, (session, known) in (await self._records.of_starts(partner, reports)).items():
            new = reports[key]
            old = [
                report for report in session.reports
                if report.at_ms < first[0] or (report.at_ms == first[0] and report.seq in taken)
            ]  # fmt: skip
            later = reports_after(session.reports, until_ms)
            if session.reports != [*old, *new, *later]:
                session.reports = [*old, *new, *later]
                changes.append(Change(SessionRow.of(session, known)))
        return changes

    async def snapshot(self, partner: int, vehicle: str, seq: int, at_ms: int) -> Snapshot:
        """The snapshot at an instant, from the vehicle's events up to the number `seq`."""
        beginning = await self._find_beginning(partner, vehicle, at_ms)
        builder = beginning.builder()
        async for instant in self._events_by_instant(partner, vehicle, seq, beginning, at_ms - 1):
            builder.take(instant)
        at_ms = max(at_ms, beginning.from_ms)  # a snapshot never goes back
        return Snapshot.of(vehicle, at_ms, builder.session, builder.context)

    async def _find_beginning(self, partner: int, vehicle: str, at_ms: int | None) -> Beginning:
        """The newest session before this instant from which the vehicle can be computed again;
        otherwise the beginning of its history.
        """
        snapshot = await self._snapshots.get(partner, vehicle)
        for _ in range(SESSIONS):
            if at_ms is None:
                break
            around = await self._records.around(partner, [(vehicle, at_ms, at_ms)])
            before = around[vehicle].before
            if before is None or (snapshot and before[0].start_ms < snapshot.at_ms):
                break
            session, context = before
            if len(context.taken) < MAX_TAKEN:
                return Beginning.at(session, context)
            at_ms = session.start_ms
        return Beginning.of(snapshot)

    async def _events_by_instant(
        self,
        partner: int,
        vehicle: str,
        seq: int,
        beginning: Beginning,
        until_ms: int = END_OF_TIME,
    ) -> AsyncIterator[list[OrderedEvent]]:
        """The vehicle's events from the beginning on, one list for each instant."""
        taken = beginning.context.taken
        portions = self._events.portions_of_vehicle(
            partner, vehicle, beginning.from_ms, PAGE, until_ms=until_ms, until=seq
        )
        async for portion in portions:
            for _, instant in groupby(sorted(portion), key=_at_ms):
                yield [event for event in instant if event.position.seq not in taken]

    async def _portions(
        self,
        partner: int,
        vehicle: str,
        builder: SessionBuilder,
        begin: Start,
        end: Start,
        *,
        reported: set[Start],
        until_ms: int | None = None,
    ) -> AsyncIterator[ChangedPortion]:
        """The changes of the sessions that begin from `begin` to before `end`. Removes these
        sessions from the builder.

        Adds to `reported` the earlier sessions on which events of the stored sessions reported.
        Reports from events after `until_ms` stay.
        """
        while begin != end:
            later = await self._records.start_after(partner, vehicle, begin, SESSIONS)
            stop = end if later is None else min(later, end)
            known = await self._records.between_starts(partner, vehicle, begin, stop, SESSIONS + 1)
            for stored in known:
                reported.update(stored.row.references.reports_on)
            wanted = [begun for begun in builder.begun if begun[0].start < stop]
            builder.begun = builder.begun[len(wanted) :]
            yield ChangedPortion(len(wanted), differences(wanted, known, until_ms))
            begin = stop

    # Many vehicles at once ------------------------------------------------------------------------

    async def of_late(
        self, partner: int, seq: int, late: Sequence[VehicleEvents]
    ) -> AsyncIterator[list[Change]]:
        """The changes by late events. Usually two statements suffice for a batch of vehicles."""
        single = [events for events in late if events.events >= MAX_LATE]
        for batch in batches_of(events for events in late if events.events < MAX_LATE):
            bounds = await self._bounds(partner, batch)
            wanted = (
                (vehicle, beginning.start, until_ms)
                for vehicle, (beginning, until_ms) in bounds.items()
            )
            contents = await self._records.between(partner, seq, MAX_LATE, wanted)
            remaining = {events.vehicle: events for events in batch}
            time_slice = TimeSlice()
            for vehicle, found, known in contents:
                await time_slice.yield_if_over()
                changes = changes_between(remaining[vehicle], *bounds[vehicle], found, known)
                if changes is not None:
                    del remaining[vehicle]
                    yield changes
            single += remaining.values()
        for events in single:
            async for portion in self.of_vehicle(partner, events.vehicle, seq, events):
                yield portion.changes

    async def _bounds(
        self, partner: int, late: Iterable[VehicleEvents]
    ) -> dict[str, tuple[Beginning, int]]:
        """The beginning and the first possible end of the computation, for each vehicle.

        Leaves out vehicles that continue from their snapshot.
        """
        wanted = [(events.vehicle, events.first_ms, events.last_ms) for events in late]
        cut_ms = await self._snapshots.instants(partner, (vehicle for vehicle, *_ in wanted))
        bounds = {}
        for vehicle, (last, end_ms) in (await self._records.around(partner, wanted)).items():
            beginning = Beginning.of(None) if last is None else Beginning.at(*last)
            if beginning.from_ms >= cut_ms.get(vehicle, beginning.from_ms):
                bounds[vehicle] = beginning, END_OF_TIME if end_ms is None else end_ms
        return bounds


def _add_first(builder: SessionBuilder, beginning: Beginning, begin: Start) -> None:
    """Adds the session that the builder began with, if the event that ended it was withdrawn: then
    it lasts longer now. It is the first of all sessions, so this happens only once.
    """
    known = beginning.session
    if begin != beginning.start or known is None:
        return
    if known.end_ms is None or known.end_ms > beginning.from_ms:
        builder.begun.insert(0, (known, beginning.context))


def _state(session: SessionRecord) -> tuple[EventPosition, int | None, int]:
    """Differs as soon as an event changes the session."""
    return session.last, session.end_ms, len(session.reports)


def _at_ms(event: OrderedEvent) -> int:
    return event.position.at_ms
