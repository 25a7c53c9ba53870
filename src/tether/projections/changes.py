"""What new events change in the sessions that are stored, and whether these are as they should be.

Nothing here writes, and the events beyond a given sequence number are not looked at.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from tether.domain.charge_period import Report
from tether.domain.earlier_sessions import RECENT, EventPosition, SessionContext, Start
from tether.domain.models import Event, from_json
from tether.domain.session_builder import SessionBuilder
from tether.domain.session_record import MOST_TAKEN, OrderedEvent, SessionRecord, ordered_event
from tether.projections.comparing import compared, is_again, reports_after
from tether.projections.late import LATE_MOST, Bounds, Late, between, grouped
from tether.storage.engine import Row
from tether.storage.events import END_OF_TIME, Events
from tether.storage.session_records import Change, Derived, SessionRecords, Stored
from tether.storage.snapshots import Snapshot, Snapshots
from tether.storage.turns import Rest

PAGE = 1000  # events of one vehicle
VEHICLES = 10_000  # of which is looked up at once what waits
SESSIONS = 100  # sessions of one vehicle

BEGINNING: Start = (-END_OF_TIME, 0, "")
END: Start = (END_OF_TIME, 0, "")


class ChangedPortion(NamedTuple):
    """Some of a vehicle's sessions: how many there are, and which of them differ."""

    sessions: int
    changes: list[Change]


class Beginning(NamedTuple):
    """From where a vehicle is derived again: the events from an instant on, the session that is
    known by then, if any, and what is known of before. What is stored is compared from `start` on.
    """

    from_ms: int
    start: Start
    session: SessionRecord | None
    before: SessionContext

    @classmethod
    def of(cls, snapshot: Snapshot | None) -> "Beginning":
        """Where the vehicle's history begins: there are no older sessions."""
        if snapshot is None:
            return cls(-END_OF_TIME, BEGINNING, None, SessionContext())
        return cls(snapshot.at_ms, BEGINNING, *snapshot.known)


class Changes:
    """Finds out what is to be changed."""

    def __init__(self, events: Events, records: SessionRecords, snapshots: Snapshots) -> None:
        self._events = events
        self._records = records
        self._snapshots = snapshots

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
        for vehicle, instants in (await self._not_expired(partner, withdrawn)).items():
            all_ms = [*instants, *map(_at_ms, events.pop(vehicle, ()))]
            late.append(Late(vehicle, min(all_ms), max(all_ms), len(all_ms)))
        known = await self._records.last(partner, list(events))  # each is decoded in its turn
        reports: dict[tuple[str, Start], list[Report]] = defaultdict(list)
        for vehicle, last in known:
            await rest.if_long()
            if last is None:
                continue
            new = sorted(events.pop(vehicle))
            session, before = last
            if new[0].position.at_ms <= session.last.at_ms:
                late.append(Late.of(vehicle, new))
                continue
            was = _state(session)
            timeline = SessionBuilder(session, before).take(new)
            if was != _state(session):  # else the next session has begun after its end
                lasts = session.end_ms is None and was[1] is None
                changes.append(Change(session, before, grown=lasts))
            changes += (Change(*begun) for begun in timeline.begun)
            for start, report in timeline.reports:
                reports[vehicle, start].append(report)
        new_changes, new_late = await self._of_first(partner, events)
        for (vehicle, start), (session, before) in (
            await self._records.of_starts(partner, reports)
        ).items():
            session.reports = [*session.reports, *reports[vehicle, start]]
            changes.append(Change(session, before))
        return changes + new_changes, late + new_late

    async def _of_first(
        self, partner: int, events: dict[str, list[OrderedEvent]]
    ) -> tuple[list[Change], list[Late]]:
        """The same of vehicles that have no session yet, each with its events."""
        cut_ms = await self._snapshots.instants(partner, events)
        changes, late, rest = list[Change](), list[Late](), Rest()
        for vehicle, new in events.items():
            await rest.if_long()
            new.sort()
            if vehicle in cut_ms:  # there may be older events, with which its snapshot goes on
                late.append(Late.of(vehicle, new))
            else:
                changes += (Change(*begun) for begun in SessionBuilder().take(new).begun)
        return changes, late

    async def _not_expired(
        self, partner: int, withdrawn: dict[str, list[int]]
    ) -> dict[str, list[int]]:
        """Of these vehicles and instants those that a snapshot does not contain for good."""
        cut_ms = await self._snapshots.instants(partner, withdrawn)
        for vehicle, until_ms in cut_ms.items():
            withdrawn[vehicle] = [at_ms for at_ms in withdrawn[vehicle] if at_ms >= until_ms]
        return {vehicle: instants for vehicle, instants in withdrawn.items() if instants}

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
        self,
        partner: int,
        vehicle: str,
        seq: int,
        late: Late | None = None,
        snapshot: Snapshot | None = None,
    ) -> AsyncIterator[ChangedPortion]:
        """What changes in a vehicle's sessions when they are derived again from events to `seq`.

        With `late` only those that these events can have changed: from the session on which the
        first lies, up to where those behind the last are again as they are stored. With `snapshot`
        they are derived from it: it is to be the vehicle's.
        """
        beginning = Beginning.of(snapshot)
        if snapshot is None:
            beginning = await self._begin(partner, vehicle, None if late is None else late.first_ms)
        begin, taken = beginning.start, beginning.before.taken
        told = set[Start]()
        until_ms: int | None = None
        timeline = SessionBuilder(beginning.session, beginning.before)
        async for instant in self._instants(partner, vehicle, seq, beginning.from_ms):
            count = len(timeline.begun)
            timeline.take(one for one in instant if one.position.seq not in taken)
            if len(timeline.begun) == count:
                continue
            start = timeline.begun[-1][0].start
            if late is not None and start[0] > late.last_ms:
                stored = await self._records.between_starts(partner, vehicle, start, END, 1)
                if stored and is_again(timeline.begun[-1], stored[0]):
                    timeline.begun.pop()
                    until_ms = start[0]
                    break
            if len(timeline.begun) > SESSIONS + RECENT:
                _show_known(timeline, beginning, begin)
                wanted, timeline.begun = timeline.begun[:SESSIONS], timeline.begun[SESSIONS:]
                end = timeline.begun[0][0].start
                portion = await self._portion(partner, vehicle, begin, end, wanted, told=told)
                begin = end
                yield portion
        _show_known(timeline, beginning, begin)
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
            if earlier < beginning.start:
                reports[vehicle, earlier] = []
        for earlier, report in timeline.reports:
            # Of what has expired there is nothing to tell.
            if beginning.start != BEGINNING or earlier[0] >= beginning.from_ms:
                reports[vehicle, earlier].append(report)
        yield ChangedPortion(0, await self._told(partner, beginning, reports, until_ms=until_ms))

    async def _told(
        self,
        partner: int,
        beginning: Beginning,
        reports: dict[tuple[str, Start], list[Report]],
        *,
        until_ms: int | None,
    ) -> list[Change]:
        """What changes in earlier sessions if events from the beginning on told this of them."""
        first, taken = beginning.start, beginning.before.taken
        changes = []
        told_of = await self._records.of_starts(partner, reports)
        for place, (session, known) in told_of.items():
            new = reports[place]
            old = [
                one for one in session.reports
                if one.at_ms < first[0] or (one.at_ms == first[0] and one.seq in taken)
            ]  # fmt: skip
            later = reports_after(session.reports, until_ms)
            if session.reports != [*old, *new, *later]:
                session.reports = [*old, *new, *later]
                changes.append(Change(session, known))
        return changes

    async def snapshot(self, partner: int, vehicle: str, seq: int, at_ms: int) -> Snapshot:
        """What the vehicle's events before an instant make, of those up to the number `seq`."""
        beginning = await self._begin(partner, vehicle, at_ms)
        timeline = SessionBuilder(beginning.session, beginning.before)
        taken = beginning.before.taken
        async for instant in self._instants(partner, vehicle, seq, beginning.from_ms, at_ms - 1):
            timeline.take(one for one in instant if one.position.seq not in taken)
        at_ms = max(at_ms, beginning.from_ms)  # it never goes back
        return Snapshot.of(vehicle, at_ms, timeline.session, timeline.before)

    async def _begin(self, partner: int, vehicle: str, at_ms: int | None) -> Beginning:
        """The newest session that began before this instant and from which a vehicle can be derived
        again; else where its history begins.
        """
        snapshot = await self._snapshots.get(partner, vehicle)
        for _ in range(SESSIONS):
            if at_ms is None:
                break
            found = await self._records.last_before(partner, vehicle, at_ms)
            if found is None or (snapshot and found[0].start_ms < snapshot.at_ms):
                break
            session, before = found
            if len(before.taken) < MOST_TAKEN:
                return Beginning(session.start_ms, session.start, None, before)
            at_ms = session.start_ms
        return Beginning.of(snapshot)

    async def _instants(
        self, partner: int, vehicle: str, seq: int, from_ms: int, until_ms: int = END_OF_TIME
    ) -> AsyncIterator[list[OrderedEvent]]:
        """The events of a vehicle from then on, those of an instant together, not all at once."""
        portions = self._events.portions_of_vehicle(
            partner, vehicle, from_ms, PAGE, until_ms=until_ms, until=seq
        )
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
        return ChangedPortion(len(wanted), compared(wanted, known, until_ms))

    # Many vehicles at once ------------------------------------------------------------------------

    async def of_late(
        self, partner: int, seq: int, late: Sequence[Late]
    ) -> AsyncIterator[list[Change]]:
        """What changes with late events: as a rule two statements do for many vehicles."""
        for one in late:
            if one.events >= LATE_MOST:
                async for portion in self.of_vehicle(partner, one.vehicle, seq, one):
                    yield portion.changes
        for some in grouped(one for one in late if one.events < LATE_MOST):
            bounds = await self._bounds(partner, some)
            wanted = ((vehicle, one.start, one.until_ms) for vehicle, one in bounds.items())
            contents = await self._records.between(partner, seq, LATE_MOST, wanted)
            alone = {one.vehicle: one for one in some}
            rest = Rest()
            for vehicle, events, known in contents:
                await rest.if_long()
                differing = between(alone[vehicle], bounds[vehicle], events, known)
                if differing is not None:
                    del alone[vehicle]
                    yield differing
            for vehicle, one in alone.items():
                async for portion in self.of_vehicle(partner, vehicle, seq, one):
                    yield portion.changes

    async def _bounds(self, partner: int, late: Iterable[Late]) -> dict[str, Bounds]:
        """Of each vehicle where it is to be derived again, unless that is at a snapshot."""
        places = [(one.vehicle, one.first_ms, one.last_ms) for one in late]
        cut_ms = await self._snapshots.instants(partner, (vehicle for vehicle, *_ in places))
        bounds = {}
        for vehicle, (last, end_ms) in (await self._records.around(partner, places)).items():
            start, before = BEGINNING, SessionContext()
            if last is not None:
                start, before = last[0].start, last[1]
            if start[0] >= cut_ms.get(vehicle, start[0]):
                until_ms = END_OF_TIME if end_ms is None else end_ms
                bounds[vehicle] = Bounds(before, start, until_ms)
        return bounds


def _show_known(timeline: SessionBuilder, beginning: Beginning, begin: Start) -> None:
    """Shows the session, too, with which the timeline began, if it lasts longer than was known: an
    event was taken back that had ended it. It is the first of all, and was not shown before.
    """
    known = beginning.session
    if begin != beginning.start or known is None:
        return
    if known.end_ms is None or known.end_ms > beginning.from_ms:
        timeline.begun.insert(0, (known, beginning.before))


def _state(session: SessionRecord) -> tuple[EventPosition, int | None, int]:
    """What differs as soon as an event changes the session."""
    return session.last, session.end_ms, len(session.reports)


def _at_ms(one: OrderedEvent) -> int:
    return one.position.at_ms
