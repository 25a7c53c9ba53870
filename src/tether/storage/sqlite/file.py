"""A SQLite file: opens, creates, migrates and locks it, and checks that it is a file of Tether."""

import fcntl
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path

import apsw

from tether.domain.errors import SetupError
from tether.storage.dialect import SQLITE
from tether.storage.log_positions import (
    BEGIN_EPOCH,
    READ_EPOCH,
    Epoch,
    EpochState,
    log_restored_copy,
    new_epoch,
)
from tether.storage.migrate import (
    ADD_VERSION,
    CREATE_VERSION_TABLE,
    READ_VERSION,
    VERSION_TABLE,
    Step,
    missing_steps,
)

APPLICATION_ID = 0x54455448  # "TETH": marks the files of Tether
COPY = 0x434F5059  # "COPY", as the file's user_version: a backup that no server has opened yet
FILE_BEGINS = b"SQLite format 3\0"
HEADER_BYTES = 100
# Before 3.51.3, two connections that write at once can corrupt a WAL database.
OLDEST_SAFE = (3, 51, 3)
BUSY_TIMEOUT_MS = 5_000
_PRAGMAS = """
PRAGMA synchronous = FULL;
PRAGMA cache_size = -2000;  -- kB: other pages are in the page cache of the system
PRAGMA temp_store = MEMORY;
PRAGMA journal_size_limit = 67108864;
PRAGMA wal_autocheckpoint = 16000;  -- 64 MiB: pages that change often are copied back less often
PRAGMA schema_version;  -- reads the file: from now on nobody can lock it against readers
"""
# The kernel's struct flock: an exclusive lock on one byte far behind the bytes that SQLite locks.
_BYTE = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 1 << 62, 1, 0)


class FileTrouble(OSError):
    """The file is not the one that was opened, so its content is unknown."""


def check_version() -> None:
    """Raises SetupError if this version of SQLite can damage our files."""
    if tuple(map(int, apsw.sqlite_lib_version().split("."))) < OLDEST_SAFE:
        raise SetupError(f"SQLite {apsw.sqlite_lib_version()} is too old; install a newer apsw.")


def connect(path: Path) -> apsw.Connection:
    """A connection with the settings of all our connections. Raises SetupError."""
    check_version()
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        # Without this, SQLite plans a statement again whenever its parameters change, which takes
        # ten times as long as to run it.
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        connection.execute(_PRAGMAS).fetchall()  # all of them: also those after a row
    except apsw.NotADBError:
        raise SetupError(f"{path} is not a SQLite database; nothing was changed.") from None
    except apsw.Error as error:
        raise SetupError(f"{path} cannot be opened as a SQLite database: {error}") from None
    return connection


@lru_cache(maxsize=256)
def native(sql: str) -> str:
    """The statement with SQLite's numbered parameters: `$2` is a name in SQLite, `?2` a number."""
    return re.sub(r"\$([0-9]+)", r"?\1", sql)


@contextmanager
def connection_to(path: Path) -> Iterator[apsw.Connection]:
    """A connection until the end of the block. Raises SetupError for all its errors."""
    connection = connect(path)
    try:
        yield connection
    except apsw.Error as error:
        raise SetupError(f"{path} cannot be used: {error}") from error
    finally:
        connection.close()


class SqliteFile:
    """A whole database file: creates, migrates and locks it. Every method raises SetupError."""

    def __init__(self, path: Path) -> None:
        self.file = path

    def exists(self) -> bool:
        if self.file.is_dir():
            inside = self.file / "tether.db"
            raise SetupError(f"{self.file} is a folder: name a file in it, such as {inside}.")
        return self.file.exists()

    def migrate(self) -> int:
        """Creates the file if it is missing, and migrates its schema; returns the number of steps.

        Refuses a file that is not ours or that a newer version made.
        """
        _create(self.file)
        self.check_served_by_this_name()
        with connection_to(self.file) as connection:
            self.check_ours(connection)
            is_new = not _tables(connection)
            if is_new:
                # Only for new files: in an existing file this has no effect until a VACUUM, and
                # would write to a file that may be refused below.
                connection.pragma("auto_vacuum", "INCREMENTAL")
            connection.pragma("journal_mode", "WAL")
            # A step may sort all events. A new file has none, and may be created on a system
            # without a folder for temporary files.
            connection.pragma("temp_store", "MEMORY" if is_new else "FILE")
            connection.execute("BEGIN IMMEDIATE")
            missing = self._missing_steps(connection)
            if VERSION_TABLE not in _tables(connection):
                connection.pragma("application_id", APPLICATION_ID)
                connection.execute(CREATE_VERSION_TABLE)
            for step in missing:
                connection.execute(step.script)
                connection.execute(native(ADD_VERSION), (step.version,))
            if copied := _is_copy(connection):
                _begin_epoch(connection)
            connection.execute("COMMIT")
        if copied:
            log_restored_copy()
        return len(missing)

    def pending_steps(self) -> int:
        """How many steps the schema still needs."""
        self.check_served_by_this_name()
        with connection_to(self.file) as connection:
            self.check_ours(connection)
            return len(self._missing_steps(connection))

    def _missing_steps(self, connection: apsw.Connection) -> list[Step]:
        tables, version = _tables(connection), 0
        if VERSION_TABLE in tables:
            version = connection.execute(READ_VERSION).get
        return missing_steps(SQLITE, tables, version, str(self.file))

    def check_ours(self, connection: apsw.Connection) -> None:
        """Raises SetupError if the file is not a database of Tether."""
        application = connection.pragma("application_id")
        if application != APPLICATION_ID and (application != 0 or _tables(connection)):
            raise SetupError(
                f"{self.file} is a SQLite database of another program; nothing was changed. "
                "Name another file."
            )

    def epoch(self) -> EpochState:
        with connection_to(self.file) as connection:
            epoch = Epoch(*connection.execute(READ_EPOCH).get)
            return EpochState(epoch, ends=_is_copy(connection))

    def begin_epoch(self) -> None:
        with connection_to(self.file) as connection, connection:
            _begin_epoch(connection)

    @contextmanager
    def only_server(self) -> Iterator[None]:
        """Locks the file against other servers. Refuses if another process serves it.

        There are two locks: one on a file beside it, which names the process, and one on a byte of
        the file itself, which also holds under another name of the file. The kernel releases both
        when this process ends. The file stays open meanwhile, because to close it would release
        SQLite's locks.
        """
        path = self._lock_path
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise SetupError(f"{path} cannot be made or opened: {error.strerror}.") from error
        try:
            self._lock(lock)
            with self.file.open("rb+") if self.file.exists() else nullcontext() as file:
                if file is not None and not _lock_byte(file.fileno()):
                    raise self._served_by_another_name()
                yield
        finally:
            os.close(lock)

    def check_served_by_this_name(self) -> None:
        """Raises SetupError if a server has opened the file by another name (a hard link).

        SQLite names its log after the file. Under another name we would not see the server's last
        writes, and the server would overwrite ours.
        """
        if not self.file.exists() or self.file.stat().st_nlink < 2:
            return
        with self.file.open("rb+") as file:
            if _lock_byte(file.fileno()):
                return
        if not self.is_served():
            raise self._served_by_another_name()

    def is_served(self) -> bool:
        """Whether a process serves the file by this name."""
        try:
            with self._lock_path.open("rb+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    @property
    def _lock_path(self) -> Path:
        path = self.file.resolve()  # as SQLite does
        return path.with_name(path.name + "-server")

    def _lock(self, lock: int) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(lock, 20).decode() or "?"
            raise SetupError(
                f"{self.file} is served by process {holder} already, and a SQLite file has one "
                "server: stop that one, or use PostgreSQL."
            ) from None
        os.truncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())

    def _served_by_another_name(self) -> SetupError:
        return SetupError(
            f"{self.file} is served by another process already, by another name of the file (a "
            f"hard link), or by this one if {self._lock_path.name} was removed."
        )


def _create(path: Path) -> None:
    """Creates the file if it is missing. Only its owner can read it, and SQLite's other files."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        beginning = os.read(file, len(FILE_BEGINS))
        os.close(file)
    except OSError as error:
        raise SetupError(f"{path} cannot be made or opened: {error.strerror}.") from error
    log = path.with_name(path.name + "-wal")
    has_log = log.exists() and log.stat().st_size > 0
    if not beginning and has_log:  # SQLite would remove it
        raise SetupError(
            f"{path} is empty or gone, but {log} is there and has what was written last: put both "
            "back, or move the log away."
        )
    if beginning == FILE_BEGINS and not has_log and is_shortened(path):
        raise SetupError(f"{path} is damaged: it was truncated. Restore the last backup.")
    # SQLite takes a file shorter than a page for an empty one, and would write over it.
    if beginning.strip(b"\0") and beginning != FILE_BEGINS:
        raise SetupError(f"{path} is not a SQLite database; nothing was changed.")


def _lock_byte(file: int) -> bool:
    """Locks the byte until this descriptor is closed; returns False if another process has it."""
    if not hasattr(fcntl, "F_OFD_SETLK"):
        return True  # not Linux: only the file beside it is locked
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _BYTE)
    except OSError:
        return False
    return True


def _is_copy(connection: apsw.Connection) -> bool:
    """Whether the file is a backup that no server has opened yet."""
    return bool(connection.pragma("user_version") == COPY)


def _begin_epoch(connection: apsw.Connection) -> None:
    """Begins a new epoch in the open transaction. The file no longer counts as a copy."""
    connection.execute(native(BEGIN_EPOCH), new_epoch())
    connection.pragma("user_version", 0)


def _tables(connection: apsw.Connection) -> set[str]:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    return {str(name) for (name,) in rows}


def is_shortened(path: Path) -> bool:
    """Whether the file is shorter than its header says. It must be closed, and have no log."""
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES or header[24:28] != header[92:96]:
        return False  # empty, or written by a program that does not store the size
    return path.stat().st_size < bytes_in(header)


def bytes_in(header: bytes) -> int:
    """The size of a file in bytes, as its header says."""
    (pages,) = struct.unpack(">I", header[28:32])
    return int(page_bytes_in(header) * pages)


def page_bytes_in(header: bytes) -> int:
    """The size of a page in bytes, as the file's header says."""
    (size,) = struct.unpack(">H", header[16:18])
    return 65_536 if size == 1 else int(size)
