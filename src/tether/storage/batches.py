"""Batches: many rows as the one parameter $2, a JSON object of arrays by their place, from 1 on.

jsonb_each means the same to both engines, and reads an array once and not for each of its values.
"""

from collections.abc import Iterable
from typing import get_type_hints

from tether.domain.models import to_json


def batch_of(rows: Iterable[object]) -> str:
    """The batch of these rows, each a tuple or what JSON has as an array."""
    return to_json(dict(enumerate(rows, start=1))).decode()


def batch(name: str, *columns: str) -> str:
    """The table expression `name` of the batch: `place`, and these columns in the arrays' order.

    They are text, or what is said behind the name, as in `at_ms BIGINT`.
    """
    values = ["CAST(key AS BIGINT) AS place"]
    for number, column in enumerate(columns):
        text, (column_name, _, kind) = f"value ->> {number}", column.partition(" ")
        values.append(f"{f'CAST({text} AS {kind})' if kind else text} AS {column_name}")
    return f"{name} AS MATERIALIZED (SELECT {', '.join(values)} FROM jsonb_each($2))"


def columns_of(row: type) -> list[str]:
    """The columns of a batch of such rows: its members, of which the integers are numbers."""
    hints = get_type_hints(row)
    return [name + " BIGINT" * (hint in (int, int | None)) for name, hint in hints.items()]
