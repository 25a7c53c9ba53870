"""What the operator does with a database as a whole, while servers use it or not."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from tether.domain.errors import SetupError
from tether.domain.timestamps import now_ms
from tether.server.bootstrap import describe, migrate, only_server
from tether.server.settings import is_postgres, sqlite_path
from tether.storage.epochs import NEWEST_INSTANT, Known

if TYPE_CHECKING:
    from tether.storage.copying import Side
    from tether.storage.postgres.check import Surroundings


def version(database: str) -> str:
    """What the database runs on, such as `SQLite 3.54.0`. Raises SetupError."""
    if is_postgres(database):
        from tether.storage.postgres.engine import version_of_postgres

        return f"PostgreSQL {version_of_postgres(database)}"
    import apsw

    from tether.storage.sqlite.file import check_version

    check_version()
    return f"SQLite {apsw.sqlite_lib_version()} (apsw {apsw.apsw_version()})"


def surroundings(url: str) -> "Surroundings":
    """What Tether finds in a PostgreSQL database. Raises SetupError."""
    from tether.storage.postgres.check import surroundings

    return surroundings(url)


def clock_ahead_ms(database: str) -> int | None:
    """How far this machine's clock is ahead of PostgreSQL's; of a SQLite file, at most 0, how far
    it is behind the newest instant that was written. None if there is none. Raises SetupError.
    """
    with _side(database) as side:
        began_ms = now_ms()
        if is_postgres(database):
            ((there_ms,),) = side.query(
                "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"
            )
            return (began_ms + now_ms()) // 2 - int(there_ms)
        ((newest_ms,),) = side.query(NEWEST_INSTANT)
    return None if newest_ms is None else min(0, began_ms - int(newest_ms))


def redis_version(url: str) -> str:
    """The version of the Redis at this URL. Raises SetupError if it does not answer."""
    from redis import Redis, RedisError

    try:
        with Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2) as redis:
            return str(redis.info("server")["redis_version"])
    except (RedisError, OSError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SetupError(f"Redis does not answer: {reason}.") from error


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


def copy(
    source: str,
    target: str,
    progress: Callable[[str, int], AbstractContextManager[Callable[[float], None]]],
) -> int:
    """Copies a database into a new one of either kind, or goes on with it, and checks the copy.

    `progress` shows how far it is: what is done, and how many rows there are. Returns that number.
    Raises SetupError; then nothing can be served that is not whole.
    """
    from tether.storage import copying

    with only_server(source), _side(source) as from_, only_server(target):
        known = epoch(source)
        if not _is_begun(target):
            migrate(target)
        with _side(target) as to:
            from_.check_alone()
            to.check_alone()
            from_.freeze()
            copying.begin(from_, to, known)
            rows = copying.total(from_)
            with progress("Copying", rows) as done:
                copying.copy(from_, to, done)
            with progress("Comparing", rows) as done:
                differences = list(copying.differences(from_, to, done))
            if differences:
                first = differences[0]
                raise SetupError(
                    f"{first.table} has {first.should_be:,} rows in {from_.name} and "
                    f"{first.rows:,} in the copy, or others: it was changed since the copy began. "
                    f"Remove {to.name} and begin again."
                )
            from_.check_alone()
            copying.finish(to, known)
            return rows


def _side(database: str) -> "AbstractContextManager[Side]":
    if is_postgres(database):
        from tether.storage.postgres.copying import postgres_side

        return postgres_side(database)
    from tether.storage.sqlite.copying import sqlite_side

    return sqlite_side(sqlite_path(database))


def _is_begun(database: str) -> bool:
    """Whether it is a copy that is not whole."""
    if not is_postgres(database) and not sqlite_path(database).exists():
        return False
    with _side(database) as side:
        return side.origin() is not None


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
