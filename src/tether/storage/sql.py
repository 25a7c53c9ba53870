"""Pieces of SQL that several subjects use, and reading in pages."""

from collections.abc import AsyncIterator, Iterable
from typing import Any

from tether.storage.engine import Engine, Row, batch


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
