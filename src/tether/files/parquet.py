"""Chargers, vehicles, events and sessions in Parquet, with pyarrow, which is an extra.

Every number is written as a decimal128(38, 18), which is exact and large enough for sums. The API
allows numbers with more than 18 decimal places: they are refused, not rounded. Files of other
programs can be read, too: with integers, floats, and timestamps of any unit.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from math import isfinite, isnan
from pathlib import Path
from typing import Any, BinaryIO

from tether.domain.errors import SetupError
from tether.domain.models import EXACT, to_json
from tether.domain.table_schema import PLACES, arrow_schema, fits, row_of
from tether.domain.timestamps import format_instant, ms_of
from tether.files.table import Sum, Tabular

PAGES_TOGETHER = 50  # pages of rows in a row group
MARK = b"PAR1"  # the first bytes of a Parquet file
_ROWS_AT_ONCE = 1000


class ParquetFile:
    """Writes a Parquet file, a page of rows at a time."""

    def __init__(self, model: type[Tabular], path: Path | BinaryIO) -> None:
        self._arrow, parquet = _pyarrow()
        self._schema = arrow_schema(model, self._arrow)
        self._file = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._pages: list[Any] = []

    def write(self, rows: Sequence[Tabular]) -> None:
        page = [_row(row) for row in rows]
        self._pages.append(self._arrow.RecordBatch.from_pylist(page, schema=self._schema))
        if len(self._pages) == PAGES_TOGETHER:
            self._write_pages()

    def close(self) -> None:
        """Completes the file."""
        if self._pages:
            self._write_pages()
        self._file.close()

    def _write_pages(self) -> None:
        self._file.write_table(self._arrow.Table.from_batches(self._pages, self._schema))
        self._pages = []


def read_lines(path: Path) -> Iterator[bytes]:
    """The rows of a Parquet file as lines of NDJSON. Raises SetupError if it is damaged."""
    arrow, parquet = _pyarrow()
    try:
        with parquet.ParquetFile(path) as file:
            schemas = _readable(file.schema_arrow, arrow)
            for batch in file.iter_batches(_ROWS_AT_ONCE):
                table = arrow.Table.from_batches([batch])
                for schema in schemas:
                    table = table.cast(schema, safe=False)
                yield from map(_line, table.to_pylist())
    except OverflowError:
        raise SetupError(f"{path} has a time before the year 1, or after 9999.") from None
    except (arrow.ArrowException, OSError) as error:
        raise SetupError(f"{path} is a damaged Parquet file ({error}).") from None


def _readable(schema: Any, arrow: Any) -> tuple[Any, Any]:
    """Two schemas. Rows are cast to the first, then to the second, so that Python can read them.

    Times get microseconds. Floats of 32 bits become text first: otherwise 7.4 would become
    7.400000095367432.
    """
    text = last = schema
    for index, field in enumerate(schema):
        kind, listed = field.type, arrow.types.is_list(field.type)
        if arrow.types.is_timestamp(kind):
            last = last.set(index, field.with_type(arrow.timestamp("us", tz=kind.tz)))
        elif arrow.types.is_duration(kind):
            last = last.set(index, field.with_type(arrow.duration("us")))
        elif arrow.types.is_float32(kind.value_type if listed else kind):
            short, long = arrow.string(), arrow.float64()
            text = text.set(index, field.with_type(arrow.list_(short) if listed else short))
            last = last.set(index, field.with_type(arrow.list_(long) if listed else long))
    return text, last


def _line(row: dict[str, Any]) -> bytes:
    given = {name: _json_value(value) for name, value in row.items()}
    return to_json({name: value for name, value in given.items() if value is not None}) + b"\n"


def _json_value(value: Any) -> Any:
    """The value in JSON; None for a missing one."""
    match value:
        case float() if isnan(value):
            plain: Any = None
        case float():
            # The shortest number for this float. The API's rules refuse an infinite one.
            plain = Decimal(repr(value)) if isfinite(value) else str(value)
        case Decimal():  # without trailing zeros
            plain = Decimal(f"{value.normalize(EXACT):f}")
        case datetime(tzinfo=None):
            plain = value.isoformat()
        case datetime():
            plain = format_instant(ms_of(value))
        case timedelta():
            plain = Decimal(value // timedelta(microseconds=1)) / 1_000_000
        case list():
            plain = list(map(_json_value, value))
        case dict():
            plain = {name: _json_value(inner) for name, inner in value.items()}
        case _:
            plain = value
    return plain


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise SetupError(
            "Parquet needs pyarrow: pip install '.[parquet]' in Tether's folder. "
            "CSV and NDJSON need nothing more."
        ) from None
    return pyarrow, parquet


def _row(item: Tabular) -> dict[str, Any]:
    def checked(number: Decimal) -> Decimal:
        if not fits(number):
            raise SetupError(
                f"{_name(item)} has the number {number}, too fine for Parquet's {PLACES} places "
                "after the point: export CSV or NDJSON."
            )
        return number

    return row_of(item, checked)


def _name(item: Tabular) -> str:
    kind = type(item).__name__
    return f"{kind} from {item.from_}" if isinstance(item, Sum) else f"{kind} {item.id}"
