"""SQLite: one file, one writer thread with group commit, reads in the event loop.

Writes wait in a queue; the writer takes all that wait, runs them in one transaction and commits
once, so that many writes share one fsync. A read by key takes a few microseconds, less than a
thread hop, so it runs in the event loop, and a scan begins there: only if it is long it goes to a
thread. The reads of one turn of the event loop share a transaction, as to begin one takes longer
than to read a row.
"""

import asyncio
import logging
import re
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import apsw

from tether.domain.errors import SetupError, Unavailable
from tether.storage.dialect import SQLITE
from tether.storage.engine import Connections, Row, Size, Statement
from tether.storage.sqlite.event_lists import listing
from tether.storage.sqlite.guard import FileGuard, FileTrouble
from tether.storage.sqlite.write_queue import Run, Write, WriteQueue
from tether.storage.turns import Turns

log = logging.getLogger(__name__)  # structlog takes a while to load

# Before 3.51.3 a WAL database which two connections write at once can be corrupted.
OLDEST_SAFE = (3, 51, 3)
# The sessions of a thousand vehicles change several thousand pages in a commit: those which are not
# in the cache then are read again, and written twice.
WRITER_CACHE_KB = 6_000
# With a million events the inner pages that lead to one by its id are some 3 MB. They must not have
# to give way to the outer ones, of which each is read once.
READER_CACHE_KB = 8_000
SCANS_AT_ONCE = 3  # in threads
MOMENT = 5_000  # instructions of SQLite, which take about half a millisecond
SHORT = 2_000  # characters of parameters, which an instruction may have to read
_READS_TEXTS = f"{SQLITE.position}("  # one instruction of this reads a whole text, however long
WATCH_S = 1.0
BUSY_TIMEOUT_MS = 5_000
# While another process keeps the file locked only the first to meet it waits that long.
STILL_BUSY_TIMEOUT_MS = 250
SCRUB_TRIES = 12

_PRAGMAS = """
PRAGMA synchronous = FULL;
PRAGMA cache_size = -2000;  -- kB: what is not here is in the page cache of the system
PRAGMA temp_store = MEMORY;
PRAGMA journal_size_limit = 67108864;
PRAGMA wal_autocheckpoint = 16000;  -- 64 MiB: a page that changes often is copied back less often
PRAGMA schema_version;  -- reads the file: from now on nobody can lock it against readers
"""
_PASSING = (
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


def check_version() -> None:
    """Refuses, with SetupError, a SQLite that can damage our files."""
    if tuple(map(int, apsw.sqlite_lib_version().split("."))) < OLDEST_SAFE:
        raise SetupError(f"SQLite {apsw.sqlite_lib_version()} is too old; install a newer apsw.")


def connect(path: Path, *, create: bool = False) -> apsw.Connection:
    """A connection with the settings that all of ours have. Raises SetupError."""
    check_version()
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
    try:
        connection = apsw.Connection(str(path), flags=flags)
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        # Else SQLite plans a statement anew whenever its parameters change: that costs ten times
        # what running it does.
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        connection.execute(_PRAGMAS).fetchall()  # else it stops at the first that answers
    except apsw.NotADBError:
        raise SetupError(f"{path} is not a SQLite database; nothing was changed.") from None
    except apsw.Error as error:
        raise SetupError(f"{path} cannot be opened as a SQLite database: {error}") from None
    return connection


@lru_cache(maxsize=256)
def native(sql: str) -> str:
    """The statement with SQLite's numbered parameters: `$2` is a name there, `?2` is a place."""
    return re.sub(r"\$([0-9]+)", r"?\1", sql)


class SqliteEngine:
    """The embedded engine. One server process for a file; the command line may open it beside."""

    dialect = SQLITE

    def __init__(self, path: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = connect(path)
        self._reader.execute(f"PRAGMA cache_size = -{READER_CACHE_KB}")
        self._reader.set_busy_timeout(0)  # the event loop must not wait; in WAL it never has to
        self._reading = False  # in a transaction, until the end of this turn of the event loop
        self._writer = connect(path)
        self._writer.execute(f"PRAGMA cache_size = -{WRITER_CACHE_KB}")
        self._patient = True  # the file was not locked by another process last time
        self._queue = WriteQueue()
        self._scanners = ThreadPoolExecutor(SCANS_AT_ONCE, "tether-scan")
        self._turns = Turns(SCANS_AT_ONCE, of_each=1, most_waiting=sys.maxsize, patience_s=None)
        self._scan = threading.local()
        self._path = path
        self._guard = FileGuard(path)
        self._trouble: str | None = None
        self._watch = self._loop.create_task(self._watch_file())
        self._thread = threading.Thread(target=self._run, name="tether-writer", daemon=True)
        self._thread.start()

    async def ping(self, sql: str) -> None:
        self._look_at_file()
        await self.read(sql)

    async def read(self, sql: str, *parameters: object) -> list[Row]:
        if not self._reading:
            self._begin_reading()
        return self._fetch(self._reader, sql, parameters)

    async def look_up(self, sql: str, partner: int, key: str) -> Row | None:
        # Nothing gathers here: to wait for others costs more than to read a row.
        rows = await self.read(sql, partner, key)
        return rows[0] if rows else None

    def _begin_reading(self) -> None:
        if self._trouble is not None:
            raise Unavailable from FileTrouble(self._trouble)
        self._reading = True
        self._loop.call_soon(self._end_reading)
        if not self._reader.in_transaction:
            self._reader.execute("BEGIN")

    def _end_reading(self) -> None:
        """Whoever is told of a write in the turn to come shall read it, too."""
        if self._reading:
            self._reading = False
            if self._reader.in_transaction:
                with suppress(apsw.Error):  # of a read that failed, once more: it was told already
                    self._reader.execute("COMMIT")

    async def scan(self, sql: str, partner: int, *parameters: object) -> list[Row]:
        every = (partner, *parameters)
        if (rows := self._found_soon(sql, every)) is not None:
            return rows
        return await self._turns.run(partner, partial(self._scan_in_thread, sql, every))

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

    async def size(self) -> Size:
        file = self._path.resolve()
        beside = (file, file.with_name(file.name + "-wal"))
        used = sum(path.stat().st_size for path in beside if path.exists())
        return Size(used, shutil.disk_usage(file.parent).free, str(file.parent))

    def connections(self) -> dict[str, Connections]:
        return {}  # the two that there are take no part of anything that others need

    async def scrub(self) -> None:
        """Writes the file anew: what was deleted is in free pages, but also in the gaps of those in
        use, where no other means gets at it. Others can read meanwhile.
        """
        await self._enqueue(_overwrite_what_is_deleted)
        try:
            await self._loop.run_in_executor(None, _write_anew, self._path)
        except (SetupError, *_PASSING) as error:
            raise Unavailable from error

    async def close(self) -> None:
        self._watch.cancel()
        self._queue.close()
        await self._loop.run_in_executor(None, self._thread.join)
        self._scanners.shutdown()
        self._end_reading()
        if not self._guard.has_file:
            # Nothing of this file may be written to the one that has its name now, nor the log
            # removed that is beside that.
            for connection in (self._reader, self._writer):
                connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self._reader.close()
        self._writer.close()
        self._guard.close()

    async def _watch_file(self) -> None:
        while True:
            self._look_at_file()
            await asyncio.sleep(WATCH_S)

    def _look_at_file(self) -> None:
        """Looks whether the file is still what was opened; while it is not, all is refused."""
        trouble = self._guard.trouble()
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble is None:
            log.warning("the database file is there again")
            return
        log.error("%s: nothing is read, written or acknowledged any more. Put it back, or stop the "
                  "server and restore a backup", trouble)  # fmt: skip
        self._end_reading()
        if self._guard.has_file:  # then what only the log has can still be saved
            with suppress(apsw.Error):
                self._reader.execute("PRAGMA wal_checkpoint(FULL)").fetchall()

    def _fetch(
        self, connection: apsw.Connection, sql: str, parameters: tuple[object, ...]
    ) -> list[Row]:
        try:
            return list(connection.execute(native(sql), parameters))
        except apsw.Error as error:
            if isinstance(error, _PASSING) or self._guard.trouble():
                raise Unavailable from error
            raise

    def _found_soon(self, sql: str, parameters: tuple[object, ...]) -> list[Row] | None:
        """The rows if they are found in a moment: most scans have little to read.

        A thread gets the interpreter once for each row, which takes milliseconds while the event
        loop is busy.
        """
        if _READS_TEXTS in sql:
            return None
        if sum(len(value) for value in parameters if isinstance(value, str)) > SHORT:
            return None
        reader = self._reader
        try:
            if not self._reading:
                self._begin_reading()
            reader.set_progress_handler(_stops(), MOMENT)
            try:
                return list(reader.execute(native(sql), parameters))
            finally:
                reader.set_progress_handler(None)
        except (apsw.Error, Unavailable):  # what is wrong is found again
            return None

    def _scan_in_thread(
        self, sql: str, parameters: tuple[object, ...]
    ) -> "asyncio.Future[list[Row]]":
        run = partial(self._scan_now, sql, parameters)
        try:
            return self._loop.run_in_executor(self._scanners, run)
        except RuntimeError as error:  # no thread can be started
            raise Unavailable from error

    def _scan_now(self, sql: str, parameters: tuple[object, ...]) -> list[Row]:
        if trouble := self._guard.trouble():
            raise Unavailable from FileTrouble(trouble)
        if not hasattr(self._scan, "connection"):
            try:
                self._scan.connection = connect(self._path)
            except SetupError as error:
                raise Unavailable from error
        return self._fetch(self._scan.connection, sql, parameters)

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
            results = [self._queue.run(write, self._writer) for write in writes]
            self._writer.execute("COMMIT")
            self._check_file()  # else it is on no disk that anybody will look at
            return results
        except Exception as error:
            self._roll_back()
            if len(writes) == 1 or isinstance(error, _PASSING):
                # Its frames know the writes, which know who waits, who will know the error.
                return [error.with_traceback(None)] * len(writes)
        # One of them is at fault: the others must not suffer for it.
        return [result for write in writes for result in self._commit([write])]

    def _check_file(self) -> None:
        if trouble := self._guard.trouble():
            raise FileTrouble(trouble)

    def _begin(self) -> None:
        try:
            self._writer.execute("BEGIN IMMEDIATE")
        except apsw.BusyError:
            self._writer.set_busy_timeout(STILL_BUSY_TIMEOUT_MS)
            self._patient = False
            raise
        if not self._patient:
            self._writer.set_busy_timeout(BUSY_TIMEOUT_MS)
            self._patient = True

    def _roll_back(self) -> None:
        if self._writer.in_transaction:
            with suppress(apsw.Error):  # it is rolled back even then; this thread must go on
                self._writer.execute("ROLLBACK")


def _stops() -> Callable[[], bool]:
    """Stops a statement after one to two moments. SQLite goes on counting where the statement ended
    when it last ran, so the first moment may be over at once.
    """
    return partial(next, iter([False]), True)


def _overwrite_what_is_deleted(writer: apsw.Connection, _: Sequence[Statement]) -> None:
    writer.execute("PRAGMA secure_delete = ON").fetchall()


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
        if write.answer.done():  # the client is gone; what it asked for is done all the same
            continue
        if isinstance(result, _PASSING):
            write.answer.set_exception(Unavailable(cause=repr(result)))
        elif isinstance(result, Exception):
            write.answer.set_exception(result)
        else:
            write.answer.set_result(result)
