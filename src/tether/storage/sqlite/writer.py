"""The writer thread of SQLite, which commits all waiting writes together.

Writes wait in a queue. The writes of the partner that has used the least time go first. The thread
takes all waiting writes, runs them in one transaction and commits once, so that they share one
fsync.

Writes are acknowledged only if the file is still the file that was opened. A deleted, moved or
replaced file still takes writes, but they are lost when the process ends. The same is true of the
log beside it (`-wal`), which alone has the last commits. SQLite does not notice this. So we check
the files before and after each commit, and every second.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from struct import unpack, unpack_from
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias

import apsw

from tether.domain.errors import SetupError, Unavailable
from tether.storage.engine import Row, Statement
from tether.storage.sqlite import deleted_data
from tether.storage.sqlite.event_lists import listing
from tether.storage.sqlite.file import (
    BUSY_TIMEOUT_MS,
    FILE_BEGINS,
    HEADER_BYTES,
    FileTrouble,
    bytes_in,
    connect,
    native,
)
from tether.storage.turns import FairQueue, partner_in

MAX_IN_COMMIT = 512
LARGE = 200_000  # characters: a larger write takes about ten milliseconds, and has its own commit
# The sessions of a thousand vehicles change several thousand pages in a commit. Pages that do not
# fit into the cache are read again, and written twice.
WRITER_CACHE_KB = 6_000
# While another process locks the file, only the first write waits for the full timeout.
STILL_BUSY_TIMEOUT_MS = 250
MIN_COPIED_PAGES = 1_000  # at once from the log into the file
_LOG_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24
_LOGGED_AT, _COPIED_AT = 16, 96  # in the index: how many pages the log has, and the file of these
_TRIES = 3  # another process may change the files between two checks

# The cause may go away, or the operator can remove it.
TEMPORARY_ERRORS = (
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
    """Statements, the function that runs them, their partner, and the future for the result."""

    run: Run
    statements: Sequence[Statement]
    partner: object
    answer: "asyncio.Future[Any]"

    @property
    def is_small(self) -> bool:
        """Whether it may share a commit with others."""
        texts = (
            value
            for _, parameters in self.statements
            for value in parameters
            if isinstance(value, str)
        )
        return sum(map(len, texts)) <= LARGE


class WriteQueue:
    """The queue of writes from the event loop to the writer thread."""

    def __init__(self) -> None:
        self._arrived: SimpleQueue[Write | None] = SimpleQueue()
        # Only the writer thread uses these.
        self._waiting: FairQueue[object, Write] = FairQueue()
        self._closed = False

    def put(self, write: Write) -> None:
        """Adds a write to the queue."""
        self._arrived.put(write)

    def close(self) -> None:
        """Ends the queue: no more writes follow."""
        self._arrived.put(None)

    def next_commit(self) -> list[Write]:
        """The writes of the next commit. Waits for some; returns none when the queue is closed.

        A large write has its own commit, so that no other write waits for it.
        """
        self._sort_arrived()
        writes: list[Write] = []
        next_write = self._waiting.pop()
        while next_write is not None:
            write = next_write[1]
            writes.append(write)
            is_last = len(writes) == MAX_IN_COMMIT or not write.is_small
            next_write = None if is_last else self._waiting.pop(self._has_small)
        return writes

    def run(self, write: Write, writer: apsw.Connection) -> Any:
        """Runs the write, and charges the time to its partner."""
        began = perf_counter()
        try:
            return write.run(writer, write.statements)
        finally:
            self._waiting.charge(write.partner, perf_counter() - began)

    def _has_small(self, partner: object) -> bool:
        return self._waiting.first(partner).is_small

    def _sort_arrived(self) -> None:
        with suppress(Empty):
            arrived = self._arrived.get(block=not (self._waiting or self._closed))
            while True:
                if arrived is None:
                    self._closed = True
                else:
                    self._waiting.put(arrived.partner, arrived)
                arrived = self._arrived.get_nowait()


class SqliteWriter:
    """The writer thread, and the methods of `Engine` that write."""

    def __init__(self, path: Path) -> None:
        self.connection = connect(path)
        self.guard = FileGuard(path)
        self._loop = asyncio.get_running_loop()
        self._path = path
        self.connection.execute(f"PRAGMA cache_size = -{WRITER_CACHE_KB}")
        # SQLite overwrites deleted rows; deleted_data.py finds the copies that this does not reach.
        self.connection.pragma("secure_delete", "ON")
        self._file: int | None = None
        self._pages = asyncio.Lock()  # held while pages are moved or searched
        self._waits_long = True  # until another process has locked the file
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

    async def erase_deleted(self) -> None:
        """Rewrites the file: only this clears the gaps in its pages. Reads go on meanwhile."""
        await self._in_thread(deleted_data.rewrite, self._path)

    async def erase_text(self, text: str) -> None:
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR)
        if trouble := self.guard.trouble():
            raise Unavailable from FileTrouble(trouble)
        async with self._pages:
            await self._in_thread(deleted_data.erase_copies, self._path, self._file, text)

    async def shrink(self) -> None:
        if await deleted_data.shrink(self._return_pages):
            await self._in_thread(deleted_data.copy_log, self._path)  # only this shortens the file

    async def copy_log(self) -> None:
        """Copies a long log into the file beside commits. Otherwise one would copy 64 MiB."""
        if not self.guard.trouble() and self.guard.uncopied_pages() > MIN_COPIED_PAGES:
            with suppress(Unavailable, RuntimeError):  # no thread can be started
                await self._in_thread(deleted_data.copy_log, self._path)

    async def _return_pages(self, max_free: float) -> bool:
        async with self._pages:
            return bool(await self._enqueue(partial(deleted_data.return_pages, max_free)))

    async def _in_thread(self, run: Callable[..., None], *values: object) -> None:
        """Runs it in another thread. Raises Unavailable."""
        try:
            await self._loop.run_in_executor(None, run, *values)
        except (SetupError, *TEMPORARY_ERRORS) as error:
            raise Unavailable from error

    def close(self) -> None:
        """Closes the file. All other connections must be closed before."""
        self.connection.close()
        self.guard.close()
        if self._file is not None:
            os.close(self._file)

    async def finish(self) -> None:
        """Returns when all waiting writes are done. No write may follow."""
        self._queue.close()
        await self._loop.run_in_executor(None, self._thread.join)

    def _enqueue(self, run: Run, *statements: Statement) -> "asyncio.Future[Any]":
        """Makes the writer thread call `run` with its connection and the statements."""
        answer = self._loop.create_future()
        partner = partner_in(statements[0].parameters) if statements else None
        self._queue.put(Write(run, statements, partner, answer))
        return answer

    # In the writer thread -------------------------------------------------------------------------

    def _run(self) -> None:
        while writes := self._queue.next_commit():
            self._loop.call_soon_threadsafe(_answer, writes, self._commit(writes))

    def _commit(self, writes: list[Write]) -> list[Any]:
        """Runs the writes in one transaction; returns the result or the error of each."""
        try:
            self._check_file()
            self._begin()
            results = [self._queue.run(write, self.connection) for write in writes]
            self.connection.execute("COMMIT")
            self._check_file()  # if the file was replaced, the commit is lost
            return results
        except Exception as error:
            self._roll_back()
            if len(writes) == 1 or isinstance(error, TEMPORARY_ERRORS):
                # Without its traceback, which would form a reference cycle with the futures.
                return [error.with_traceback(None)] * len(writes)
        # One of the writes is at fault. Run each alone, so that the others succeed.
        return [result for write in writes for result in self._commit([write])]

    def _check_file(self) -> None:
        if trouble := self.guard.trouble():
            raise FileTrouble(trouble)

    def _begin(self) -> None:
        try:
            self.connection.execute("BEGIN IMMEDIATE")
        except apsw.BusyError:
            self.connection.set_busy_timeout(STILL_BUSY_TIMEOUT_MS)
            self._waits_long = False
            raise
        if not self._waits_long:
            self.connection.set_busy_timeout(BUSY_TIMEOUT_MS)
            self._waits_long = True

    def _roll_back(self) -> None:
        if self.connection.in_transaction:
            with suppress(apsw.Error):  # it is rolled back anyway, and this thread must go on
                self.connection.execute("ROLLBACK")


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
        # The client may be gone, or Ctrl-C may have cancelled the future. The write is done anyway.
        with suppress(asyncio.InvalidStateError):
            if isinstance(result, TEMPORARY_ERRORS):
                write.answer.set_exception(Unavailable(cause=repr(result)))
            elif isinstance(result, Exception):
                write.answer.set_exception(result)
            else:
                write.answer.set_result(result)


# Is it still the file that was opened? ------------------------------------------------------------


class _Trouble(Exception):
    """What is wrong with the file. `permanent`: a running server cannot recover from it."""

    def __init__(self, reason: str, *, permanent: bool = False) -> None:
        super().__init__(reason)
        self.permanent = permanent


class FileGuard:
    """Checks that a file, its log and its index are still the ones that were opened.

    Create it after a connection to the file is open, and close it after all connections. If a
    descriptor of the file is closed earlier, the kernel releases the locks of SQLite.
    """

    def __init__(self, path: Path) -> None:
        self._path = os.path.abspath(path)
        self._file = os.open(self._path, os.O_RDONLY)
        self._identities = {self._path: _identity(os.fstat(self._file))}
        real = os.path.realpath(path)  # SQLite names its log and its index after the real path
        self._log, self._index = f"{real}-wal", f"{real}-shm"
        for beside in filter(os.path.exists, (self._log, self._index)):
            self._identities[beside] = _identity(os.stat(beside))
        self._has_log = self._log in self._identities
        self._index_file: int | None = None
        if self._index in self._identities:
            self._index_file = os.open(self._index, os.O_RDONLY)
        self._bytes = os.fstat(self._file).st_size
        self._changes = 0
        self._permanent: str | None = None

    def trouble(self) -> str | None:
        """What is wrong with the file, or None."""
        if self._permanent is not None:
            return self._permanent
        for tries_left in reversed(range(_TRIES)):
            try:
                self._check()
                return None
            except _Trouble as trouble:
                if not tries_left:
                    if trouble.permanent:
                        self._permanent = str(trouble)
                    return str(trouble)
            except OSError as error:
                if not tries_left:
                    return f"{self._path} cannot be looked at: {error.strerror}"
        return None

    def uncopied_pages(self) -> int:
        """How many pages in the log are not in the file yet."""
        if self._index_file is None:
            return 0
        index = os.pread(self._index_file, _COPIED_AT + 4, 0)
        logged, copied = unpack_from("=I", index, _LOGGED_AT), unpack_from("=I", index, _COPIED_AT)
        return int(logged[0] - copied[0])

    @property
    def has_file(self) -> bool:
        """Whether the file itself is still in its place. Its log and its index are not checked."""
        try:
            self._check_file()
        except (_Trouble, OSError):
            return False
        return self._permanent is None

    def close(self) -> None:
        """Closes the descriptors of the file and its index."""
        os.close(self._file)
        if self._index_file is not None:
            os.close(self._index_file)

    def _check(self) -> None:
        self._check_file()
        if self._index_file is not None and self._has_log:
            size = self._size_of(self._log)
            self._size_of(self._index)
            self._check_log(size, self._index_file)

    def _size_of(self, path: str) -> int:
        try:
            found = os.stat(path)
        except FileNotFoundError:
            raise _Trouble(f"{path} is gone") from None
        if _identity(found) != self._identities[path]:
            raise _Trouble(f"{path} is another file now")
        return found.st_size

    def _check_file(self) -> None:
        size = self._size_of(self._path)
        header = os.pread(self._file, HEADER_BYTES, 0)
        if len(header) < HEADER_BYTES or not header.startswith(FILE_BEGINS):
            raise _Trouble(f"{self._path} was truncated or overwritten", permanent=True)
        (changes,) = unpack(">I", header[24:28])
        has_log = header[18:20] == b"\2\2"
        if has_log != self._has_log or changes < self._changes:
            raise _Trouble(f"{self._path} was overwritten with another database", permanent=True)
        # Only a vacuum makes it shorter, and then its header has the new size.
        if size < self._bytes and size != bytes_in(header):
            raise _Trouble(f"{self._path} was truncated")
        self._bytes, self._changes = size, changes

    def _check_log(self, size: int, index_file: int) -> None:
        index = os.pread(index_file, 24, 0)
        if len(index) < 24:
            raise _Trouble(f"{self._index} was truncated", permanent=True)
        page, frames = unpack("=H", index[14:16])[0], unpack("=I", index[16:20])[0]
        page_bytes = (page & 0xFE00) + ((page & 1) << 16)
        if frames and size < _LOG_HEADER_BYTES + frames * (_FRAME_HEADER_BYTES + page_bytes):
            raise _Trouble(f"{self._log} was truncated", permanent=True)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
