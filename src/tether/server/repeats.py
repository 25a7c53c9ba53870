"""Keeps the log readable while the same is refused again and again."""

import asyncio
from collections.abc import Callable, Mapping
from typing import NamedTuple

FIRST = 20  # lines about the same that are written in a period
PERIOD_S = 1.0
MOST_KINDS = 200  # that are told apart in a period


class Kind(NamedTuple):
    """What lines are about that say the same: the event, its reason, and whom it happened to."""

    event: str
    reason: object
    finer: tuple[tuple[str, object], ...] = ()


class Repeats:
    """Lets the first lines of a kind through in each period, and counts the others.

    `tell` is told at the end of the period how many these were. Where there are too many kinds,
    those with the same reason are one.
    """

    def __init__(self, tell: Callable[[Kind, int], None]) -> None:
        self._tell = tell
        self._lines: dict[Kind, int] = {}

    def is_new(self, event: str, reason: object, **finer: object) -> bool:
        """Whether a line is to be written; called in the event loop."""
        kind = _kind(event, reason, finer)
        if not self._lines:
            asyncio.get_running_loop().call_later(PERIOD_S, self._end)
        elif kind not in self._lines and len(self._lines) >= MOST_KINDS:
            kind = Kind(event, reason)
        lines = self._lines[kind] = self._lines.get(kind, 0) + 1
        return lines <= FIRST

    def _end(self) -> None:
        counted, self._lines = self._lines, {}
        for kind, lines in counted.items():
            if lines > FIRST:
                self._tell(kind, lines - FIRST)


def _kind(event: str, reason: object, finer: Mapping[str, object]) -> Kind:
    return Kind(event, reason, tuple(finer.items()))
