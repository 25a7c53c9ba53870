"""Chargers, vehicles and events as Parquet, through pyarrow, which is an extra of its own.

Every number is a decimal128(38, 18): exact, and sums of many stay within it. The API takes numbers
with more than 18 places after the point, which no meter has: they are refused, not rounded.
"""

from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from tether.errors import SetupError
from tether.interchange import MODELS, Kind, Thing
from tether.model import Event

DIGITS, PLACES = 38, 18
PAGES_TOGETHER = 50  # pages of rows in a row group


class ParquetFile:
    """Writes a Parquet file, a page of things at a time."""

    def __init__(self, kind: Kind, path: Path) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            raise SetupError(
                "Parquet needs pyarrow: pip install 'tether-partner-api[parquet]'. "
                "CSV and NDJSON need nothing more."
            ) from None
        self._arrow = pyarrow
        self._schema = _schema(kind, pyarrow)
        self._file = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._pages: list[Any] = []

    def write(self, things: list[Thing]) -> None:
        """So many more."""
        rows = [_row(thing) for thing in things]
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


def _schema(kind: Kind, pyarrow: Any) -> Any:
    number = pyarrow.decimal128(DIGITS, PLACES)
    types = {
        "id": pyarrow.string(),
        "type": pyarrow.dictionary(pyarrow.int8(), pyarrow.string()),
        "chargerId": pyarrow.string(),
        "vehicleId": pyarrow.string(),
        "timestamp": pyarrow.timestamp("ms", tz="UTC"),
        "chargePowers": pyarrow.list_(number),
        "dischargePowers": pyarrow.list_(number),
    }
    fields = msgspec.structs.fields(MODELS[kind])
    return pyarrow.schema([(f.encode_name, types.get(f.encode_name, number)) for f in fields])


def _row(thing: Thing) -> dict[str, Any]:
    row: dict[str, Any] = {
        field.encode_name: _cell(thing, getattr(thing, field.name))
        for field in msgspec.structs.fields(type(thing))
    }
    if isinstance(thing, Event):
        row["type"] = thing.type.value
        row["timestamp"] = thing.time
    return row


def _cell(thing: Thing, value: Any) -> Any:
    if isinstance(value, tuple):
        return [_cell(thing, power) for power in value]
    if isinstance(value, Decimal) and _places(value) > PLACES:
        raise SetupError(
            f"{type(thing).__name__} {thing.id} has the number {value}, too fine for Parquet's "
            f"{PLACES} places after the point: export CSV or NDJSON."
        )
    return value


def _places(number: Decimal) -> int:
    """How many places after the point it needs."""
    exponent = number.normalize().as_tuple().exponent
    assert isinstance(exponent, int)
    return -exponent
