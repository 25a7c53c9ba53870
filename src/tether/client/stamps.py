"""Timestamps for events without one."""

import threading
from collections.abc import Callable

from tether.client.forks import reset_after_fork
from tether.domain.timestamps import now_ms

STEP_BACK_MS = 60_000
_MANY = 10_000


def next_stamp(now: int, last: int) -> int:
    """The timestamp of a vehicle's next event, after one with the timestamp `last`.

    It is later than `last`, so that two events stay two and keep their order. But if the clock was
    set back by more than a minute, it is `now`.
    """
    return last + 1 if now <= last < now + STEP_BACK_MS else now


class Stamps:
    """Strictly increasing timestamps for each vehicle; may be used by many threads."""

    def __init__(self, clock: Callable[[], int] = now_ms) -> None:
        self._clock = clock
        self._last: dict[str, int] = {}
        self._most = _MANY
        self.after_fork_in_child()
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        """The child needs a new lock: a thread of the parent may hold the old one."""
        self._mutex = threading.Lock()

    def next(self, vehicle_id: str) -> int:
        """The timestamp (ms since 1970) of an event of this vehicle that happens now."""
        with self._mutex:
            now = self._clock()
            stamp = self._last[vehicle_id] = next_stamp(now, self._last.get(vehicle_id, 0))
            if len(self._last) > self._most:
                self._drop_old(now)
            return stamp

    def _drop_old(self, now: int) -> None:
        """Drops timestamps that are too old to matter."""
        recent = now - STEP_BACK_MS
        self._last = {vehicle: last for vehicle, last in self._last.items() if last > recent}
        self._most = max(_MANY, 2 * len(self._last))
