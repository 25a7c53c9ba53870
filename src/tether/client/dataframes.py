"""Lists as tables of pandas, Polars and Arrow. These packages are imported on first use."""

from collections.abc import Iterable
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from tether.domain.table_schema import (
    DIGITS,
    PLACES,
    ColumnKind,
    arrow_schema,
    columns_of,
    fits,
    row_of,
)
from tether.domain.views import ChargePeriod

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

M = TypeVar("M", bound=msgspec.Struct)


def to_arrow(things: Iterable[M], kind: type[M] | None = None) -> "pyarrow.Table":
    """A table of pyarrow with exact numbers: `decimal128(38, 18)`.

    It takes chargers, vehicles, events, sessions, sums, steps of a load curve or capacities. Each
    is a row. Columns have the API's names, instants are in UTC. If the list may be empty, give the
    type of its entries as `kind`, such as `Session`. All entries are in memory at once.

    Raises ImportError without pyarrow, ValueError for a number with more than 18 decimal places.
    """
    arrow = _import("pyarrow", "to_arrow")
    found, model = _check_kind(things, kind)
    schema = arrow_schema(model, arrow)
    rows = [row_of(thing, _checked) for thing in found]
    return arrow.Table.from_pylist(rows, schema=schema)


def to_pandas(
    things: Iterable[M], kind: type[M] | None = None, *, exact: bool = False
) -> "pandas.DataFrame":
    """A data frame of pandas, as `to_arrow` makes a table. Raises ImportError without pandas.

    Numbers are float64, or with `exact` Decimals with all their digits. Unknown values are NaN.
    """
    pandas = _import("pandas", "to_pandas")
    found, model = _check_kind(things, kind)
    rows = [row_of(thing, Decimal if exact else float) for thing in found]
    return pandas.DataFrame({
        column.name: _series(
            pandas, [row[column.name] for row in rows], column.kind, exact=exact
        )
        for column in columns_of(model)
    })  # fmt: skip


def _series(pandas: Any, values: list[Any], kind: ColumnKind, *, exact: bool) -> Any:
    if kind is ColumnKind.INSTANT:
        return pandas.Series(
            pandas.to_datetime(pandas.Series(values, dtype="Int64"), unit="ms", utc=True)
        )
    types = {
        ColumnKind.INTEGER: "Int64",
        ColumnKind.BOOLEAN: "boolean",
        ColumnKind.CATEGORY: "category",
        ColumnKind.TEXT: "string",
    }
    if not exact:
        types[ColumnKind.NUMBER] = "float64"
    return pandas.Series(values, dtype=types.get(kind, "object"))


def to_polars(
    things: Iterable[M], kind: type[M] | None = None, *, exact: bool = False
) -> "polars.DataFrame":
    """A data frame of Polars, as `to_arrow` makes a table. Raises ImportError without Polars.

    Numbers are Float64, or with `exact` Decimal(38, 18). Unknown values are null.
    """
    library = _import("polars", "to_polars")
    found, model = _check_kind(things, kind)
    number = library.Decimal(DIGITS, PLACES) if exact else library.Float64
    types = {
        ColumnKind.TEXT: library.String,
        ColumnKind.CATEGORY: library.String,
        ColumnKind.INSTANT: library.Datetime("ms", "UTC"),
        ColumnKind.NUMBER: number,
        ColumnKind.INTEGER: library.Int64,
        ColumnKind.BOOLEAN: library.Boolean,
        ColumnKind.NUMBERS: library.List(number),
        ColumnKind.NAMES: library.List(library.String),
    }
    period = {column.name: types[column.kind] for column in columns_of(ChargePeriod)}
    types[ColumnKind.PERIODS] = library.List(library.Struct(period))
    schema = {column.name: types[column.kind] for column in columns_of(model)}
    rows = [row_of(thing, _checked if exact else float) for thing in found]
    frame: polars.DataFrame = library.DataFrame(rows, schema=schema, orient="row")
    return frame


def _check_kind(things: Iterable[M], kind: type[M] | None) -> tuple[list[M], type[M]]:
    found = list(things)
    model = kind or (type(found[0]) if found else None)
    if model is None:
        raise ValueError("There is nothing in it: say what it would be, such as kind=Session.")
    if not (isinstance(model, type) and issubclass(model, msgspec.Struct)):
        raise TypeError(f"Objects of this SDK are expected, such as Session, not {model!r}.")
    for thing in found:
        if type(thing) is not model:
            raise TypeError(f"A {model.__name__} is expected, not {type(thing).__name__}.")
    return found, model


def _import(name: str, caller: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise ImportError(f"{caller} needs {name}: pip install {name}") from None


def _checked(number: Decimal) -> Decimal:
    if not fits(number):
        raise ValueError(f"{number} has more than {PLACES} decimal places.")
    return number
