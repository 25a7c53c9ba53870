"""The writes that wait for the writer thread: by partner in turn, whose writes took the least."""

import asyncio
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias

import apsw

from tether.storage.engine import Statement
from tether.storage.turns import FairQueue

MOST_IN_ONE_COMMIT = 512
LARGE = 200_000  # characters of a write, which takes some ten milliseconds: it shares no commit

Run: TypeAlias = Callable[[apsw.Connection, Sequence[Statement]], Any]


class Write(NamedTuple):
    """What is to be done with some statements, and who waits for what it returns."""

    run: Run
    statements: Sequence[Statement]
    answer: "asyncio.Future[Any]"

    @property
    def whose(self) -> object:
        """The partner's number, as a rule."""
        return self.statements[0].parameters[0] if self.statements else None

    @property
    def is_small(self) -> bool:
        """Whether others may wait for its commit."""
        texts = (
            value
            for _, parameters in self.statements
            for value in parameters
            if isinstance(value, str)
        )
        return sum(map(len, texts)) <= LARGE


class WriteQueue:
    """Writes on their way from the event loop to the writer thread."""

    def __init__(self) -> None:
        self._arrived: SimpleQueue[Write | None] = SimpleQueue()
        # These are of the writer thread alone.
        self._waiting: FairQueue[object, Write] = FairQueue()
        self._closed = False

    def put(self, write: Write) -> None:
        """It waits from now on."""
        self._arrived.put(write)

    def close(self) -> None:
        """No more come."""
        self._arrived.put(None)

    def next_commit(self) -> list[Write]:
        """Those that are written together next. Waits for some; none when it is closed.

        A large one has a commit of its own, so that nobody else waits for it.
        """
        self._take_in()
        writes: list[Write] = []
        found = self._waiting.pop()
        while found is not None:
            write = found[1]
            writes.append(write)
            is_last = len(writes) == MOST_IN_ONE_COMMIT or not write.is_small
            found = None if is_last else self._waiting.pop(self._has_small)
        return writes

    def run(self, write: Write, writer: apsw.Connection) -> Any:
        """Does it, and counts for its partner how long that takes."""
        began = perf_counter()
        try:
            return write.run(writer, write.statements)
        finally:
            self._waiting.charge(write.whose, perf_counter() - began)

    def _has_small(self, whose: object) -> bool:
        return self._waiting.first(whose).is_small

    def _take_in(self) -> None:
        try:
            while True:
                arrived = self._arrived.get(block=not (self._waiting or self._closed))
                if arrived is None:
                    self._closed = True
                else:
                    self._waiting.put(arrived.whose, arrived)
        except Empty:
            pass
