"""Chargers, vehicles, events and sessions as Parquet, through pyarrow, an extra of its own.

Every number is a decimal128(38, 18): exact, and sums of many stay within it. The API takes numbers
with more than 18 places after the point, which no meter has: they are refused, not rounded.
"""

from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from tether.domain.errors import SetupError
from tether.domain.timestamps import parse_instant
from tether.domain.views import ChargePeriod, Flag
from tether.files.contents import TIMES, Sum, Tabular

DIGITS, PLACES = 38, 18
PAGES_TOGETHER = 50  # pages of rows in a row group
_COUNTS = ("version", "periodsWithoutEnergy", "sessions", "vehicles", "chargers")


class ParquetFile:
    """Writes a Parquet file, a page of things at a time."""

    def __init__(self, model: type[Tabular], path: Path) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            raise SetupError(
                "Parquet needs pyarrow: pip install '.[parquet]' in Tether's folder. "
                "CSV and NDJSON need nothing more."
            ) from None
        self._arrow = pyarrow
        self._schema = _schema(model, pyarrow)
        self._file = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._pages: list[Any] = []

    def write(self, things: list[Tabular]) -> None:
        """So many more."""
        rows = [_row(thing, thing) for thing in things]
        self._pages.append(self._arrow.RecordBatch.from_pylist(rows, schema=self._schema))
        if len(self._pages) == PAGES_TOGETHER:
            self._write_pages()

    def close(self) -> None:
        """Makes the file whole."""
        if self._pages:
            self._write_pages()
        self._file.close()

    def _write_pages(self) -> None:
        self._file.write_table(self._arrow.Table.from_batches(self._pages, self._schema))
        self._pages = []


def _schema(model: type[Tabular], pyarrow: Any) -> Any:
    number, text = pyarrow.decimal128(DIGITS, PLACES), pyarrow.string()
    word, instant = pyarrow.dictionary(pyarrow.int8(), text), pyarrow.timestamp("ms", tz="UTC")
    types = {
        **dict.fromkeys(("id", "chargerId", "vehicleId", "flag", "area"), text),
        **dict.fromkeys(("type", "status", "energySource"), word),
        **dict.fromkeys(TIMES, instant),
        **dict.fromkeys(("chargePowers", "dischargePowers"), pyarrow.list_(number)),
        "estimated": pyarrow.bool_(),
        **dict.fromkeys(_COUNTS, pyarrow.int64()),
        "flags": pyarrow.list_(text),
    }

    def fields(model: type[msgspec.Struct]) -> list[Any]:
        return [
            pyarrow.field(field.encode_name, types.get(field.encode_name, number))
            for field in msgspec.structs.fields(model)
        ]

    # A dictionary within a list of structs is what some readers cannot read.
    types["periods"] = pyarrow.list_(
        pyarrow.struct([
            field.with_type(text) if field.type == word else field for field in fields(ChargePeriod)
        ])
    )  # fmt: skip
    return pyarrow.schema(fields(model))


def _row(thing: Tabular | ChargePeriod, whole: Tabular) -> dict[str, Any]:
    return {
        field.encode_name: _cell(whole, field.encode_name, getattr(thing, field.name))
        for field in msgspec.structs.fields(type(thing))
    }


def _cell(whole: Tabular, name: str, value: Any) -> Any:
    if isinstance(value, tuple):
        return [_cell(whole, name, part) for part in value]
    if isinstance(value, ChargePeriod):
        return _row(value, whole)
    if isinstance(value, Flag):
        return value.name
    if name in TIMES:
        return value and parse_instant(value)
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, Decimal) and _places(value) > PLACES:
        raise SetupError(
            f"{_name(whole)} has the number {value}, too fine for Parquet's {PLACES} places after "
            "the point: export CSV or NDJSON."
        )
    return value


def _name(whole: Tabular) -> str:
    kind = type(whole).__name__
    return f"{kind} from {whole.from_}" if isinstance(whole, Sum) else f"{kind} {whole.id}"


def _places(number: Decimal) -> int:
    """How many places after the point it needs."""
    exponent = number.normalize().as_tuple().exponent
    assert isinstance(exponent, int)
    return -exponent
