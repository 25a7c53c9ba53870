"""The file of an outbox: waiting events, refused events, the last timestamp of each vehicle.

It has a rollback journal, not a write-ahead log, as Python's SQLite may be older than 3.51.3: those
can damage a database that several connections write with a write-ahead log. With TRUNCATE and FULL
a commit is on the disk when it returns.

A forked child opens its own connection: SQLite must not even close one of another process.
"""

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from logging import getLogger
from os import PathLike, fspath
from os.path import abspath, dirname
from shutil import disk_usage

import msgspec

from tether.client.errors import OutboxError
from tether.client.exchange import DECODE_ERRORS
from tether.client.forks import leave_to_parent, reset_after_fork
from tether.client.models import Event
from tether.client.stamps import next_stamp
from tether.domain import models
from tether.domain.models import to_json
from tether.domain.timestamps import now_ms

log = getLogger("tether.client.outbox")

VERSION = 1
BUSY_S = 30.0
RESERVED_BYTES = 1024 * 1024
"""Disk space that `put` leaves free. Deleting a thousand delivered events needs a journal of that
size: without the space, an outbox that has filled the disk could never be emptied again."""

_SCHEMA = (
    # The number is the order of delivery. It is never used again.
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
_NONE = -1
DAMAGED = 0  # as status
DAMAGE = "It holds no event."
_LAST_MS = 253_402_300_800_000  # the year 10000
_SET_ASIDE = """
INSERT OR REPLACE INTO refused SELECT number, coalesce(body, x''), ?, ?, ? FROM waiting
WHERE number = ?
"""
_SET_ASIDE_ROWS = """
SELECT number, CAST(body AS BLOB), CAST(status AS INTEGER), CAST(message AS BLOB), at_ms
FROM refused ORDER BY number
"""
_STAMP = """
INSERT INTO stamps VALUES (?, ?) ON CONFLICT (vehicle_id) DO UPDATE SET at_ms = excluded.at_ms
"""


@dataclass(frozen=True, slots=True)
class WaitingEvent:
    """An event that waits for delivery."""

    number: int
    event: Event


@dataclass(frozen=True, slots=True)
class DamagedEvent:
    """A row of the file that holds no readable event, as it was found. `number` names it."""

    number: int
    content: bytes
    found_at: datetime


@dataclass(frozen=True, slots=True)
class RefusedEvent:
    """An event that the server refused for good, and why. `number` names it in the outbox."""

    number: int
    event: Event
    status: int
    message: str
    refused_at: datetime


class OutboxFile:
    """One connection to the file; may be used by many threads. Raises OutboxError."""

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = fspath(path)
        self._folder = dirname(abspath(self._path))
        self._mutex = threading.RLock()
        self._is_closed = False
        with self._errors():
            self._connect()
            try:
                self._lock_fd = _open(f"{self._path}-turn")
            except BaseException:
                self._db.close()
                raise
        reset_after_fork(self)

    def before_fork(self) -> None:
        """No other thread uses the file while the process forks."""
        self._mutex.acquire()

    def after_fork_in_parent(self) -> None:
        """Other threads may use it again."""
        self._mutex.release()

    def after_fork_in_child(self) -> None:
        """The child connects again. The delivery lock stays with the parent."""
        leave_to_parent(self._db)
        self._is_open = False
        self._mutex = threading.RLock()
        if self._is_closed or self._lock_fd == _NONE:
            return
        os.close(self._lock_fd)
        self._lock_fd = _NONE

    def close(self) -> None:
        with self._mutex:
            if not self._is_closed:
                self._is_closed = True
                if self._lock_fd != _NONE:
                    os.close(self._lock_fd)
                if self._is_open:
                    self._db.close()

    def put(self, event: models.Event) -> models.Event:
        """Stores an event, with a timestamp, and returns it when it is on the disk."""
        with self._transaction() as db:
            self._check_disk_space(db)
            if event.timestamp is None:
                vehicle = event.vehicle_id
                last = db.execute("SELECT at_ms FROM stamps WHERE vehicle_id = ?", (vehicle,))
                stamp = next_stamp(now_ms(), next(last, (0,))[0])
                db.execute(_STAMP, (vehicle, stamp))
                event = event.stamped(stamp)
            db.execute("INSERT INTO waiting (body) VALUES (?)", (to_json(event).decode(),))
        return event

    def _check_disk_space(self, db: sqlite3.Connection) -> None:
        """Raises OutboxError if the file would have to grow on a disk that is nearly full."""
        free_pages = db.execute("PRAGMA freelist_count").fetchone()[0]
        if not free_pages and disk_usage(self._folder).free < RESERVED_BYTES:
            raise OutboxError(f"The outbox {self._path} cannot take more: the disk is full.")

    def oldest(self, most: int, most_bytes: int) -> list[WaitingEvent]:
        """The oldest waiting events: at least one, at most so many, within so many bytes."""
        with self._reading() as db:
            query = "SELECT number, CAST(body AS BLOB) FROM waiting ORDER BY number LIMIT ?"
            rows = db.execute(query, (most,)).fetchall()
        sizes = accumulate(len(body or b"") + 1 for _, body in rows)  # with its line end
        fit = sum(size <= most_bytes for size in sizes)
        events = [(number, _event(body)) for number, body in rows[: max(1, fit)]]
        self._set_aside([number for number, event in events if event is None])
        return [WaitingEvent(number, event) for number, event in events if event is not None]

    def _set_aside(self, damaged: Sequence[int]) -> None:
        """Sets rows without a readable event aside, as later events wait behind them."""
        if not damaged:
            return
        with self._transaction() as db:
            for number in damaged:
                db.execute(_SET_ASIDE, (DAMAGED, DAMAGE, now_ms(), number))
                db.execute("DELETE FROM waiting WHERE number = ?", (number,))
        log.error("%d rows of %s hold no event: they are set aside.", len(damaged), self._path)

    def settle(
        self, delivered: Sequence[int], refused: Sequence[tuple[WaitingEvent, int, str]]
    ) -> None:
        """Deletes delivered events and sets refused ones aside, in one transaction."""
        gone = [*delivered, *(waiting.number for waiting, _, _ in refused)]
        if not gone:
            return
        with self._transaction() as db:
            db.executemany(
                "INSERT OR REPLACE INTO refused VALUES (?, ?, ?, ?, ?)",
                [
                    (waiting.number, to_json(waiting.event).decode(), status, message, now_ms())
                    for waiting, status, message in refused
                ],
            )
            db.executemany("DELETE FROM waiting WHERE number = ?", [(number,) for number in gone])

    def depth(self) -> int:
        with self._reading() as db:
            return int(db.execute("SELECT count(*) FROM waiting").fetchone()[0])

    def last(self) -> int:
        """The highest number of a waiting event; 0 without one."""
        with self._reading() as db:
            found = db.execute("SELECT max(number) FROM waiting").fetchone()[0]
            return int(found or 0)

    def waits_up_to(self, number: int) -> bool:
        """Whether an event up to this number still waits."""
        with self._reading() as db:
            row = db.execute("SELECT 1 FROM waiting WHERE number <= ? LIMIT 1", (number,))
            return row.fetchone() is not None

    def refused(self) -> list[RefusedEvent]:
        """The finally refused events, in order."""
        return [
            RefusedEvent(number, event, status, message, at)
            for number, event, _, status, message, at in self._set_aside_rows()
            if event is not None
        ]

    def damaged(self) -> list[DamagedEvent]:
        """The damaged rows, in order."""
        return [
            DamagedEvent(number, body, at)
            for number, event, body, _, _, at in self._set_aside_rows()
            if event is None
        ]

    def _set_aside_rows(self) -> Iterator[tuple[int, Event | None, bytes, int, str, datetime]]:
        with self._reading() as db:
            rows = db.execute(_SET_ASIDE_ROWS).fetchall()
        for number, body, status, message, at_ms in rows:
            text = (message or b"").decode(errors="replace")
            yield number, _event(body), body or b"", status, text, _moment(at_ms)

    def requeue(self, number: int) -> bool:
        """Puts a refused event behind all waiting ones. Whether there was one."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO waiting (body) SELECT body FROM refused WHERE number = ?", (number,)
            )
            return db.execute("DELETE FROM refused WHERE number = ?", (number,)).rowcount > 0

    def delete(self, number: int) -> bool:
        """Deletes a refused event. Whether there was one."""
        with self._transaction() as db:
            return db.execute("DELETE FROM refused WHERE number = ?", (number,)).rowcount > 0

    @contextmanager
    def delivery_lock(self) -> Iterator[bool]:
        """Takes the lock for delivery, if no thread or process has it. Whether it is ours.

        It is a `flock` on a file beside this one: it ends with its process, and a forked child does
        not have it.
        """
        with self._errors():
            if self._lock_fd == _NONE:
                self._lock_fd = _open(f"{self._path}-turn")
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
        # O_EXCL: closing an existing file would drop the locks that SQLite has in this process.
        with suppress(OSError):  # SQLite reports it below
            os.close(_open(self._path, os.O_EXCL))
        self._db = sqlite3.connect(
            self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        self._is_open = True
        try:
            self._prepare(self._db)
        except BaseException:
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
            if not self._is_open and not self._is_closed:
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
    """Opens a file. A new one, and SQLite's files beside it, only their owner can read."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | how, 0o600)


def _event(body: bytes | None) -> Event | None:
    """The event, if it is readable and has a timestamp: only then it can be sent twice."""
    try:
        event = msgspec.json.decode(body or b"", type=Event)
    except DECODE_ERRORS:
        return None
    return event if event.timestamp else None


def _moment(at_ms: object) -> datetime:
    seconds = at_ms / 1000 if isinstance(at_ms, int) and 0 <= at_ms < _LAST_MS else 0
    return datetime.fromtimestamp(seconds, UTC)
