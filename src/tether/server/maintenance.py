"""What the operator does with a database as a whole, while servers use it or not."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tether.domain.errors import SetupError
from tether.server.bootstrap import describe
from tether.server.settings import is_postgres, sqlite_path
from tether.storage.epochs import Known

if TYPE_CHECKING:
    from tether.storage.postgres.check import Surroundings


def version(database: str) -> str:
    """What the database runs on, such as `SQLite 3.54.0`. Raises SetupError."""
    if is_postgres(database):
        from tether.storage.postgres.engine import version_of_postgres

        return f"PostgreSQL {version_of_postgres(database)}"
    import apsw

    from tether.storage.sqlite.engine import check_version

    check_version()
    return f"SQLite {apsw.sqlite_lib_version()} (apsw {apsw.apsw_version()})"


def surroundings(url: str) -> "Surroundings":
    """What Tether finds in a PostgreSQL database. Raises SetupError."""
    from tether.storage.postgres.check import surroundings

    return surroundings(url)


def damages(database: str, *, full: bool = False) -> list[str]:
    """What the database finds wrong with itself; `full` looks longer. Raises SetupError."""
    if is_postgres(database):
        return []  # it checks its pages itself when they are read
    from tether.storage.sqlite.backup import damages_in_sqlite

    return damages_in_sqlite(sqlite_path(database), full=full)


def back_up(
    database: str, target: Path, progress: Callable[[float], None], *, replace: bool = False
) -> None:
    """A consistent copy of the database, made while it is used.

    Tells `progress` the share that is done. An existing `target` stays unless `replace`.
    Raises SetupError.
    """
    if is_postgres(database):
        raise SetupError(
            "tether backup copies a SQLite file. For PostgreSQL: pg_dump --format=custom "
            f"--file={target} {describe(database)}"
        )
    from tether.storage.sqlite.backup import back_up_sqlite

    back_up_sqlite(sqlite_path(database), target, progress, replace=replace)


def restore(database: str, source: Path, progress: Callable[[float], None]) -> Path | None:
    """Puts a copy of the SQLite file `source` in the place of the database; a new epoch begins.

    Returns where the database of before is now, if there was one. Raises SetupError, and then
    nothing was changed.
    """
    if is_postgres(database):
        raise SetupError(
            "tether restore is for SQLite files. PostgreSQL has tools of its own, such as "
            "pg_restore; then: tether epoch new"
        )
    from tether.storage.sqlite.restore import restore_sqlite

    return restore_sqlite(source, sqlite_path(database), progress)


def epoch(database: str) -> Known:
    """The epoch of the database, which must be migrated. Raises SetupError."""
    if is_postgres(database):
        from tether.storage.postgres.engine import epoch_of_postgres

        return epoch_of_postgres(database)
    from tether.storage.sqlite.file import epoch_of_sqlite

    return epoch_of_sqlite(sqlite_path(database))


def new_epoch(database: str) -> None:
    """Begins a new epoch: from now on all cursors of before are refused. Raises SetupError."""
    if is_postgres(database):
        from tether.storage.postgres.engine import new_epoch_of_postgres

        new_epoch_of_postgres(database)
        return
    from tether.storage.sqlite.file import new_epoch_of_sqlite

    new_epoch_of_sqlite(sqlite_path(database))
