"""The SQLite file itself: made, brought up to date, recognised as ours, copied."""

from collections.abc import Callable
from pathlib import Path

import apsw

from tether.errors import SetupError
from tether.store import migrate
from tether.store.dialect import SQLITE
from tether.store.sqlite import connect, native

APPLICATION_ID = 0x54455448  # "TETH": tells our files from other people's


def migrate_sqlite(path: Path) -> int:
    """Creates the file if need be and brings its schema up to date; returns how many steps it took.

    Raises SetupError if the file is not ours or was made by a newer version.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = connect(path, create=True)
    try:
        _check_ours(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        if migrate.VERSION_TABLE not in _tables(connection):
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(migrate.CREATE_VERSION_TABLE)
        missing = migrate.steps_after(SQLITE, _version(connection), str(path))
        for step in missing:
            connection.execute(step.script)
            connection.execute(native(migrate.ADD_VERSION), (step.version,))
        connection.execute("COMMIT")
        return len(missing)
    except apsw.Error as error:
        raise SetupError(f"{path} cannot be used: {error}") from error
    finally:
        connection.close()


def pending_sqlite(path: Path) -> int:
    """How many steps the schema of the file still needs. Raises SetupError as above."""
    connection = connect(path)
    try:
        _check_ours(connection, path)
        return len(migrate.steps_after(SQLITE, _version(connection), str(path)))
    finally:
        connection.close()


def _check_ours(connection: apsw.Connection, path: Path) -> None:
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


def back_up_sqlite(path: Path, target: Path, progress: Callable[[float], None]) -> None:
    """A consistent copy of the file, made while others read and write it.

    `progress` is told the share that is done, from 0 to 1. Raises SetupError; `target` appears
    only when the copy is whole.
    """
    partial = target.with_name(target.name + ".partial")
    source, copy = connect(path), connect(partial, create=True)
    try:
        # One read transaction throughout: else the copy starts again whenever somebody writes.
        with source, copy.backup("main", source, "main") as backup:
            while not backup.done:
                backup.step(500)
                progress(1 - backup.remaining / max(backup.page_count, 1))
        copy.execute("PRAGMA journal_mode = DELETE")
    except apsw.Error as error:
        raise SetupError(f"The backup to {target} failed: {error}") from error
    finally:
        copy.close()
        source.close()
    partial.replace(target)
