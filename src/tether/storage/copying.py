"""Copies a whole database into another one, of either engine, row by row in the order of keys.

An interrupted copy has the first rows of each table, and can be continued. No server uses a copy
before it is complete and checked.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import zip_longest

from tether.domain.errors import SetupError
from tether.storage.database import CopyConnection, Database, Values
from tether.storage.log_positions import EpochState, new_epoch
from tether.storage.migrate import COPY_TABLE
from tether.storage.tables import TABLES

ROWS_AT_ONCE = 5_000

KEYS = {name: table.key for name, table in TABLES.items() if table.key}
"""The primary keys of the copied tables."""


def copy(
    source: Database,
    target: Database,
    progress: Callable[[str, int], AbstractContextManager[Callable[[float], None]]],
) -> int:
    """Copies a database into a new one, or continues an interrupted copy, and compares the two.

    `progress` gets the name of each step and its number of rows. Returns the number of rows. Raises
    SetupError; then no server can use the copy.
    """
    with source.only_server(), source.copy_connection() as from_, target.only_server():
        known = source.epoch()
        if not _is_begun(target):
            target.migrate()
        with target.copy_connection() as to:
            from_.check_alone()
            to.check_alone()
            from_.freeze()
            _begin(from_, to, known)
            rows = sum(_count(from_, table) for table in KEYS)
            with progress("Copying", rows) as done:
                _copy_rows(from_, to, done)
            with progress("Comparing", rows) as done:
                _compare(from_, to, done)
            from_.check_alone()
            _finish(to, known)
            return rows


def _is_begun(database: Database) -> bool:
    """Whether it is an incomplete copy."""
    if database.file is not None and not database.file.exists():
        return False
    with database.copy_connection() as connection:
        return _origin_of(connection) is not None


def _begin(source: CopyConnection, target: CopyConnection, epoch: EpochState) -> None:
    """Makes `target` an incomplete copy of `source`, unless it is one. Raises SetupError."""
    origin = f"{source.name} {epoch.epoch.id}"
    begun = _origin_of(target)
    if begun is None:
        for table in KEYS:
            if target.query(f"SELECT 1 FROM {table} LIMIT 1"):
                raise SetupError(
                    f"{target.name} has something in it ({table}): name a new database."
                )
        with target.transaction():
            target.query(f"CREATE TABLE {COPY_TABLE} (origin TEXT NOT NULL)")
            target.query(f"INSERT INTO {COPY_TABLE} VALUES (?)", origin)
    elif begun != origin:
        raise SetupError(
            f"{target.name} is a copy of something else that is not whole: remove it, or name "
            "another database."
        )


def _origin_of(connection: CopyConnection) -> str | None:
    """The source of the copy, if the database is an incomplete copy; None otherwise."""
    if not connection.columns(COPY_TABLE):
        return None
    return str(connection.query(f"SELECT origin FROM {COPY_TABLE}")[0][0])


def _copy_rows(
    source: CopyConnection, target: CopyConnection, progress: Callable[[float], None]
) -> None:
    """Copies the rows that `target` lacks; calls `progress` with the number of rows it has."""
    done = 0
    for table, key in KEYS.items():
        columns = source.columns(table)
        last = target.query(_last(table, key))
        done += _count(target, table)
        for rows in _pages(source, table, key, columns, last[0] if last else None):
            target.add(table, columns, rows)
            done += len(rows)
            progress(done)


def _compare(
    source: CopyConnection, target: CopyConnection, progress: Callable[[float], None]
) -> None:
    """Compares all rows and their order; calls `progress` with the number of compared rows. Raises
    SetupError at the first difference.
    """
    done = 0
    for table, key in KEYS.items():
        columns = source.columns(table)
        pages = [_pages(connection, table, key, columns, None) for connection in (source, target)]
        for rows, copies in zip_longest(*pages, fillvalue=[]):
            if repr(rows) != repr(copies):
                raise SetupError(
                    f"{table} has {_count(source, table):,} rows in {source.name} and "
                    f"{_count(target, table):,} in the copy, or others: it was changed since the "
                    f"copy began. Remove {target.name} and begin again."
                )
            done += len(rows)
            progress(done)


def _finish(target: CopyConnection, epoch: EpochState) -> None:
    """Makes `target` ready for servers. The epoch stays the same, as nothing was lost."""
    with target.transaction():
        target.finish(new_epoch() if epoch.ends else epoch.epoch)
        target.query(f"DROP TABLE {COPY_TABLE}")


def _count(connection: CopyConnection, table: str) -> int:
    return int(connection.query(f"SELECT count(*) FROM {table}")[0][0])


def _pages(
    connection: CopyConnection,
    table: str,
    key: Sequence[str],
    columns: Sequence[str],
    after: Values | None,
) -> Iterator[list[Values]]:
    """All rows after the key `after`, in the order of keys."""
    numbers = [columns.index(name) for name in key]
    names, order = ", ".join(columns), ", ".join(key)
    marks = ", ".join("?" for _ in key)
    first = f"SELECT {names} FROM {table} ORDER BY {order} LIMIT {ROWS_AT_ONCE}"
    others = first.replace(" ORDER", f" WHERE ({order}) > ({marks}) ORDER", 1)
    while True:
        rows = connection.query(others, *after) if after else connection.query(first)
        if rows:
            yield rows
        if len(rows) < ROWS_AT_ONCE:
            return
        after = [rows[-1][number] for number in numbers]


def _last(table: str, key: Sequence[str]) -> str:
    order = ", ".join(f"{name} DESC" for name in key)
    return f"SELECT {', '.join(key)} FROM {table} ORDER BY {order} LIMIT 1"
