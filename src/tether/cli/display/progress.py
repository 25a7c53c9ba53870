"""The progress of a long command, on standard error: a bar in a terminal.

rich is slow to import, so it is imported on first use.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tether.cli.display.output import note, plain

if TYPE_CHECKING:
    from rich.progress import Progress

_REPORT_S = 10.0


@contextmanager
def progress(what: str, total: float) -> Iterator[Callable[[float], None]]:
    """Shows a bar in a terminal. Yields the function that sets how much of the total is done."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    with _bar(what, total) as bar:
        task = bar.add_task("", total=total or None)
        yield lambda done: bar.update(task, completed=done)


class RowProgress:
    """Counts rows, and shows their number: in a bar in a terminal, otherwise in a line at times."""

    def __init__(self, unit: str, total: int, bar: "Progress | None" = None) -> None:
        self._unit = unit
        self._total = total
        self._bar = bar
        self._task = bar.add_task("", total=total or None, rows=0, rate=0.0) if bar else None
        self._started = self._reported = time.monotonic()
        self._done = 0

    def advance(self, rows: int, position: int | None = None) -> None:
        """Counts rows. `position` is where they end in the total, if that is not in rows."""
        self._done += rows
        position = self._done if position is None else position
        now = time.monotonic()
        rate = self._done / (now - self._started)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=position, rows=self._done, rate=rate)
        elif now - self._reported >= _REPORT_S:
            self._reported = now
            part = f", {position * 100 // self._total} %" if self._total else ""
            note(f"{self._done:,} {self._unit}{part}, {rate:,.0f}/s")

    def notice(self, text: str) -> None:
        """Prints a line above the bar, or on standard error if there is no bar."""
        if self._bar is not None:
            self._bar.console.print(plain(text), markup=False, highlight=False)
        else:
            note(text)


@contextmanager
def row_progress(unit: str, total: int = 0) -> Iterator[RowProgress]:
    """Shows how many rows are done; `unit` names the rows.

    `total` is in rows or in the unit of `position`; 0 if it is not known.
    """
    if not sys.stderr.isatty():
        yield RowProgress(unit, total)
        return
    with _bar(f"{{task.fields[rows]:,}} {unit}, {{task.fields[rate]:,.0f}}/s", total) as bar:
        yield RowProgress(unit, total, bar)


def _bar(text: str, total: float) -> "Progress":
    """The progress bar of all commands. Without a total it has no bar, only the text."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    bar = (BarColumn(), TaskProgressColumn(), Remaining(compact=True)) if total else ()
    return Progress(TextColumn(text), *bar, console=Console(stderr=True), transient=True)
