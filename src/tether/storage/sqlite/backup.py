"""Backups of a SQLite file: makes them while a server runs, restores them, and checks files."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import apsw

from tether.domain.errors import SetupError
from tether.storage import migrate
from tether.storage.dialect import SQLITE
from tether.storage.sqlite.file import COPY, SqliteFile, connect, connection_to

PAGES_AT_ONCE = 500
MAX_DAMAGES = 10
BUSY_MS = 1_000  # how long a restore waits for a command that reads the database
_FOLDER_TRIES = 10


def back_up(
    database: SqliteFile, target: Path, progress: Callable[[float], None], *, replace: bool
) -> None:
    """Makes a consistent copy of the file while others read and write it, and checks the copy.

    Calls `progress` with the copied share, from 0 to 1. Only the owner can read `target`. It
    appears when the copy is complete and on disk. An existing file is replaced only if `replace`.
    Raises SetupError.
    """
    path = database.file
    _check_target(path, target, replace)
    database.check_served_by_this_name()
    with connection_to(path) as source:
        try:
            database.check_ours(source)
            with temporary_folder(target.parent, ".tether-backup-") as folder:
                copy = folder / target.name
                _copy(source, copy, progress)
                if damages := damages_in(copy):
                    raise SetupError(f"The backup failed: {path} is damaged ({damages[0]}).")
                _put(copy, target)
        except OSError as error:
            reason = error.strerror or error
            raise SetupError(f"The backup to {target} failed: {reason}.") from error
        except apsw.FullError as error:  # SQLite's own message is "not an error" here
            raise SetupError(f"The backup to {target} failed: the disk is full.") from error
        except apsw.Error as error:
            raise SetupError(f"The backup to {target} failed: {error}.") from error


def _check_target(path: Path, target: Path, replace: bool) -> None:
    if target.is_dir():
        raise SetupError(f"{target} is a folder: name a file in it.")
    if not target.parent.is_dir():
        raise SetupError(f"There is no folder {target.parent} for the backup.")
    if target.exists() and path.exists() and target.samefile(path):
        raise SetupError(f"{target} is the database itself: name another file.")
    real = path.resolve()  # SQLite names the files beside it after the real path
    beside = [real.with_name(real.name + end) for end in ("-wal", "-shm", "-journal", "-server")]
    if target.resolve() in beside:
        raise SetupError(f"{target} is a file of the database itself: name another one.")
    if target.exists() and not replace:
        raise SetupError(f"{target} exists: name another file, or replace it with --force.")
    for ending in ("-wal", "-journal"):
        # SQLite would take an old log beside the copy for the log of the copy, and damage the copy.
        if (companion := target.with_name(target.name + ending)).exists():
            raise SetupError(f"{companion} exists: {target} is in use. Name another file.")


def _copy(source: apsw.Connection, target: Path, progress: Callable[[float], None]) -> None:
    """Copies the database as it is now into a new file, which is marked as a copy."""
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    copy = connect(target)
    try:
        # One read transaction for all of it, which begins with the first read. Without it the copy
        # would start again after every write, and never end beside a busy server.
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_master").fetchall()
        with copy.backup("main", source, "main") as backup:
            while not backup.done:
                backup.step(PAGES_AT_ONCE)
                progress(1 - backup.remaining / max(backup.page_count, 1))
        source.execute("ROLLBACK")
        copy.pragma("user_version", COPY)  # when a server opens it, a new epoch begins
        copy.pragma("journal_mode", "DELETE")  # one file, without a log beside it
    finally:
        copy.close()


def damages_in(path: Path, *, full: bool = False) -> list[str]:
    """What is wrong with the file. `full`: also compares all indexes and event lists."""
    connection = connect(path)
    try:
        pragma = "integrity_check" if full else "quick_check"
        rows = connection.execute(f"PRAGMA {pragma}({MAX_DAMAGES})").fetchall()
        lines = [line for (text,) in rows for line in str(text).splitlines()]
        damages = [line for line in lines if line != "ok" and not line.startswith("***")]
        return damages or (_wrong_lists(connection) if full else [])
    except apsw.Error as error:
        return [str(error)]
    finally:
        connection.close()


def _wrong_lists(connection: apsw.Connection) -> list[str]:
    counts = "SELECT 1 FROM sqlite_master WHERE name = 'listing_counts'"
    if not connection.execute(counts).fetchall():  # the file is not migrated yet
        return []
    return [
        f"{name} should have {due:,} events; it has {listed:,}, {correct:,} of them rightly"
        for name, due, listed, correct in connection.execute("SELECT * FROM listing_counts")
        if not due == listed == correct
    ]


# Restoring ----------------------------------------------------------------------------------------


def restore(source: Path, database: SqliteFile, progress: Callable[[float], None]) -> Path | None:
    """Replaces the database by a copy of the file `source`. A new epoch begins.

    The copy is checked and migrated before anything is changed. Returns the file that now has the
    old database, if there was one. Raises SetupError, also if a server or a command uses the
    database.
    """
    target = database.file
    if source.is_dir():
        raise SetupError(f"{source} is a folder: name a backup in it.")
    if not source.is_file():
        raise SetupError(f"There is no file {source}.")
    if target.exists() and target.samefile(source):
        raise SetupError(f"{source} is the database itself: name a backup of it.")
    if not target.parent.is_dir():
        raise SetupError(f"There is no folder {target.parent} for the database.")
    place = target.resolve()  # if it is a link, it stays one
    # This also refuses files that are not ours, or newer.
    if SqliteFile(source).pending_steps() == len(migrate.steps(SQLITE)):
        raise SetupError(f"{source} is empty: it is no backup.")
    try:
        with (
            database.only_server(),
            temporary_folder(place.parent, ".tether-restore-") as folder,
        ):
            copy = folder / place.name
            _make_copy(source, copy, progress)
            aside = _free_name(place)
            if not place.exists():
                _move_companions(place, aside)
                _put(copy, place)
                return None
            _set_owner(copy, like=place)
            _replace(place, copy, aside)
            return aside
    except OSError as error:
        raise SetupError(f"{target} cannot be replaced: {error.strerror or error}.") from error


def _make_copy(source: Path, copy: Path, progress: Callable[[float], None]) -> None:
    with connection_to(source) as connection:
        try:
            _copy(connection, copy, progress)
        except apsw.FullError:
            raise SetupError(f"{source} cannot be copied: the disk is full.") from None
        except apsw.Error as error:
            raise SetupError(f"{source} cannot be copied: {error}.") from error
    if damages := damages_in(copy, full=True):
        raise SetupError(f"{source} is damaged ({damages[0]}): nothing was changed.")
    SqliteFile(copy).migrate()  # this also begins the new epoch


def _set_owner(copy: Path, like: Path) -> None:
    """Gives the copy the owner and mode of the database. Another user may run the restore."""
    status = like.stat()
    copy.chmod(status.st_mode & 0o777)
    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        os.chown(copy, status.st_uid, status.st_gid)


def _replace(place: Path, copy: Path, aside: Path) -> None:
    """Moves the database aside and the copy into its place, where a complete file always is."""
    _settle(place)
    _move_companions(place, aside)
    try:
        os.link(place, aside)
    except OSError:  # a file system without links
        place.rename(aside)
    _put(copy, place)


def _settle(place: Path) -> None:
    """Writes the log of the database into its file. Raises SetupError if the database is in use.

    A damaged file stays as it is.
    """
    connection = apsw.Connection(str(place), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.set_busy_timeout(BUSY_MS)
        connection.pragma("journal_mode", "DELETE")
    except (apsw.BusyError, apsw.LockedError):
        raise SetupError(f"{place} is in use: stop what uses it. Nothing was changed.") from None
    except apsw.Error:
        return
    finally:
        connection.close()


def _move_companions(place: Path, aside: Path) -> None:
    """Moves the files beside the database away. SQLite would take them for files of the copy."""
    for ending in ("-wal", "-shm", "-journal"):
        beside = place.with_name(place.name + ending)
        if beside.exists():
            beside.rename(aside.with_name(aside.name + ending))


def _free_name(place: Path) -> Path:
    name = f"{place.name}.before-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    found, number = place.with_name(name), 1
    while found.exists():
        number += 1
        found = place.with_name(f"{name}-{number}")
    return found


# Files --------------------------------------------------------------------------------------------


def _put(file: Path, place: Path) -> None:
    """Moves the file into its place. Returns when both the file and its new name are on disk."""
    _sync(file)
    file.replace(place)
    _sync(place.parent)


def _sync(path: Path) -> None:
    """Returns when the file or folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def temporary_folder(beside: Path, prefix: str) -> Iterator[Path]:
    """A new folder in the folder `beside`, which is removed at the end. Raises OSError.

    Folders with the same prefix that killed processes left there are removed, too. Each process
    holds a lock on its folder, and the kernel releases the lock when the process ends. So folders
    that are in use stay.
    """
    _remove_unused(beside, prefix)
    folder, lock = _make_folder(beside, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _make_folder(beside: Path, prefix: str) -> tuple[Path, int]:
    for _ in range(_FOLDER_TRIES):
        folder = Path(tempfile.mkdtemp(dir=beside, prefix=prefix))
        with suppress(FileNotFoundError):  # another process removed it before we locked it
            lock = _open_folder(folder)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # another process is removing it now
                os.close(lock)
                continue
            except OSError:
                pass  # a file system without locks: no process removes folders there
            if folder.exists():
                return folder, lock
            os.close(lock)
    raise OSError(f"{beside} is being cleared up")


def _remove_unused(beside: Path, prefix: str) -> None:
    for folder in beside.glob(f"{prefix}*"):
        with suppress(OSError):  # not a folder, not ours, in use, or removed by now
            lock = _open_folder(folder)
            try:
                if os.fstat(lock).st_uid == os.geteuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _open_folder(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
