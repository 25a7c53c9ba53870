"""A SQLite file in the place of the database, which is kept aside."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import apsw

from tether.domain.errors import SetupError
from tether.storage import migrate
from tether.storage.dialect import SQLITE
from tether.storage.sqlite.backup import copy_sqlite, damages_in_sqlite, sync
from tether.storage.sqlite.file import connect, migrate_sqlite, only_server, pending_sqlite
from tether.storage.sqlite.temporary_folder import temporary_folder

BUSY_MS = 1_000  # for a command that looks something up to end
_BESIDE = ("-wal", "-shm", "-journal")


def restore_sqlite(source: Path, target: Path, progress: Callable[[float], None]) -> Path | None:
    """Puts a copy of `source` in the place of `target`, as a database of a new epoch.

    The copy is checked and brought up to date before anything is changed. Returns the file that
    the database of before is in now, if there was one. Raises SetupError, also if a server or a
    command uses the database.
    """
    if not source.is_file():
        raise SetupError(f"There is no file {source}.")
    if target.exists() and target.samefile(source):
        raise SetupError(f"{source} is the database itself: name a backup of it.")
    if not target.parent.is_dir():
        raise SetupError(f"There is no folder {target.parent} for the database.")
    place = target.resolve()  # a link stays one
    if pending_sqlite(source) == len(migrate.steps(SQLITE)):  # refuses what is not ours, or newer
        raise SetupError(f"{source} is empty: it is no backup.")
    try:
        with (
            only_server(target),
            temporary_folder(place.parent, ".tether-restore-") as folder,
        ):
            copy = folder / place.name
            _make_copy(source, copy, progress)
            if not place.exists():
                _clear_place(place, _free_name(place))
                _put(copy, place)
                return None
            _own(copy, place)
            return _exchange(copy, place)
    except OSError as error:
        raise SetupError(f"{target} cannot be replaced: {error.strerror or error}.") from error


def _make_copy(source: Path, copy: Path, progress: Callable[[float], None]) -> None:
    connection = connect(source)
    try:
        copy_sqlite(connection, copy, progress)
    except apsw.FullError:
        raise SetupError(f"{source} cannot be copied: the disk is full.") from None
    except apsw.Error as error:
        raise SetupError(f"{source} cannot be copied: {error}.") from error
    finally:
        connection.close()
    if damages := damages_in_sqlite(copy, full=True):
        raise SetupError(f"{source} is damaged ({damages[0]}): nothing was changed.")
    migrate_sqlite(copy)  # which begins the new epoch


def _own(copy: Path, like: Path) -> None:
    """Gives the file to the same user, who may be another than the one who restores it."""
    status = like.stat()
    copy.chmod(status.st_mode & 0o777)
    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        os.chown(copy, status.st_uid, status.st_gid)


def _exchange(copy: Path, place: Path) -> Path:
    """At every moment one of the two is in place, whole."""
    _settle(place)
    aside = _free_name(place)
    _clear_place(place, aside)
    try:
        os.link(place, aside)
    except OSError:  # a file system without links
        place.rename(aside)
    _put(copy, place)
    return aside


def _settle(place: Path) -> None:
    """Brings all of the database into its one file. Raises SetupError if somebody uses it.

    What is damaged stays as it is.
    """
    connection = apsw.Connection(str(place), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.set_busy_timeout(BUSY_MS)
        connection.execute("PRAGMA journal_mode = DELETE").fetchall()
    except (apsw.BusyError, apsw.LockedError):
        raise SetupError(f"{place} is in use: stop what uses it. Nothing was changed.") from None
    except apsw.Error:
        return
    finally:
        connection.close()


def _clear_place(place: Path, aside: Path) -> None:
    """Moves away what would be taken for the new file's own, and would damage it."""
    for ending in _BESIDE:
        beside = place.with_name(place.name + ending)
        if beside.exists():
            beside.rename(aside.with_name(aside.name + ending))


def _put(copy: Path, place: Path) -> None:
    sync(copy)
    copy.replace(place)
    sync(place.parent)


def _free_name(place: Path) -> Path:
    name = f"{place.name}.before-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    found, number = place.with_name(name), 1
    while found.exists():
        number += 1
        found = place.with_name(f"{name}-{number}")
    return found
