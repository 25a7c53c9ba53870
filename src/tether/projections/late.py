"""Vehicles of which events came late or were taken back."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

AT_ONCE = 100  # vehicles that are looked at together …
EVENTS_AT_ONCE = 5_000  # … and so many events, as they are in memory together


class Late(NamedTuple):
    """A vehicle of which events came late or were taken back: the instants of the first and of the
    last of them, and how many they are.
    """

    vehicle: str
    first_ms: int
    last_ms: int
    events: int


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
