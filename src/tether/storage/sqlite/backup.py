"""Care for the SQLite file: a copy made while the server runs, and a look for damage."""

import os
from collections.abc import Callable
from pathlib import Path

import apsw

from tether.domain.errors import SetupError
from tether.storage.sqlite.file import COPY, check_ours, check_served_by_this_name, connect
from tether.storage.sqlite.temporary_folder import temporary_folder

PAGES_AT_ONCE = 500
MOST_DAMAGES = 10


def back_up_sqlite(
    path: Path, target: Path, progress: Callable[[float], None], *, replace: bool = False
) -> None:
    """A consistent copy of the file, made while others read and write it, and checked.

    `progress` is told the share that is done, from 0 to 1. `target` is readable by its owner only
    and appears when the copy is whole and on disk; an existing one stays unless `replace`.
    Raises SetupError.
    """
    _check_target(path, target, replace)
    check_served_by_this_name(path)
    source = connect(path)
    try:
        check_ours(source, path)
        with temporary_folder(target.parent, ".tether-backup-") as folder:
            copy = folder / target.name
            copy_sqlite(source, copy, progress)
            if damages := damages_in_sqlite(copy):
                raise SetupError(f"The backup failed: {path} is damaged ({damages[0]}).")
            sync(copy)
            copy.replace(target)
        sync(target.parent)
    except OSError as error:
        raise SetupError(f"The backup to {target} failed: {error.strerror or error}.") from error
    except apsw.FullError as error:  # SQLite's own words for it are "not an error" here
        raise SetupError(f"The backup to {target} failed: the disk is full.") from error
    except apsw.Error as error:
        raise SetupError(f"The backup to {target} failed: {error}.") from error
    finally:
        source.close()


def damages_in_sqlite(path: Path, *, full: bool = False) -> list[str]:
    """What is wrong with the file; `full` compares every index and list with its table, too."""
    connection = connect(path)
    try:
        pragma = "integrity_check" if full else "quick_check"
        rows = connection.execute(f"PRAGMA {pragma}({MOST_DAMAGES})").fetchall()
        lines = [line for (text,) in rows for line in str(text).splitlines()]
        damages = [line for line in lines if line != "ok" and not line.startswith("***")]
        return damages or (_wrong_lists(connection) if full else [])
    except apsw.Error as error:
        return [str(error)]
    finally:
        connection.close()


def _wrong_lists(connection: apsw.Connection) -> list[str]:
    counts = "SELECT 1 FROM sqlite_master WHERE name = 'listing_counts'"
    if not connection.execute(counts).fetchall():  # a file that is still to be migrated
        return []
    return [
        f"{name} should have {due:,} events; it has {listed:,}, {correct:,} of them rightly"
        for name, due, listed, correct in connection.execute("SELECT * FROM listing_counts")
        if not due == listed == correct
    ]


def _check_target(path: Path, target: Path, replace: bool) -> None:
    if target.is_dir():
        raise SetupError(f"{target} is a folder: name a file in it.")
    if not target.parent.is_dir():
        raise SetupError(f"There is no folder {target.parent} for the backup.")
    if target.exists() and path.exists() and target.samefile(path):
        raise SetupError(f"{target} is the database itself: name another file.")
    real = path.resolve()  # as SQLite names the files beside it
    beside = [real.with_name(real.name + end) for end in ("-wal", "-shm", "-journal", "-server")]
    if target.resolve() in beside:
        raise SetupError(f"{target} is a file of the database itself: name another one.")
    if target.exists() and not replace:
        raise SetupError(f"{target} exists: name another file, or replace it with --force.")
    for ending in ("-wal", "-journal"):
        # Left beside the copy, it would be taken for the copy's own and damage it.
        if (companion := target.with_name(target.name + ending)).exists():
            raise SetupError(f"{companion} exists: {target} is in use. Name another file.")


def copy_sqlite(source: apsw.Connection, target: Path, progress: Callable[[float], None]) -> None:
    """A new file with what the database has now, which is marked as a copy."""
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    copy = connect(target)
    try:
        # One read transaction throughout, which begins with the first read: without it the copy
        # would start again whenever somebody writes, and never end beside a busy server.
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_master").fetchall()
        with copy.backup("main", source, "main") as backup:
            while not backup.done:
                backup.step(PAGES_AT_ONCE)
                progress(1 - backup.remaining / max(backup.page_count, 1))
        source.execute("ROLLBACK")
        copy.execute(f"PRAGMA user_version = {COPY}")  # when it is served, a new epoch begins
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, with nothing beside it
    finally:
        copy.close()


def sync(path: Path) -> None:
    """Returns when the file or folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
