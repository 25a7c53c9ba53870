"""The interface of an engine, which runs statements, and pieces of SQL that statements share."""

import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, get_type_hints

from tether.domain.models import to_json
from tether.storage.dialect import Dialect

Row = Sequence[Any]


class Statement(NamedTuple):
    """A statement with its parameters."""

    sql: str
    parameters: tuple[object, ...]


def where_found(
    statements: Iterable[Statement], query: str, *parameters: object
) -> list[Statement]:
    """The same statements, but each runs only if the query finds a row. Each of them must be an
    INSERT … SELECT without a condition. So an audit entry is not written if nothing changed.
    """
    return [
        Statement(
            f"{sql} WHERE EXISTS ({_NUMBER.sub(_raised_by(len(given)), query)})",
            (*given, *parameters),
        )
        for sql, given in statements
    ]


_NUMBER = re.compile(r"\$([0-9]+)")


def _raised_by(count: int) -> Callable[[re.Match[str]], str]:
    return lambda found: f"${int(found[1]) + count}"


class Size(NamedTuple):
    """The size of a database in bytes, and the free bytes on the disk of its folder, if known."""

    used: int
    free: int = 0
    folder: str | None = None


class Connections(NamedTuple):
    """The numbers of connections in a pool."""

    busy: int
    idle: int
    max: int


PING = "SELECT 1 FROM partners LIMIT 1"


class Engine(Protocol):
    """Runs statements in a database. Each statement is atomic.

    All methods raise Unavailable if the database cannot do it now. Then nothing was done, unless
    the connection broke during a write: then all of it may have been done.
    """

    dialect: Dialect

    async def ping(self) -> None:
        """Returns if the database answers PING, and is still the one that was opened."""

    async def read(self, sql: str, *parameters: object) -> list[Row]:
        """The rows of a short query."""

    async def look_up(self, sql: str, partner: int, key: str) -> Row | None:
        """The row of a query with two parameters, the partner $1 and the key $2; None without."""

    async def scan(self, sql: str, partner: int, *parameters: object) -> list[Row]:
        """The rows of a query about the partner $1 that may read many rows.

        A few of these queries run at once. Partners take turns.
        """

    async def write(self, sql: str, *parameters: object) -> int:
        """Runs a change. When it is on disk, returns the number of changed rows."""

    async def write_returning(self, sql: str, *parameters: object) -> list[Row]:
        """Runs a change that ends in RETURNING. When it is on disk, returns its rows."""

    async def write_all(self, *statements: Statement) -> list[int]:
        """Runs changes in one transaction, without a pause in which it could stay open. When they
        are on disk, returns the number of rows that each changed.
        """

    async def list_events(self, partner: int, last: int, until: int) -> None:
        """Adds the partner's events up to the number `until` to the event lists, unless the lists
        have all events up to `last`. The views charger_events, vehicle_events and vehicle_history
        read these lists. An engine with indexes instead does nothing.
        """

    async def size(self) -> Size:
        """The size of the database, and the free space on its disk."""

    def connections(self) -> Mapping[str, Connections]:
        """The connections to the database's server, by purpose."""

    async def erase_deleted(self) -> None:
        """Removes deleted data from the database's files, as far as the engine can."""

    async def erase_text(self, text: str) -> None:
        """Removes a text from the files that no row has any more. Others can read and write
        meanwhile.
        """

    async def shrink(self) -> None:
        """Returns some of the space of deleted rows to the system, if it is much. Others can write
        meanwhile.
        """

    async def close(self) -> None:
        """Finishes the pending writes and closes the database."""


@dataclass(eq=False)
class Repository:
    """The statements of one subject, for all partners. Every method raises Unavailable."""

    _engine: Engine


# A batch has many rows in one parameter: a JSON object of arrays, by their number from 1. Both
# engines have jsonb_each, which reads an array once, not once for each value.


def batch_of(rows: Iterable[object]) -> str:
    """The batch of these rows. Each row is a tuple, or another type that is an array in JSON."""
    return to_json(dict(enumerate(rows, start=1))).decode()


def batch(name: str, *columns: str, parameter: str = "$2") -> str:
    """The table expression `name` of the batch: `place`, and these columns in the arrays' order.

    A column is text, unless a type follows its name, as in `at_ms BIGINT`.
    """
    values = ["CAST(key AS BIGINT) AS place"]
    for number, column in enumerate(columns):
        text, (column_name, _, kind) = f"value ->> {number}", column.partition(" ")
        values.append(f"{f'CAST({text} AS {kind})' if kind else text} AS {column_name}")
    return f"{name} AS MATERIALIZED (SELECT {', '.join(values)} FROM jsonb_each({parameter}))"


def columns_of(row: type) -> list[str]:
    """The columns of a batch of such rows: one for each field, with a type if it is an integer."""
    hints = get_type_hints(row)
    return [name + " BIGINT" * (hint in (int, int | None)) for name, hint in hints.items()]


# Pieces of SQL ----------------------------------------------------------------------------------


def columns(alias: str, names: Iterable[str]) -> str:
    """These columns of the table with this alias, for a SELECT."""
    return ", ".join(f"{alias}.{name}" for name in names)


def json_array(*values: str) -> str:
    """A JSON array. Each value is SQL that has the JSON of an element as text, or a number."""
    joined = " || ',' || ".join(values)
    return f"'[' || {joined} || ']'"


def json_id(value: str) -> str:
    """The JSON of an id, which needs no escapes."""
    return f"'\"' || {value} || '\"'"


def json_list(element: str, rows: str) -> str:
    """The rows of a query as one JSON array; `element` is the JSON of a row, which is named `x`."""
    return f"(SELECT '[' || coalesce(string_agg({element}, ','), '') || ']' FROM ({rows}) x)"


def lease_has_expired(now: str, longest_ms: int) -> str:
    """Whether the lease of a row has expired at the instant `now`.

    A lease that ends later than the longest one was claimed before the clock was set back. It has
    expired, too.
    """
    return f"lease_ms NOT BETWEEN {now} + 1 AND {now} + {longest_ms}"


def delete_batch(table: str, *key: str) -> str:
    """Deletes the partner's rows with the keys of a batch."""
    names = [column.partition(" ")[0] for column in key]
    return f"""
WITH {batch("batch", *key)}
DELETE FROM {table} WHERE partner = $1
AND ({", ".join(names)}) IN (SELECT {columns("b", names)} FROM batch b)
"""


async def pages(
    engine: Engine, sql: str, partner: int, after: tuple[Any, ...], *parameters: object, limit: int
) -> AsyncIterator[list[Row]]:
    """All rows of a query after the position `after`, in pages; the last page may be empty.

    The parameters of the query are the partner, the position, these parameters and the limit. Each
    row begins with its position.
    """
    while True:
        rows = await engine.scan(sql, partner, *after, *parameters, limit)
        yield rows
        if len(rows) < limit:
            return
        after = tuple(rows[-1][: len(after)])
