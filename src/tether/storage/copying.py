"""Copies a whole database into another one, of either engine, row by row in the order of keys.

What is committed of a copy is always the beginning of each table, so a copy that was interrupted
goes on behind its last rows. Until it is whole and checked, nothing serves it.
"""

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import Any, NamedTuple, Protocol

from tether.domain.errors import SetupError
from tether.storage.log_positions import EpochState, new_epoch
from tether.storage.migrate import COPY_TABLE

Values = Sequence[Any]

ROWS_AT_ONCE = 5_000

# Each table that is copied, with its primary key. What an engine has of its own is made anew.
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
MADE_ANEW = {
    "epoch", "event_heads", "listings", "list_of_charger", "list_of_vehicle", "list_by_time",
    "console_sessions", "console_links", "refused_requests",
    "webhook_attempts",
}  # fmt: skip

CREATE_MARK = f"CREATE TABLE {COPY_TABLE} (origin TEXT NOT NULL)"
READ_MARK = f"SELECT origin FROM {COPY_TABLE}"
DROP_MARK = f"DROP TABLE {COPY_TABLE}"


class Side(Protocol):
    """One of the two databases. Statements have `?` for their parameters."""

    name: str
    """To show: without a password."""

    def query(self, sql: str, *parameters: object) -> list[Values]:
        """The rows of a query."""

    def columns(self, table: str) -> list[str]:
        """The columns of a table, in any order."""

    def check_alone(self) -> None:
        """Raises SetupError if a server or a command of ours uses the database."""

    def freeze(self) -> None:
        """From now on queries see the database as it is at this moment."""

    def add(self, table: str, columns: Sequence[str], rows: Sequence[Values]) -> None:
        """Adds these rows to a table, in one transaction that is on disk at the end."""

    def origin(self) -> str | None:
        """Of what it is a copy that is not whole; None if it is none."""

    def begin(self, origin: str) -> None:
        """From now on it is a copy of this that is not whole."""

    def finish(self, epoch: EpochState) -> None:
        """It is whole: makes what the engine has of its own, and begins to be in this epoch."""


class Difference(NamedTuple):
    """What one table has and should have."""

    table: str
    rows: int
    should_be: int


def begin(source: Side, target: Side, epoch: EpochState) -> None:
    """Makes `target` a copy of `source` that is not whole, or finds it so. Raises SetupError."""
    origin = f"{source.name} {epoch.epoch.id}"
    begun = target.origin()
    if begun is None:
        for table in KEYS:
            if target.query(f"SELECT 1 FROM {table} LIMIT 1"):
                raise SetupError(
                    f"{target.name} has something in it ({table}): name a new database."
                )
        target.begin(origin)
    elif begun != origin:
        raise SetupError(
            f"{target.name} is a copy of something else that is not whole: remove it, or name "
            "another database."
        )


def total(source: Side) -> int:
    """How many rows there are to copy."""
    return sum(source.query(f"SELECT count(*) FROM {table}")[0][0] for table in KEYS)


def copy(source: Side, target: Side, progress: Callable[[int], None]) -> None:
    """Copies what `target` lacks; tells `progress` how many rows it has by now."""
    done = 0
    for table, key in KEYS.items():
        columns = source.columns(table)
        last = target.query(_last(table, key))
        done += target.query(f"SELECT count(*) FROM {table}")[0][0]
        for rows in _portions(source, table, key, columns, last[0] if last else None):
            target.add(table, columns, rows)
            done += len(rows)
            progress(done)


def differences(
    source: Side, target: Side, progress: Callable[[int], None]
) -> Iterator[Difference]:
    """The tables of which not all rows are the same, in the same order.

    Tells `progress` how many rows were compared.
    """
    done = 0
    for table, key in KEYS.items():
        columns, sums = source.columns(table), (sha256(), sha256())
        counts = [0, 0]
        sides = [_portions(side, table, key, columns, None) for side in (source, target)]
        ended = False
        while not ended:
            portions = [next(side, []) for side in sides]
            for place, rows in enumerate(portions):
                counts[place] += len(rows)
                for row in rows:
                    sums[place].update(repr(tuple(row)).encode())
            done += len(portions[0])
            progress(done)
            ended = not any(portions)
        if sums[0].digest() != sums[1].digest():
            yield Difference(table, counts[1], counts[0])


def finish(target: Side, epoch: EpochState) -> None:
    """Lets `target` be served: in the same epoch, as nothing was lost."""
    target.finish(EpochState(new_epoch(), ends=False) if epoch.ends else epoch)


def _portions(
    side: Side, table: str, key: Sequence[str], columns: Sequence[str], after: Values | None
) -> Iterator[list[Values]]:
    """All rows behind the key `after`, in the order of keys."""
    places = [columns.index(name) for name in key]
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
        after = [rows[-1][place] for place in places]


def _last(table: str, key: Sequence[str]) -> str:
    order = ", ".join(f"{name} DESC" for name in key)
    return f"SELECT {', '.join(key)} FROM {table} ORDER BY {order} LIMIT 1"
