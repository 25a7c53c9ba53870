"""How far a long command has come, on standard error."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from tether.cli.output import note

_TELL_S = 10.0


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:,.0f}/s")


@contextmanager
def shown_progress(total: int) -> Iterator[tuple[Callable[[], None], Callable[[str], None]]]:
    """What to call after each request, and with a notice: a bar in a terminal, else some lines."""
    if not sys.stderr.isatty():
        yield _Lines(total).advance, note
        return
    console = Console(stderr=True)
    with Progress(
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} requests"),
        _Rate(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as progress:
        task = progress.add_task("", total=total)
        yield lambda: progress.advance(task), lambda notice: console.print(notice, markup=False)


class Rows:
    """How many rows are done, and how much of the whole that is."""

    def __init__(self, unit: str, total: int) -> None:
        self._unit = unit
        self._total = total
        self._started = self._told = time.monotonic()
        self._done = 0

    def advance(self, rows: int, place: int = 0) -> None:
        """So many more rows are done, and of the whole (such as the bytes of a file) so much."""
        self._done += rows
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

    def advance(self, rows: int, place: int = 0) -> None:
        self._done += rows
        rate = self._done / (time.monotonic() - self._started)
        self._progress.update(self._task, completed=place, rows=self._done, rate=rate)

    def notice(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)


@contextmanager
def shown_rows(unit: str, total: int = 0) -> Iterator[Rows]:
    """Shows how many rows (`unit` names them) are done: a bar in a terminal, else a line at times.

    `total` is the size of the whole, in what `advance` is told as the place; 0 if it is unknown.
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


class _Lines:
    """Progress where there is no terminal: a line for each tenth."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._started = time.monotonic()

    def advance(self) -> None:
        self._done += 1
        if self._done * 10 // self._total == (self._done - 1) * 10 // self._total:
            return
        rate = self._done / (time.monotonic() - self._started)
        left_s = (self._total - self._done) / rate
        note(f"{self._done:,} of {self._total:,} requests, {rate:,.0f}/s, {left_s:.0f} s left")
