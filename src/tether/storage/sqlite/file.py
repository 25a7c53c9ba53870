"""The SQLite file: opens, creates, migrates and locks it, and recognises files of Tether."""

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
from tether.storage import migrate
from tether.storage.dialect import SQLITE
from tether.storage.log_positions import (
    BEGIN_EPOCH,
    READ_EPOCH,
    Epoch,
    EpochState,
    log_restored_copy,
    new_epoch,
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


def migrate_sqlite(path: Path) -> int:
    """Creates the file if it is missing, and migrates its schema; returns the number of steps.

    Raises SetupError if the file is not ours or was made by a newer version.
    """
    _make(path)
    check_served_by_this_name(path)
    connection = connect(path)
    try:
        check_ours(connection, path)
        is_new = not _tables(connection)
        if is_new:
            # Only for new files: in an existing file this has no effect until a VACUUM, and would
            # write to a file that may be refused below.
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        # A step may sort all events. A new file has none, and may be created on a system without a
        # folder for temporary files.
        connection.execute(f"PRAGMA temp_store = {'MEMORY' if is_new else 'FILE'}")
        connection.execute("BEGIN IMMEDIATE")
        tables = _tables(connection)
        migrate.check_whole(tables, str(path))
        if migrate.VERSION_TABLE not in tables:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(migrate.CREATE_VERSION_TABLE)
        missing = migrate.steps_after(SQLITE, _version(connection), str(path))
        for step in missing:
            connection.execute(step.script)
            connection.execute(native(migrate.ADD_VERSION), (step.version,))
        if copied := is_copy(connection):
            begin_epoch(connection)
        connection.execute("COMMIT")
        if copied:
            log_restored_copy()
        return len(missing)
    except apsw.Error as error:
        raise SetupError(f"{path} cannot be used: {error}") from error
    finally:
        connection.close()


def _make(path: Path) -> None:
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


@contextmanager
def only_server(path: Path) -> Iterator[None]:
    """Locks the file against other servers. Raises SetupError if another process serves it.

    There are two locks: one on a file beside it, which names the process, and one on a byte of the
    file itself, which also holds under another name of the file. The kernel releases both when this
    process ends. The file stays open meanwhile, because to close it would release SQLite's locks.
    """
    beside = _beside(path)
    try:
        lock = os.open(beside, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise SetupError(f"{beside} cannot be made or opened: {error.strerror}.") from error
    try:
        _lock(lock, path)
        with path.open("rb+") if path.exists() else nullcontext() as file:
            if file is not None and not _lock_byte(file.fileno()):
                raise _served_by_another_name(path)
            yield
    finally:
        os.close(lock)


def check_served_by_this_name(path: Path) -> None:
    """Raises SetupError if a server has opened the file by another name (a hard link).

    SQLite names its log after the file. Under another name we would not see the server's last
    writes, and the server would overwrite ours.
    """
    if not path.exists() or path.stat().st_nlink < 2:
        return
    with path.open("rb+") as file:
        if _lock_byte(file.fileno()):
            return
    if not is_served(path):
        raise _served_by_another_name(path)


def is_served(path: Path) -> bool:
    """Whether a process serves the file by this name."""
    try:
        with _beside(path).open("rb+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _served_by_another_name(path: Path) -> SetupError:
    return SetupError(
        f"{path} is served by another process already, by another name of the file (a hard link), "
        f"or by this one if {_beside(path).name} was removed."
    )


def _beside(path: Path) -> Path:
    path = path.resolve()  # as SQLite does
    return path.with_name(path.name + "-server")


def _lock_byte(file: int) -> bool:
    """Locks the byte until this descriptor is closed; returns False if another process has it."""
    if not hasattr(fcntl, "F_OFD_SETLK"):
        return True  # not Linux: only the file beside it is locked
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _BYTE)
    except OSError:
        return False
    return True


def _lock(lock: int, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(lock, 20).decode() or "?"
        raise SetupError(
            f"{path} is served by process {holder} already, and a SQLite file has one server: "
            "stop that one, or use PostgreSQL."
        ) from None
    os.truncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())


@contextmanager
def _using(path: Path) -> Iterator[apsw.Connection]:
    """A connection to the file, which is closed at the end. Raises SetupError."""
    connection = connect(path)
    try:
        yield connection
    except apsw.Error as error:
        raise SetupError(f"{path} cannot be used: {error}") from error
    finally:
        connection.close()


def pending_sqlite(path: Path) -> int:
    """How many steps the schema of the file still needs. Raises SetupError."""
    check_served_by_this_name(path)
    with _using(path) as connection:
        check_ours(connection, path)
        migrate.check_whole(_tables(connection), str(path))
        return len(migrate.steps_after(SQLITE, _version(connection), str(path)))


def epoch_of_sqlite(path: Path) -> EpochState:
    """The epoch that is stored in the file. Raises SetupError."""
    with _using(path) as connection:
        ((id, began_ms),) = connection.execute(READ_EPOCH).fetchall()
        return EpochState(Epoch(str(id), int(str(began_ms))), ends=is_copy(connection))


def new_epoch_of_sqlite(path: Path) -> None:
    """Begins a new epoch in the file. Raises SetupError."""
    with _using(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        begin_epoch(connection)
        connection.execute("COMMIT")


def is_copy(connection: apsw.Connection) -> bool:
    """Whether the file is a backup: then a new epoch begins when a server opens it."""
    return connection.execute("PRAGMA user_version").fetchall() == [(COPY,)]


def begin_epoch(connection: apsw.Connection) -> None:
    """Begins a new epoch in the open transaction. The file no longer counts as a copy."""
    connection.execute(native(BEGIN_EPOCH), new_epoch())
    connection.execute("PRAGMA user_version = 0")


def check_ours(connection: apsw.Connection, path: Path) -> None:
    """Raises SetupError if the file is not a database of Tether."""
    try:
        tables = _tables(connection)
        (application,) = connection.execute("PRAGMA application_id").fetchall()[0]
    except apsw.NotADBError:
        raise SetupError(f"{path} is not a SQLite database; nothing was changed.") from None
    if application not in (0, APPLICATION_ID) or (tables and application != APPLICATION_ID):
        raise SetupError(
            f"{path} is a SQLite database of another program; nothing was changed. "
            "Name another file."
        )


def _tables(connection: apsw.Connection) -> set[str]:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return {str(name) for (name,) in rows}


def _version(connection: apsw.Connection) -> int:
    if migrate.VERSION_TABLE not in _tables(connection):
        return 0
    (version,) = next(iter(connection.execute(migrate.READ_VERSION)))
    assert isinstance(version, int)
    return version


def is_shortened(path: Path) -> bool:
    """Whether the file is shorter than its header says. It must be closed, and have no log."""
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES or header[24:28] != header[92:96]:
        return False  # empty, or written by a program that does not store the size
    return path.stat().st_size < bytes_in(header)


def bytes_in(header: bytes) -> int:
    """The size of a file in bytes, as its header says."""
    page, count = struct.unpack(">H", header[16:18])[0], struct.unpack(">I", header[28:32])[0]
    return int((65_536 if page == 1 else page) * count)
