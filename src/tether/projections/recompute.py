"""Computes a vehicle's sessions again in memory, and compares them with the stored ones."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

from tether.domain.earlier_sessions import LateReport, SessionContext, Start
from tether.domain.session_builder import SessionBuilder
from tether.domain.session_record import MAX_TAKEN, OrderedEvent, SessionRecord
from tether.storage.events import END_OF_TIME, VehicleEvents
from tether.storage.session_records import Change, DerivedSession, SessionRow, StoredRow, text_of
from tether.storage.snapshots import Snapshot

VEHICLES_AT_ONCE = 100  # vehicles of a batch …
EVENTS_AT_ONCE = 5_000  # … and their events, which are in memory together
BEGINNING: Start = (-END_OF_TIME, 0, "")
MAX_LATE = 200  # events or sessions of a vehicle; a vehicle with more is not part of a batch


class Beginning(NamedTuple):
    """A point in the history of a vehicle from which its sessions are computed again.

    It has the session at the instant `from_ms`, if any, and its context. Later events are read
    again. Stored sessions are compared from `start` on.
    """

    from_ms: int
    start: Start
    session: SessionRecord | None
    context: SessionContext

    @classmethod
    def of(cls, snapshot: Snapshot | None) -> "Beginning":
        """The beginning of the vehicle's history: there are no older sessions."""
        if snapshot is None:
            return cls(-END_OF_TIME, BEGINNING, None, SessionContext())
        return cls(snapshot.at_ms, BEGINNING, *snapshot.known)

    @classmethod
    def at(cls, session: SessionRecord, context: SessionContext) -> "Beginning":
        """The beginning of this session, with its context."""
        return cls(session.start_ms, session.start, None, context)

    def builder(self) -> SessionBuilder:
        """A session builder that goes on from here."""
        return SessionBuilder(self.session, self.context)


def batches_of(late: Iterable[VehicleEvents]) -> Iterator[list[VehicleEvents]]:
    """Batches of vehicles that are read together."""
    batch: list[VehicleEvents] = []
    events = 0
    for vehicle in late:
        if batch and (len(batch) == VEHICLES_AT_ONCE or events + vehicle.events > EVENTS_AT_ONCE):
            yield batch
            batch, events = [], 0
        batch.append(vehicle)
        events += vehicle.events
    if batch:
        yield batch


def changes_between(
    late: VehicleEvents,
    beginning: Beginning,
    until_ms: int,
    events: list[OrderedEvent],
    known: list[StoredRow],
) -> list[Change] | None:
    """The changes from the beginning up to an instant. None if later sessions change, too, or if
    there is too much to read.
    """
    taken = beginning.context.taken
    if len(taken) >= MAX_TAKEN or MAX_LATE in (len(events), len(known)):
        return None
    if any(start < beginning.start for row, _ in known for start in row.references.reports_on):
        return None
    builder = beginning.builder()
    stored = {session.row.start: session for session in known}
    for _, instant in groupby(events, key=lambda event: event.position.at_ms):
        count = len(builder.begun)
        builder.take(event for event in instant if event.position.seq not in taken)
        if builder.reports:
            return None
        if len(builder.begun) > count:
            start = builder.begun[-1][0].start
            follows = start[0] > late.last_ms and start in stored
            if follows and begins_as_stored(builder.begun[-1], stored[start]):
                builder.begun.pop()
                earlier = [session for session in known if session.row.start < start]
                return differences(builder.begun, earlier, start[0])
    return differences(builder.begun, known) if until_ms == END_OF_TIME else None


def differences(
    wanted: Iterable[DerivedSession], known: Iterable[StoredRow], until_ms: int | None = None
) -> list[Change]:
    """The wanted sessions that are not stored exactly so, and the stored ones that are not wanted.

    Reports from events after `until_ms` stay.
    """
    missing = {session.start: (session, context) for session, context in wanted}
    changes = []
    for row, version in known:
        begun = missing.pop(row.start, None)
        if begun is None:
            changes.append(Change(SessionRow.of(*row.derived, live=False)))
            continue
        if until_ms is not None:
            session, _ = begun
            session.reports = [*session.reports, *reports_after(row.references.reports, until_ms)]
        expected = SessionRow.of(*begun)
        if version is None or expected != row:
            visible = version is None or expected.visible_part != row.visible_part
            changes.append(Change(expected, visible=visible))
    return changes + [Change(SessionRow.of(*begun)) for begun in missing.values()]


def begins_as_stored(begun: DerivedSession, stored: StoredRow) -> bool:
    """Whether the session begins as it is stored. Then all later sessions are as stored."""
    session, context = begun
    return session.start == stored.row.start and text_of(context) == stored.row.before


def reports_after(reports: list[LateReport], until_ms: int | None) -> list[LateReport]:
    """The reports from events after the instant; none without an instant."""
    return [report for report in reports if until_ms is not None and report.at_ms > until_ms]
