"""SQLite: one file, one writer thread with group commit, reads in the event loop.

A read by key takes a few microseconds, less than a thread hop, so it runs in the event loop, and a
scan begins there: only if it is long it goes to a thread. The reads of one turn of the event loop
share a transaction, as to begin one takes longer than to read a row.
"""

import asyncio
import logging
import shutil
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import perf_counter

import apsw

from tether.domain.errors import SetupError, Unavailable
from tether.storage.dialect import SQLITE
from tether.storage.engine import Connections, Row, Size
from tether.storage.sqlite.file import FileTrouble, connect, native
from tether.storage.sqlite.writer import PASSING, FileGuard, SqliteWriter
from tether.storage.turns import LONGEST_S, Turns

log = logging.getLogger(__name__)  # structlog takes a while to load

# With a million events the inner pages that lead to one by its id are some 3 MB. They must not have
# to give way to the outer ones, of which each is read once.
READER_CACHE_KB = 8_000
SCANS_AT_ONCE = 3  # in threads
MOMENT = 5_000  # instructions of SQLite, which take about half a millisecond
SHORT = 2_000  # characters of parameters, which an instruction may have to read
_READS_TEXTS = f"{SQLITE.position}("  # one instruction of this reads a whole text, however long
WATCH_S = 1.0


class SqliteEngine:
    """The embedded engine. One server process for a file; the command line may open it beside."""

    dialect = SQLITE

    def __init__(self, path: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = connect(path)
        self._reader.execute(f"PRAGMA cache_size = -{READER_CACHE_KB}")
        self._reader.set_busy_timeout(0)  # the event loop must not wait; in WAL it never has to
        self._reading = False  # in a transaction, until the end of this turn of the event loop …
        self._reading_since = 0.0  # … as it is since then, by the clock of Rest
        self._scanners = ThreadPoolExecutor(SCANS_AT_ONCE, "tether-scan")
        self._turns = Turns(SCANS_AT_ONCE, of_each=1, most_waiting=sys.maxsize, patience_s=None)
        self._scan = threading.local()
        self._path = path
        connection = connect(path)
        self._guard = FileGuard(path)
        self._trouble: str | None = None
        self._watch = self._loop.create_task(self._watch_file())
        self._writer = writer = SqliteWriter(path, connection, self._guard)
        # What is written goes straight to the writer.
        self.write, self.write_all = writer.write, writer.write_all
        self.write_returning, self.list_events = writer.write_returning, writer.list_events
        self.scrub, self.forget, self.shrink = writer.scrub, writer.forget, writer.shrink

    async def ping(self, sql: str) -> None:
        self._look_at_file()
        await self.read(sql)

    async def read(self, sql: str, *parameters: object) -> list[Row]:
        if not self._reading:
            self._begin_reading()
        return self._fetch(self._reader, sql, parameters)

    async def look_up(self, sql: str, partner: int, key: str) -> Row | None:
        # Nothing is batched here: to wait for others costs more than to read a row.
        rows = await self.read(sql, partner, key)
        return rows[0] if rows else None

    def _begin_reading(self) -> None:
        if self._trouble is not None:
            raise Unavailable from FileTrouble(self._trouble)
        self._reading, self._reading_since = True, perf_counter()
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
            if perf_counter() - self._reading_since > LONGEST_S:  # who asks again and again
                await asyncio.sleep(0)
            return rows
        return await self._turns.run(partner, partial(self._scan_in_thread, sql, every))

    async def size(self) -> Size:
        file = self._path.resolve()
        beside = (file, file.with_name(file.name + "-wal"))
        used = sum(path.stat().st_size for path in beside if path.exists())
        return Size(used, shutil.disk_usage(file.parent).free, str(file.parent))

    def connections(self) -> dict[str, Connections]:
        return {}  # the two that there are take no part of anything that others need

    async def close(self) -> None:
        self._watch.cancel()
        await self._writer.finish()
        self._scanners.shutdown()
        self._end_reading()
        if not self._guard.has_file:
            # Nothing of this file may be written to the one that has its name now, nor the log
            # removed that is beside that.
            for connection in (self._reader, self._writer.connection):
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
            if isinstance(error, PASSING) or self._guard.trouble():
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


def _stops() -> Callable[[], bool]:
    """Stops a statement after one to two moments. SQLite goes on counting where the statement ended
    when it last ran, so the first moment may be over at once.
    """
    return partial(next, iter([False]), True)
