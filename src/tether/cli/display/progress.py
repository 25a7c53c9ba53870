"""How far a long command has come, on standard error: a bar in a terminal.

rich takes a while to import, so it is imported when there is something to show.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tether.cli.display.output import note, plain

if TYPE_CHECKING:
    from rich.progress import Progress

_TELL_S = 10.0


@contextmanager
def progress(what: str, total: float) -> Iterator[Callable[[float], None]]:
    """A bar, if there is a terminal; yields what sets how far it is."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    with _bar(what, total) as bar:
        task = bar.add_task("", total=total or None)
        yield lambda done: bar.update(task, completed=done)


class Rows:
    """How many rows are done, and how much of the whole that is."""

    def __init__(self, unit: str, total: int) -> None:
        self._unit = unit
        self._total = total
        self._started = self._told = time.monotonic()
        self._done = 0

    def advance(self, rows: int, place: int | None = None) -> None:
        """Counts rows that are done. `place` is how far in the whole they end, unless in rows."""
        self._done += rows
        place = self._done if place is None else place
        if time.monotonic() - self._told >= _TELL_S:
            self._told = time.monotonic()
            rate = self._done / (self._told - self._started)
            part = f", {place * 100 // self._total} %" if self._total else ""
            note(f"{self._done:,} {self._unit}{part}, {rate:,.0f}/s")

    def notice(self, text: str) -> None:
        """Says something beside it."""
        note(text)


class _RowsInTerminal(Rows):
    """As a bar."""

    def __init__(self, unit: str, total: int, bar: "Progress") -> None:
        super().__init__(unit, total)
        self._bar = bar
        self._task = bar.add_task("", total=total or None, rows=0, rate=0.0)

    def advance(self, rows: int, place: int | None = None) -> None:
        self._done += rows
        place = self._done if place is None else place
        rate = self._done / (time.monotonic() - self._started)
        self._bar.update(self._task, completed=place, rows=self._done, rate=rate)

    def notice(self, text: str) -> None:
        self._bar.console.print(plain(text), markup=False, highlight=False)


@contextmanager
def shown_rows(unit: str, total: int = 0) -> Iterator[Rows]:
    """Shows how many rows (`unit` names them) are done: a bar in a terminal, else a line at times.

    `total` is the size of the whole, in rows or in what `advance` is told as the place; 0 if it is
    unknown.
    """
    if not sys.stderr.isatty():
        yield Rows(unit, total)
        return
    with _bar(f"{{task.fields[rows]:,}} {unit}, {{task.fields[rate]:,.0f}}/s", total) as bar:
        yield _RowsInTerminal(unit, total, bar)


def _bar(text: str, total: float) -> "Progress":
    """The bar that all commands have; of what has no known end only the text."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    bar = (BarColumn(), TaskProgressColumn(), Remaining(compact=True)) if total else ()
    return Progress(TextColumn(text), *bar, console=Console(stderr=True), transient=True)
