"""The file of an outbox: waiting events, refused events, the last timestamp of each vehicle.

It has a rollback journal, not a write-ahead log. Python's SQLite may be older than 3.51.3, and such
versions can damage a database with a write-ahead log that several connections write. With TRUNCATE
and FULL a commit is on the disk when it returns.

A forked child opens its own connection. It must not even close the connection of its parent.
"""

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from logging import getLogger
from os import PathLike, fspath
from os.path import abspath, dirname
from shutil import disk_usage

import msgspec

from tether.client.errors import OutboxError
from tether.client.events import next_timestamp
from tether.client.exchange import DECODE_ERRORS
from tether.client.forks import leave_to_parent, reset_after_fork
from tether.client.models import Event
from tether.domain import models
from tether.domain.models import to_json
from tether.domain.timestamps import moment_of, now_ms

log = getLogger("tether.client.outbox")

VERSION = 1
BUSY_S = 30.0
RESERVED_BYTES = 1024 * 1024
"""Disk space that `put` leaves free. SQLite needs a journal of that size to delete 1000 events.
Without the space, an outbox that has filled the disk could never be emptied."""

_SCHEMA = (
    # Numbers are the order of delivery. They are never used twice.
    "CREATE TABLE waiting (number INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL)",
    """
    CREATE TABLE refused (
        number INTEGER PRIMARY KEY,
        body TEXT NOT NULL,
        status INTEGER NOT NULL,
        message TEXT NOT NULL,
        at_ms INTEGER NOT NULL
    )
    """,
    "CREATE TABLE stamps (vehicle_id TEXT PRIMARY KEY, at_ms INTEGER NOT NULL) WITHOUT ROWID",
    f"PRAGMA user_version = {VERSION}",
)
DAMAGED_STATUS = 0
DAMAGED_MESSAGE = "It holds no event."
_LAST_MS = 253_402_300_800_000  # the year 10000
_SET_ASIDE = """
INSERT OR REPLACE INTO refused SELECT number, coalesce(body, x''), ?, ?, ? FROM waiting
WHERE number = ?
"""
_SELECT_SET_ASIDE = """
SELECT number, CAST(body AS BLOB), CAST(status AS INTEGER), CAST(message AS BLOB), at_ms
FROM refused ORDER BY number
"""
_SAVE_TIMESTAMP = """
INSERT INTO stamps VALUES (?, ?) ON CONFLICT (vehicle_id) DO UPDATE SET at_ms = excluded.at_ms
"""


@dataclass(frozen=True, slots=True)
class WaitingEvent:
    """An event that waits for delivery."""

    number: int
    event: Event


@dataclass(frozen=True, slots=True)
class DamagedEvent:
    """A row of the file without a readable event. `content` is its body, `number` its id."""

    number: int
    content: bytes
    found_at: datetime


@dataclass(frozen=True, slots=True)
class RefusedEvent:
    """An event that the server finally refused, and why. `number` is its id in the outbox."""

    number: int
    event: Event
    status: int
    message: str
    refused_at: datetime


class OutboxFile:
    """A connection to the file. Many threads may use it. Raises OutboxError."""

    _db: sqlite3.Connection
    _lock_fd: int

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = fspath(path)
        self._folder = dirname(abspath(self._path))
        self._mutex = threading.RLock()
        self._is_open = self._is_closed = False
        with self._errors():
            self._connect()
        reset_after_fork(self)

    def before_fork(self) -> None:
        """No other thread uses the file while the process forks."""
        self._mutex.acquire()

    def after_fork_in_parent(self) -> None:
        """Other threads may use it again."""
        self._mutex.release()

    def after_fork_in_child(self) -> None:
        """The child connects again. The parent keeps its connection and the delivery lock."""
        self._mutex = threading.RLock()
        if self._is_open:
            leave_to_parent(self._db)
            os.close(self._lock_fd)
            self._is_open = False

    def close(self) -> None:
        with self._mutex:
            if self._is_open:
                self._db.close()
                os.close(self._lock_fd)
                self._is_open = False
            self._is_closed = True

    def put(self, event: models.Event) -> models.Event:
        """Stores an event, with a timestamp. Returns it when it is on the disk."""
        with self._transaction() as db:
            self._check_disk_space(db)
            if event.timestamp is None:
                vehicle = event.vehicle_id
                last = db.execute("SELECT at_ms FROM stamps WHERE vehicle_id = ?", (vehicle,))
                timestamp = next_timestamp(now_ms(), next(last, (0,))[0])
                db.execute(_SAVE_TIMESTAMP, (vehicle, timestamp))
                event = event.stamped(timestamp)
            db.execute("INSERT INTO waiting (body) VALUES (?)", (to_json(event).decode(),))
        return event

    def _check_disk_space(self, db: sqlite3.Connection) -> None:
        """Raises OutboxError if the file would have to grow on a disk that is nearly full."""
        free_pages = db.execute("PRAGMA freelist_count").fetchone()[0]
        if not free_pages and disk_usage(self._folder).free < RESERVED_BYTES:
            raise OutboxError(f"The outbox {self._path} cannot take more: the disk is full.")

    def oldest(self, limit: int, max_bytes: int) -> list[WaitingEvent]:
        """The oldest waiting events: at most `limit`, and at most `max_bytes`, but at least one."""
        with self._reading() as db:
            query = "SELECT number, CAST(body AS BLOB) FROM waiting ORDER BY number LIMIT ?"
            rows = db.execute(query, (limit,)).fetchall()
        sizes = accumulate(len(body or b"") + 1 for _, body in rows)  # with its line end
        fit = sum(size <= max_bytes for size in sizes)
        events = [(number, _event(body)) for number, body in rows[: max(1, fit)]]
        damaged = [
            (number, DAMAGED_STATUS, DAMAGED_MESSAGE) for number, event in events if event is None
        ]
        if damaged:
            self.settle([], damaged)  # later events wait behind them
            log.error("%d rows of %s hold no event: they are set aside.", len(damaged), self._path)
        return [WaitingEvent(number, event) for number, event in events if event is not None]

    def settle(self, delivered: Sequence[int], refused: Sequence[tuple[int, int, str]]) -> None:
        """Deletes delivered events and sets refused ones aside, in one transaction.

        A refused event is given as its number, the status and the message.
        """
        numbers = [*delivered, *(number for number, _, _ in refused)]
        if not numbers:
            return
        with self._transaction() as db:
            for number, status, message in refused:
                db.execute(_SET_ASIDE, (status, message, now_ms(), number))
            db.executemany("DELETE FROM waiting WHERE number = ?", [(one,) for one in numbers])

    def depth(self) -> int:
        """How many events wait."""
        return self._count("SELECT count(*) FROM waiting")

    def last(self) -> int:
        """The highest number of a waiting event; 0 without one."""
        return self._count("SELECT coalesce(max(number), 0) FROM waiting")

    def waits_up_to(self, number: int) -> bool:
        """Whether an event up to this number still waits."""
        return self._count("SELECT EXISTS (SELECT 1 FROM waiting WHERE number <= ?)", number) > 0

    def _count(self, query: str, *values: int) -> int:
        with self._reading() as db:
            return int(db.execute(query, values).fetchone()[0])

    def set_aside(self) -> Iterator[RefusedEvent | DamagedEvent]:
        """The finally refused events and the damaged rows, in order."""
        with self._reading() as db:
            rows = db.execute(_SELECT_SET_ASIDE).fetchall()
        for number, body, status, message, at_ms in rows:
            event, at = _event(body), _moment(at_ms)
            if event is None:
                yield DamagedEvent(number, body or b"", at)
            else:
                text = (message or b"").decode(errors="replace")
                yield RefusedEvent(number, event, status, text, at)

    def requeue(self, number: int) -> bool:
        """Puts a refused event behind all waiting ones. Returns whether it existed."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO waiting (body) SELECT body FROM refused WHERE number = ?", (number,)
            )
            return db.execute("DELETE FROM refused WHERE number = ?", (number,)).rowcount > 0

    def delete(self, number: int) -> bool:
        """Deletes a refused event or a damaged row. Returns whether it existed."""
        with self._transaction() as db:
            return db.execute("DELETE FROM refused WHERE number = ?", (number,)).rowcount > 0

    @contextmanager
    def delivery_lock(self) -> Iterator[bool]:
        """Takes the lock for delivery, if no thread or process has it. Yields whether it was taken.

        It is a `flock` on a second file. It ends with its process, and a forked child does not have
        it.
        """
        with self._reading():
            lock_fd = self._lock_fd
            try:
                fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                acquired = False
            else:
                acquired = True
        try:
            yield acquired
        finally:
            if acquired:
                fcntl.flock(lock_fd, fcntl.LOCK_UN)

    def _connect(self) -> None:
        if self._is_closed:
            raise sqlite3.ProgrammingError("Cannot operate on a closed database.")
        # O_EXCL: to close an existing file would drop the locks that SQLite has in this process.
        with suppress(OSError):  # SQLite raises it again below
            os.close(_open(self._path, os.O_EXCL))
        self._db = sqlite3.connect(
            self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        self._is_open = True
        try:
            self._prepare(self._db)
            self._lock_fd = _open(f"{self._path}-turn")
        except BaseException:
            self._is_open = False
            self._db.close()
            raise

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode = TRUNCATE")
        db.execute("PRAGMA synchronous = FULL")
        with self._transaction():
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise OutboxError(f"The outbox {self._path} was made by a newer version of Tether.")
            if version == VERSION:
                return
            if db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
                raise OutboxError(f"The file {self._path} is a database, but no outbox.")
            for statement in _SCHEMA:
                db.execute(statement)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._mutex, self._errors():
            if not self._is_open:
                self._connect()
            yield self._db

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise OutboxError(
                f"The outbox {self._path} cannot be used: {str(error).rstrip('.')}."
            ) from error


def _open(path: str, how: int = 0) -> int:
    """Opens a file. Only the owner can read a new file, and the files of SQLite beside it."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | how, 0o600)


def _event(body: bytes | None) -> Event | None:
    """The event, if it is readable and has a timestamp. Without one it must not be sent twice."""
    try:
        event = msgspec.json.decode(body or b"", type=Event)
    except DECODE_ERRORS:
        return None
    return event if event.timestamp else None


def _moment(at_ms: object) -> datetime:
    return moment_of(at_ms if isinstance(at_ms, int) and 0 <= at_ms < _LAST_MS else 0)
