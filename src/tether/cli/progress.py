"""How far a long command has come, on standard error."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from tether.cli.output import note


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
