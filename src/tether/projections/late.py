"""Vehicles of which events came late or were taken back."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from tether.domain.earlier_sessions import SessionContext, Start
from tether.domain.session_builder import SessionBuilder
from tether.domain.session_record import MOST_TAKEN, OrderedEvent
from tether.projections.comparing import compared, is_again
from tether.storage.events import END_OF_TIME
from tether.storage.session_records import Change, Stored

AT_ONCE = 100  # vehicles that are looked at together …
EVENTS_AT_ONCE = 5_000  # … and so many events, as they are in memory together
LATE_MOST = 200  # events or sessions of such a vehicle; with more it is looked at by itself


class Late(NamedTuple):
    """A vehicle of which events came late or were taken back: the instants of the first and of the
    last of them, and how many they are.
    """

    vehicle: str
    first_ms: int
    last_ms: int
    events: int

    @classmethod
    def of(cls, vehicle: str, events: Sequence[OrderedEvent]) -> "Late":
        """The vehicle with these events, in their order."""
        return cls(vehicle, events[0].position.at_ms, events[-1].position.at_ms, len(events))


def grouped(late: Iterable[Late]) -> Iterator[list[Late]]:
    """Those which are looked at together."""
    group: list[Late] = []
    events = 0
    for one in late:
        if group and (len(group) == AT_ONCE or events + one.events > EVENTS_AT_ONCE):
            yield group
            group, events = [], 0
        group.append(one)
        events += one.events
    if group:
        yield group


class Bounds(NamedTuple):
    """From where on a vehicle is derived again, what is known of before, and to where at least."""

    before: SessionContext
    start: Start
    until_ms: int


def between(
    late: Late, bounds: Bounds, events: list[OrderedEvent], known: list[Stored]
) -> list[Change] | None:
    """What changes between the bounds; None if it goes on beyond them, or there is too much."""
    taken = bounds.before.taken
    if len(taken) >= MOST_TAKEN or LATE_MOST in (len(events), len(known)):
        return None
    if any(start < bounds.start for one in known for start in one.row.ties.told):
        return None
    timeline = SessionBuilder(before=bounds.before)
    stored = {one.row.start: one for one in known}
    for _, instant in groupby(events, key=lambda one: one.position.at_ms):
        count = len(timeline.begun)
        timeline.take(one for one in instant if one.position.seq not in taken)
        if timeline.reports:
            return None
        if len(timeline.begun) > count:
            start = timeline.begun[-1][0].start
            behind = start[0] > late.last_ms and start in stored
            if behind and is_again(timeline.begun[-1], stored[start]):
                timeline.begun.pop()
                before = [one for one in known if one.row.start < start]
                return compared(timeline.begun, before, start[0])
    return compared(timeline.begun, known) if bounds.until_ms == END_OF_TIME else None
