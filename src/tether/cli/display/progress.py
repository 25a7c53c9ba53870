"""How far a long command has come, on standard error."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from tether.cli.display.output import note, plain

_TELL_S = 10.0


class Rows:
    """How many rows are done, and how much of the whole that is."""

    def __init__(self, unit: str, total: int) -> None:
        self._unit = unit
        self._total = total
        self._started = self._told = time.monotonic()
        self._done = 0

    def advance(self, rows: int, place: int | None = None) -> None:
        """So many more rows are done; and of the whole so much, if that is not told in rows."""
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

    def __init__(self, unit: str, total: int, progress: Progress, console: Console) -> None:
        super().__init__(unit, total)
        self._progress = progress
        self._console = console
        self._task = progress.add_task("", total=total or None, rows=0, rate=0.0)

    def advance(self, rows: int, place: int | None = None) -> None:
        self._done += rows
        place = self._done if place is None else place
        rate = self._done / (time.monotonic() - self._started)
        self._progress.update(self._task, completed=place, rows=self._done, rate=rate)

    def notice(self, text: str) -> None:
        self._console.print(plain(text), markup=False, highlight=False)


@contextmanager
def shown_rows(unit: str, total: int = 0) -> Iterator[Rows]:
    """Shows how many rows (`unit` names them) are done: a bar in a terminal, else a line at times.

    `total` is the size of the whole, in rows or in what `advance` is told as the place; 0 if it is
    unknown.
    """
    if not sys.stderr.isatty():
        yield Rows(unit, total)
        return
    console = Console(stderr=True)
    columns: list[ProgressColumn] = [
        TextColumn(f"{{task.fields[rows]:,}} {unit}, {{task.fields[rate]:,.0f}}/s")
    ]
    if total:
        columns = [BarColumn(), TaskProgressColumn(), *columns, TimeRemainingColumn(compact=True)]
    with Progress(*columns, console=console, transient=True) as progress:
        yield _RowsInTerminal(unit, total, progress, console)
