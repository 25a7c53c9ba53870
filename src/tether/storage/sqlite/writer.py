"""What is written to SQLite: one thread, which commits what waits together.

Writes wait in a queue, by partner in turn: next is whose writes took the least. The thread takes
all that wait, runs them in one transaction and commits once, so that many share one fsync. They are
acknowledged only if the file is still the one that was opened.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias

import apsw

from tether.domain.errors import SetupError, Unavailable
from tether.storage.engine import Row, Statement
from tether.storage.sqlite.event_lists import listing
from tether.storage.sqlite.file import BUSY_TIMEOUT_MS, connect, native
from tether.storage.sqlite.guard import FileGuard, FileTrouble
from tether.storage.sqlite.traces import erase_traces
from tether.storage.turns import FairQueue, whose

MOST_IN_ONE_COMMIT = 512
LARGE = 200_000  # characters of a write, which takes some ten milliseconds: it shares no commit
# The sessions of a thousand vehicles change several thousand pages in a commit: those which are not
# in the cache then are read again, and written twice.
WRITER_CACHE_KB = 6_000
# While another process keeps the file locked only the first to meet it waits that long.
STILL_BUSY_TIMEOUT_MS = 250
SCRUB_TRIES = 12

PASSING = (
    apsw.BusyError,
    apsw.LockedError,
    apsw.ProtocolError,
    apsw.FullError,
    apsw.IOError,
    apsw.CantOpenError,
    apsw.ReadOnlyError,
    apsw.NoMemError,
    apsw.CorruptError,
    apsw.NotADBError,
    FileTrouble,
)
Run: TypeAlias = Callable[[apsw.Connection, Sequence[Statement]], Any]


class Write(NamedTuple):
    """What is to be done with some statements, and who waits for what it returns."""

    run: Run
    statements: Sequence[Statement]
    answer: "asyncio.Future[Any]"

    @property
    def whose(self) -> object:
        """Whom it belongs to."""
        return whose(self.statements[0].parameters) if self.statements else None

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
        with suppress(Empty):
            arrived = self._arrived.get(block=not (self._waiting or self._closed))
            while True:
                if arrived is None:
                    self._closed = True
                else:
                    self._waiting.put(arrived.whose, arrived)
                arrived = self._arrived.get_nowait()


class SqliteWriter:
    """The writer thread, and what it can be asked for: see `Engine`."""

    def __init__(self, path: Path, connection: apsw.Connection, guard: FileGuard) -> None:
        self.connection = connection
        self._loop = asyncio.get_running_loop()
        self._path = path
        self._guard = guard
        self.connection.execute(f"PRAGMA cache_size = -{WRITER_CACHE_KB}")
        # What is deleted is overwritten: see traces.py for what that does not reach.
        self.connection.execute("PRAGMA secure_delete = ON").fetchall()
        self._file: int | None = None
        self._patient = True  # the file was not locked by another process last time
        self._queue = WriteQueue()
        self._thread = threading.Thread(target=self._run, name="tether-writer", daemon=True)
        self._thread.start()

    async def write(self, sql: str, *parameters: object) -> int:
        (changed,) = await self.write_all(Statement(sql, parameters))
        return changed

    async def write_returning(self, sql: str, *parameters: object) -> list[Row]:
        rows: list[Row] = await self._enqueue(_return, Statement(sql, parameters))
        return rows

    async def write_all(self, *statements: Statement) -> list[int]:
        counts: list[int] = await self._enqueue(_change, *statements)
        return counts

    async def list_events(self, partner: int, last: int, until: int) -> None:
        await self.write_all(*listing(partner, last, until))

    async def scrub(self) -> None:
        """Writes the file anew: what was deleted is in free pages, but also in the gaps of those in
        use, where no other means gets at it. Others can read meanwhile.
        """
        await self._apart(_write_anew, self._path)

    async def forget(self, text: str) -> None:
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR)
        if trouble := self._guard.trouble():
            raise Unavailable from FileTrouble(trouble)
        await self._apart(erase_traces, self._path, self._file, text)

    async def _apart(self, run: Callable[..., None], *values: object) -> None:
        """Runs it in another thread."""
        try:
            await self._loop.run_in_executor(None, run, *values)
        except (SetupError, *PASSING) as error:
            raise Unavailable from error

    def close(self) -> None:
        """Lets go of the file; no other connection may have it any more."""
        self.connection.close()
        if self._file is not None:
            os.close(self._file)

    async def finish(self) -> None:
        """Returns when all that waits is done; nothing may come any more."""
        self._queue.close()
        await self._loop.run_in_executor(None, self._thread.join)

    def _enqueue(self, run: Run, *statements: Statement) -> "asyncio.Future[Any]":
        """Has the writer thread run this with its connection and the statements."""
        answer = self._loop.create_future()
        self._queue.put(Write(run, statements, answer))
        return answer

    # In the writer thread -------------------------------------------------------------------------

    def _run(self) -> None:
        while writes := self._queue.next_commit():
            self._loop.call_soon_threadsafe(_answer, writes, self._commit(writes))

    def _commit(self, writes: list[Write]) -> list[Any]:
        """Runs the writes in one transaction; what each returned, or the error that it met."""
        try:
            self._check_file()
            self._begin()
            results = [self._queue.run(write, self.connection) for write in writes]
            self.connection.execute("COMMIT")
            self._check_file()  # else it is on no disk that anybody will look at
            return results
        except Exception as error:
            self._roll_back()
            if len(writes) == 1 or isinstance(error, PASSING):
                # Its frames know the writes, which know who waits, who will know the error.
                return [error.with_traceback(None)] * len(writes)
        # One of them is at fault: the others must not suffer for it.
        return [result for write in writes for result in self._commit([write])]

    def _check_file(self) -> None:
        if trouble := self._guard.trouble():
            raise FileTrouble(trouble)

    def _begin(self) -> None:
        try:
            self.connection.execute("BEGIN IMMEDIATE")
        except apsw.BusyError:
            self.connection.set_busy_timeout(STILL_BUSY_TIMEOUT_MS)
            self._patient = False
            raise
        if not self._patient:
            self.connection.set_busy_timeout(BUSY_TIMEOUT_MS)
            self._patient = True

    def _roll_back(self) -> None:
        if self.connection.in_transaction:
            with suppress(apsw.Error):  # it is rolled back even then; this thread must go on
                self.connection.execute("ROLLBACK")


def _write_anew(path: Path) -> None:
    connection = connect(path)
    try:
        connection.execute("PRAGMA temp_store = FILE")  # it may be larger than the memory
        _insist(lambda: connection.execute("VACUUM").fetchall())
        # What was in the log is in the file then, and nothing in the log.
        _insist(lambda: _empty_log(connection))
    finally:
        connection.close()


def _empty_log(connection: apsw.Connection) -> None:
    ((busy, _, _),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    if busy:
        raise apsw.BusyError("somebody reads what is in the log")


def _insist(run: Callable[[], Any]) -> None:
    """Runs it until it meets nobody who reads or writes. Raises BusyError if that takes long."""
    for left in reversed(range(SCRUB_TRIES)):
        try:
            run()
            return
        except apsw.BusyError:  # after BUSY_TIMEOUT_MS
            if not left:
                raise


def _change(writer: apsw.Connection, statements: Sequence[Statement]) -> list[int]:
    counts = []
    for sql, parameters in statements:
        writer.execute(native(sql), parameters)
        counts.append(writer.changes())
    return counts


def _return(writer: apsw.Connection, statements: Sequence[Statement]) -> list[Row]:
    ((sql, parameters),) = statements
    return list(writer.execute(native(sql), parameters))


def _answer(writes: list[Write], results: list[Any]) -> None:
    for write, result in zip(writes, results, strict=True):
        # Its client may be gone, or Ctrl-C cancels it right now: what it asked for is done all the
        # same.
        with suppress(asyncio.InvalidStateError):
            if isinstance(result, PASSING):
                write.answer.set_exception(Unavailable(cause=repr(result)))
            elif isinstance(result, Exception):
                write.answer.set_exception(result)
            else:
                write.answer.set_result(result)
