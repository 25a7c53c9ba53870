"""Copies a whole database into another one, of either engine, row by row in the order of keys.

An interrupted copy has the first rows of each table, and can be continued. No server uses a copy
before it is complete and checked.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import zip_longest
from typing import Any, Protocol

from tether.domain.errors import SetupError
from tether.storage.log_positions import Epoch, EpochState, new_epoch
from tether.storage.migrate import COPY_TABLE

Values = Sequence[Any]

ROWS_AT_ONCE = 5_000

# Each table that is copied, with its primary key.
KEYS: dict[str, tuple[str, ...]] = {
    "partners": ("id",),
    "keys": ("digest",),
    "key_requests": ("digest",),
    "key_hours": ("partner", "hour", "key"),
    "chargers": ("partner", "id"),
    "vehicles": ("partner", "id"),
    "events": ("partner", "seq"),
    "withdrawals": ("partner", "seq"),
    "sessions": ("partner", "vehicle_id", "start_ms", "start_rank", "charger_id"),
    "session_versions": ("partner", "id"),
    "derivations": ("partner",),
    "snapshots": ("partner", "vehicle_id"),
    "audit_entries": ("partner", "at_ms", "id"),
    "erasures": ("partner", "kind", "code"),
    "retention": ("partner",),
    "webhooks": ("partner", "id"),
    "webhook_parked": ("partner", "webhook", "id"),
}
NOT_COPIED = {
    "epoch", "event_heads", "listings", "list_of_charger", "list_of_vehicle", "list_by_time",
    "console_sessions", "console_links", "refused_requests",
    "webhook_attempts",
}  # fmt: skip


class Side(Protocol):
    """One of the two databases. Statements have `?` for their parameters."""

    name: str
    """For display: without a password."""

    def query(self, sql: str, *parameters: object) -> list[Values]:
        """The rows of a query."""

    def transaction(self) -> AbstractContextManager[object]:
        """Commits the changes of the block together."""

    def columns(self, table: str) -> list[str]:
        """The columns of a table, in any order; none if there is no such table."""

    def check_alone(self) -> None:
        """Raises SetupError if a server or a command of ours uses the database."""

    def freeze(self) -> None:
        """Makes all later queries see the database as it is now."""

    def add(self, table: str, columns: Sequence[str], rows: Sequence[Values]) -> None:
        """Adds these rows to a table in one transaction, durable when this returns."""

    def finish(self, epoch: Epoch) -> None:
        """Fills the tables that only this engine has, and sets the epoch."""


def begin(source: Side, target: Side, epoch: EpochState) -> None:
    """Makes `target` an incomplete copy of `source`, unless it is one. Raises SetupError."""
    origin = f"{source.name} {epoch.epoch.id}"
    begun = origin_of(target)
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


def origin_of(side: Side) -> str | None:
    """The source of which a database is an incomplete copy; None if it is none."""
    if not side.columns(COPY_TABLE):
        return None
    return str(side.query(f"SELECT origin FROM {COPY_TABLE}")[0][0])


def total(source: Side) -> int:
    """The number of rows to copy."""
    return sum(_count(source, table) for table in KEYS)


def copy(source: Side, target: Side, progress: Callable[[int], None]) -> None:
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


def compare(source: Side, target: Side, progress: Callable[[int], None]) -> None:
    """Compares all rows and their order; calls `progress` with the number of compared rows. Raises
    SetupError at the first difference.
    """
    done = 0
    for table, key in KEYS.items():
        columns = source.columns(table)
        sides = [_pages(side, table, key, columns, None) for side in (source, target)]
        for rows, copies in zip_longest(*sides, fillvalue=[]):
            if repr(rows) != repr(copies):
                raise SetupError(
                    f"{table} has {_count(source, table):,} rows in {source.name} and "
                    f"{_count(target, table):,} in the copy, or others: it was changed since the "
                    f"copy began. Remove {target.name} and begin again."
                )
            done += len(rows)
            progress(done)


def finish(target: Side, epoch: EpochState) -> None:
    """Makes `target` ready for servers. The epoch stays the same, as nothing was lost."""
    with target.transaction():
        target.finish(new_epoch() if epoch.ends else epoch.epoch)
        target.query(f"DROP TABLE {COPY_TABLE}")


def _count(side: Side, table: str) -> int:
    return int(side.query(f"SELECT count(*) FROM {table}")[0][0])


def _pages(
    side: Side, table: str, key: Sequence[str], columns: Sequence[str], after: Values | None
) -> Iterator[list[Values]]:
    """All rows after the key `after`, in the order of keys."""
    numbers = [columns.index(name) for name in key]
    names, order = ", ".join(columns), ", ".join(key)
    marks = ", ".join("?" for _ in key)
    first = f"SELECT {names} FROM {table} ORDER BY {order} LIMIT {ROWS_AT_ONCE}"
    others = first.replace(" ORDER", f" WHERE ({order}) > ({marks}) ORDER", 1)
    while True:
        rows = side.query(others, *after) if after else side.query(first)
        if rows:
            yield rows
        if len(rows) < ROWS_AT_ONCE:
            return
        after = [rows[-1][number] for number in numbers]


def _last(table: str, key: Sequence[str]) -> str:
    order = ", ".join(f"{name} DESC" for name in key)
    return f"SELECT {', '.join(key)} FROM {table} ORDER BY {order} LIMIT 1"
