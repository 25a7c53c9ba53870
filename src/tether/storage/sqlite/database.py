"""A database in a SQLite file: the operations on all of it, copying, and the engine.

The engine has one writer thread with group commit. It reads in the event loop, because a read by
key takes a few microseconds, less than a change of threads. A scan also begins there. If it is
long, it moves to a thread. The reads in one round of the event loop share a transaction, because to
begin a transaction takes longer than to read a row.
"""

import asyncio
import logging
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import apsw

from tether.domain.errors import SetupError, Unavailable
from tether.domain.timestamps import now_ms
from tether.storage.database import Certificate, ServerReport, Values
from tether.storage.dialect import SQLITE
from tether.storage.engine import PING, Connections, Engine, Row, Size
from tether.storage.log_positions import BEGIN_EPOCH, Epoch
from tether.storage.sqlite import event_lists
from tether.storage.sqlite.file import (
    FileTrouble,
    SqliteFile,
    check_version,
    connect,
    connection_to,
    native,
)
from tether.storage.sqlite.writer import TEMPORARY_ERRORS, SqliteWriter
from tether.storage.turns import SLICE_S, Turns, next_turn

log = logging.getLogger(__name__)  # structlog takes a while to load

# With a million events the inner pages of the index by id take some 3 MB. They must stay in the
# cache although many leaf pages are read, each of them once.
READER_CACHE_KB = 8_000
SCANS_AT_ONCE = 3  # in threads
SHORT_SCAN = 5_000  # instructions of SQLite, which take about half a millisecond
SHORT_TEXT = 2_000  # characters of parameters, which an instruction may have to read
_READS_TEXTS = f"{SQLITE.position}("  # one instruction reads a text of any length
WATCH_S = 1.0
# The newest instant by the clocks of servers: all of these are in the past.
_NEWEST_INSTANT = """
SELECT max(at_ms) FROM (
    SELECT max(updated_ms) AS at_ms FROM derivations
    UNION ALL SELECT max(created_ms) FROM keys
    UNION ALL SELECT max(last_used_ms) FROM keys
    UNION ALL SELECT began_ms FROM epoch
) newest
"""


class SqliteDatabase(SqliteFile):
    """See `Database`."""

    def describe(self) -> str:
        return str(self.file)

    def open(self, connections: int) -> Engine:
        return SqliteEngine(self.file)

    def version(self) -> str:
        check_version()
        return f"SQLite {apsw.sqlite_lib_version()} (apsw {apsw.apsw_version()})"

    def clock_ahead_ms(self) -> int | None:
        with connection_to(self.file) as connection:
            began_ms = now_ms()
            newest_ms = connection.execute(_NEWEST_INSTANT).get
        return None if newest_ms is None else min(0, began_ms - newest_ms)

    def damages(self, *, full: bool = False) -> list[str]:
        from tether.storage.sqlite.backup import damages_in

        return damages_in(self.file, full=full)

    def server_report(self) -> ServerReport | None:
        return None

    def certificates(self) -> Iterable[Certificate]:
        return ()

    def back_up(self, target: Path, progress: Callable[[float], None], *, replace: bool) -> None:
        from tether.storage.sqlite.backup import back_up

        back_up(self, target, progress, replace=replace)

    def restore(self, source: Path, progress: Callable[[float], None]) -> Path | None:
        from tether.storage.sqlite.backup import restore

        return restore(source, self, progress)

    @contextmanager
    def copy_connection(self) -> "Iterator[SqliteCopyConnection]":
        with connection_to(self.file) as connection:
            connection.pragma("temp_store", "FILE")  # sorted rows may be larger than the memory
            yield SqliteCopyConnection(str(self.file), connection)


class SqliteCopyConnection:
    """See `CopyConnection`."""

    def __init__(self, name: str, connection: apsw.Connection) -> None:
        self.name = name
        self._connection = connection

    def query(self, sql: str, *parameters: object) -> list[Values]:
        rows = self._connection.execute(sql, cast(tuple[Any, ...], parameters)).fetchall()
        return cast(list[Values], rows)

    def transaction(self) -> AbstractContextManager[object]:
        return self._connection

    def columns(self, table: str) -> list[str]:
        return [str(name) for _, name, *_ in self.query(f"PRAGMA table_info({table})")]

    def check_alone(self) -> None:
        pass  # `SqliteFile.only_server` locks the file

    def freeze(self) -> None:
        self.query("BEGIN")
        self.query("SELECT 1 FROM sqlite_master")

    def add(self, table: str, columns: Sequence[str], rows: Sequence[Values]) -> None:
        marks = ", ".join("?" for _ in columns)
        sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
        with self._connection:
            self._connection.executemany(sql, cast(Any, rows))

    def finish(self, epoch: Epoch) -> None:
        self.query(event_lists.REFILL)
        self.query(native(BEGIN_EPOCH), *epoch)


class SqliteEngine:
    """The embedded engine. A file has one server process; commands may open the file meanwhile."""

    dialect = SQLITE

    def __init__(self, path: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = connect(path)
        self._reader.execute(f"PRAGMA cache_size = -{READER_CACHE_KB}")
        self._reader.set_busy_timeout(0)  # the event loop must not wait; in WAL it never has to
        self._reading = False  # in a transaction, until this round of the event loop ends
        self._reading_since = 0.0  # `perf_counter` when the transaction began
        self._scanners = ThreadPoolExecutor(SCANS_AT_ONCE, "tether-scan")
        self._turns = Turns(SCANS_AT_ONCE, per_partner=1, max_waiting=sys.maxsize, patience_s=None)
        self._scan = threading.local()
        self._path = path
        self._writer = writer = SqliteWriter(path)
        self._guard = writer.guard
        self._trouble: str | None = None
        self._watch = self._loop.create_task(self._watch_file())
        self._copying: asyncio.Task[None] | None = None  # the log into the file
        # Writes go straight to the writer.
        self.write, self.write_all = writer.write, writer.write_all
        self.write_returning, self.list_events = writer.write_returning, writer.list_events
        self.erase_deleted, self.erase_text = writer.erase_deleted, writer.erase_text
        self.shrink = writer.shrink

    async def ping(self) -> None:
        self._check_file()
        await self.read(PING)

    async def read(self, sql: str, *parameters: object) -> list[Row]:
        if not self._reading:
            self._begin_reading()
        return self._fetch(self._reader, sql, parameters)

    async def look_up(self, sql: str, partner: int, key: str) -> Row | None:
        # Look-ups are not batched: to wait for others takes longer than to read a row.
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
        """Ends the transaction, so that the reads in the next round see new writes."""
        if self._reading:
            self._reading = False
            if self._reader.in_transaction:
                with suppress(apsw.Error):  # the error of a read that failed was raised before
                    self._reader.execute("COMMIT")

    async def scan(self, sql: str, partner: int, *parameters: object) -> list[Row]:
        all_parameters = (partner, *parameters)
        if (rows := self._short_scan(sql, all_parameters)) is not None:
            if perf_counter() - self._reading_since > SLICE_S:  # many short scans in a row
                await next_turn()
            return rows
        return await self._turns.run(partner, partial(self._scan_in_thread, sql, all_parameters))

    async def size(self) -> Size:
        file = self._path.resolve()
        beside = (file, file.with_name(file.name + "-wal"))
        used = sum(path.stat().st_size for path in beside if path.exists())
        return Size(used, shutil.disk_usage(file.parent).free, str(file.parent))

    def connections(self) -> dict[str, Connections]:
        return {}  # they do not count against the limit of any server

    async def close(self) -> None:
        self._watch.cancel()
        if self._copying is not None:
            await self._copying
        await self._writer.finish()
        self._scanners.shutdown()
        self._end_reading()
        if not self._guard.has_file:
            # Another file has this name now: do not write to it, and do not remove its log.
            for connection in (self._reader, self._writer.connection):
                connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self._reader.close()
        self._writer.close()

    async def _watch_file(self) -> None:
        while True:
            self._check_file()
            await asyncio.sleep(WATCH_S)
            if self._copying is None or self._copying.done():
                self._copying = self._loop.create_task(self._writer.copy_log())

    def _check_file(self) -> None:
        """Checks that the file is still the one that was opened; if not, refuses everything."""
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
        if self._guard.has_file:  # the content of the log can still be saved
            with suppress(apsw.Error):
                self._reader.execute("PRAGMA wal_checkpoint(FULL)").fetchall()

    def _fetch(
        self, connection: apsw.Connection, sql: str, parameters: tuple[object, ...]
    ) -> list[Row]:
        try:
            return list(connection.execute(native(sql), parameters))
        except apsw.Error as error:
            if isinstance(error, TEMPORARY_ERRORS) or self._guard.trouble():
                raise Unavailable from error
            raise

    def _short_scan(self, sql: str, parameters: tuple[object, ...]) -> list[Row] | None:
        """The rows if a short scan finds them, else None. Most scans are short.

        In a thread each row would wait for the interpreter lock: milliseconds while the event loop
        is busy.
        """
        if _READS_TEXTS in sql:
            return None
        if sum(len(value) for value in parameters if isinstance(value, str)) > SHORT_TEXT:
            return None
        reader = self._reader
        try:
            if not self._reading:
                self._begin_reading()
            reader.set_progress_handler(_stop_at_second_call(), SHORT_SCAN)
            try:
                return list(reader.execute(native(sql), parameters))
            finally:
                reader.set_progress_handler(None)
        except (apsw.Error, Unavailable):  # the scan in a thread raises it again
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


def _stop_at_second_call() -> Callable[[], bool]:
    """A progress handler that stops the statement at its second call. The first call may come at
    once, because SQLite continues the count of the statement's last run.
    """
    return partial(next, iter([False]), True)
