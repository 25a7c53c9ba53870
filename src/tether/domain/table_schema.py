"""The API's objects as rows of a table with typed columns, for Parquet and for data frames.

Columns have the API's names. The members of an inner object are columns of their own, such as
`unknown.stateOfCharge`.
"""

from collections.abc import Callable, Iterator
from decimal import Decimal
from enum import Enum
from functools import cache
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

from tether.domain.models import EXACT
from tether.domain.timestamps import parse_instant
from tether.domain.views import ChargePeriod

DIGITS, PLACES = 38, 18
"""Of decimal columns: numbers are exact, and sums of many numbers fit."""
INSTANTS = frozenset({
    "timestamp", "connectedAt", "startedAt", "stoppedAt", "disconnectedAt", "updatedAt",
    "lastEventAt", "from", "to", "asOf",
})  # fmt: skip


class ColumnKind(Enum):
    """The kind of a column's values."""

    TEXT = "text"
    CATEGORY = "one of a few words"
    INSTANT = "milliseconds since 1970"
    NUMBER = "a Decimal"
    INTEGER = "an integer"
    BOOLEAN = "a bool"
    NUMBERS = "a list of Decimals"
    NAMES = "a list of text"
    PERIODS = "a list of charge periods, as dicts"


class Column(NamedTuple):
    """A column: its name, the kind of its values, and the path of fields to them."""

    name: str
    kind: ColumnKind
    path: tuple[str, ...]


_KINDS: list[tuple[type[inspect.Type], ColumnKind]] = [
    (inspect.DecimalType, ColumnKind.NUMBER),
    (inspect.IntType, ColumnKind.INTEGER),
    (inspect.BoolType, ColumnKind.BOOLEAN),
    (inspect.EnumType, ColumnKind.CATEGORY),
    (inspect.StrType, ColumnKind.TEXT),
]


@cache
def columns_of(model: type[msgspec.Struct]) -> tuple[Column, ...]:
    """The columns of a table of these objects."""
    return tuple(_columns(inspect.type_info(model), "", ()))


def _columns(info: inspect.Type, prefix: str, path: tuple[str, ...]) -> Iterator[Column]:
    assert isinstance(info, inspect.StructType)
    for field in info.fields:
        name, inner_path = f"{prefix}{field.encode_name}", (*path, field.name)
        inner = field.type
        if isinstance(inner, inspect.UnionType):
            inner = next(part for part in inner.types if not isinstance(part, inspect.NoneType))
        if isinstance(inner, inspect.StructType):
            yield from _columns(inner, f"{name}.", inner_path)
        else:
            yield Column(name, _kind(field.encode_name, inner), inner_path)


def _kind(name: str, info: inspect.Type) -> ColumnKind:
    if name in INSTANTS:
        return ColumnKind.INSTANT
    if isinstance(info, inspect.VarTupleType):
        if isinstance(info.item_type, inspect.StructType):
            return ColumnKind.PERIODS if info.item_type.cls is ChargePeriod else ColumnKind.NAMES
        return ColumnKind.NUMBERS
    return next(kind for type_, kind in _KINDS if isinstance(info, type_))


def row_of(thing: msgspec.Struct, number: Callable[[Decimal], Any]) -> dict[str, Any]:
    """The object's value in each column, None for a missing one. `number` converts Decimals."""
    row = {}
    for name, kind, path in columns_of(type(thing)):
        value: Any = thing
        for field in path:
            value = None if value is None else getattr(value, field)
        convert = _CONVERT.get(kind)
        row[name] = value if convert is None or value is None else convert(value, number)
    return row


_CONVERT: dict[ColumnKind, Callable[[Any, Callable[[Decimal], Any]], Any]] = {
    ColumnKind.INSTANT: lambda text, _: parse_instant(text),
    ColumnKind.NUMBER: lambda value, number: number(value),
    ColumnKind.NUMBERS: lambda values, number: list(map(number, values)),
    ColumnKind.NAMES: lambda flags, _: [flag.name for flag in flags],
    ColumnKind.PERIODS: lambda periods, number: [row_of(period, number) for period in periods],
    ColumnKind.CATEGORY: lambda word, _: word.value,
}


def fits(number: Decimal) -> bool:
    """Whether the number has at most PLACES digits after the point."""
    exponent = number.normalize(EXACT).as_tuple().exponent
    return isinstance(exponent, int) and -exponent <= PLACES


def arrow_schema(model: type[msgspec.Struct], arrow: Any) -> Any:
    """The Arrow schema of these objects; `arrow` is the module pyarrow."""
    text, number = arrow.string(), arrow.decimal128(DIGITS, PLACES)
    types = {
        ColumnKind.TEXT: text,
        ColumnKind.CATEGORY: text,
        ColumnKind.INSTANT: arrow.timestamp("ms", tz="UTC"),
        ColumnKind.NUMBER: number,
        ColumnKind.INTEGER: arrow.int64(),
        ColumnKind.BOOLEAN: arrow.bool_(),
        ColumnKind.NUMBERS: arrow.list_(number),
        ColumnKind.NAMES: arrow.list_(text),
    }
    period = arrow.struct([(name, types[kind]) for name, kind, _ in columns_of(ChargePeriod)])
    types[ColumnKind.PERIODS] = arrow.list_(period)
    # Not within periods: some readers cannot read a dictionary within a list of structs.
    types[ColumnKind.CATEGORY] = arrow.dictionary(arrow.int8(), text)
    return arrow.schema([(name, types[kind]) for name, kind, _ in columns_of(model)])
