"""What the store asks of a database, and how a statement gets many rows."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, get_type_hints

from tether.domain.models import to_json
from tether.storage.dialect import Dialect

Row = Sequence[Any]


class Statement(NamedTuple):
    """A statement with its parameters."""

    sql: str
    parameters: tuple[object, ...]


def where_found(some: Iterable[Statement], query: str, *parameters: object) -> list[Statement]:
    """These statements, each an INSERT … SELECT without a condition, where this query has a row.

    So what tells of a change is not written where nothing changed.
    """
    return [
        Statement(
            f"{sql} WHERE EXISTS ({_NUMBER.sub(_raised_by(len(given)), query)})",
            (*given, *parameters),
        )
        for sql, given in some
    ]


_NUMBER = re.compile(r"\$([0-9]+)")


def _raised_by(count: int) -> Callable[[re.Match[str]], str]:
    return lambda found: f"${int(found[1]) + count}"


class Size(NamedTuple):
    """Of a database, in bytes, and what is free on the disk of its folder, where that is known."""

    used: int
    free: int = 0
    folder: str | None = None


class Connections(NamedTuple):
    """How many there are of a pool."""

    busy: int
    idle: int
    most: int


class Engine(Protocol):
    """A database that runs statements, each atomic by itself.

    All methods raise Unavailable when the database cannot do it now, and nothing was done then,
    or, when the connection broke during a write, all of it may have been done.
    """

    dialect: Dialect

    async def ping(self, sql: str) -> None:
        """Returns if the database is the one that was opened, and answers this query."""

    async def read(self, sql: str, *parameters: object) -> list[Row]:
        """The rows of a short query."""

    async def look_up(self, sql: str, partner: int, key: str) -> Row | None:
        """The row, if any, of a query for the partner $1 and the key $2, its only parameters."""

    async def scan(self, sql: str, partner: int, *parameters: object) -> list[Row]:
        """The rows of a query about a partner, $1, that may read much before it finds enough.

        A few such run at once, by partner in turn. Raises RateLimited if too many wait.
        """

    async def write(self, sql: str, *parameters: object) -> int:
        """Runs a change; returns, once it is on disk, how many rows it touched."""

    async def write_returning(self, sql: str, *parameters: object) -> list[Row]:
        """Runs a change that ends in RETURNING; returns its rows once they are on disk."""

    async def write_all(self, *statements: Statement) -> list[int]:
        """Runs changes in one transaction, without a pause between them in which it could be left
        open; returns, once they are on disk, how many rows each touched.
        """

    async def list_events(self, partner: int, last: int, until: int) -> None:
        """Enters the partner's events up to the number `until` in the lists from which the views
        charger_events, vehicle_events and vehicle_history are made, unless the lists have those up
        to `last`. An engine that has indexes in their place does nothing.
        """

    async def size(self) -> Size:
        """How many bytes the database takes, and how many more there is room for."""

    def connections(self) -> Mapping[str, Connections]:
        """The connections to a server of its own, by purpose."""

    async def scrub(self) -> None:
        """Leaves nothing in the database's files of what was deleted, as far as the engine can."""

    async def forget(self, text: str) -> None:
        """The same of a text that is in no row any more, while others go on reading and writing."""

    async def shrink(self) -> None:
        """Gives the system back some of the room of deleted rows, if that is much of all there is.
        Others write meanwhile.
        """

    async def close(self) -> None:
        """Finishes the writes under way and lets go of the database."""


# A batch is many rows as one parameter: a JSON object of arrays by their place, from 1 on.
# jsonb_each means the same to both engines, and reads an array once, not for each of its values.


def batch_of(rows: Iterable[object]) -> str:
    """The batch of these rows, each a tuple or what JSON has as an array."""
    return to_json(dict(enumerate(rows, start=1))).decode()


def batch(name: str, *columns: str, parameter: str = "$2") -> str:
    """The table expression `name` of the batch: `place`, and these columns in the arrays' order.

    They are text, or what is said behind the name, as in `at_ms BIGINT`.
    """
    values = ["CAST(key AS BIGINT) AS place"]
    for number, column in enumerate(columns):
        text, (column_name, _, kind) = f"value ->> {number}", column.partition(" ")
        values.append(f"{f'CAST({text} AS {kind})' if kind else text} AS {column_name}")
    return f"{name} AS MATERIALIZED (SELECT {', '.join(values)} FROM jsonb_each({parameter}))"


def columns_of(row: type) -> list[str]:
    """The columns of a batch of such rows: its members, of which the integers are numbers."""
    hints = get_type_hints(row)
    return [name + " BIGINT" * (hint in (int, int | None)) for name, hint in hints.items()]
