"""Chargers, vehicles, events and sessions as Parquet, through pyarrow, an extra of its own.

Every number is a decimal128(38, 18): exact, and sums of many stay within it. The API takes numbers
with more than 18 places after the point, which no meter has: they are refused, not rounded.
"""

from decimal import Decimal
from pathlib import Path
from typing import Any

from tether.domain.columns import arrow_schema, has_places, row_of
from tether.domain.errors import SetupError
from tether.files.contents import Sum, Tabular

DIGITS, PLACES = 38, 18
PAGES_TOGETHER = 50  # pages of rows in a row group


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
        number = pyarrow.decimal128(DIGITS, PLACES)
        self._schema = arrow_schema(model, pyarrow, number)
        self._file = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._pages: list[Any] = []

    def write(self, things: list[Tabular]) -> None:
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


def _row(thing: Tabular) -> dict[str, Any]:
    def fine(number: Decimal) -> Decimal:
        if not has_places(number, PLACES):
            raise SetupError(
                f"{_name(thing)} has the number {number}, too fine for Parquet's {PLACES} places "
                "after the point: export CSV or NDJSON."
            )
        return number

    return row_of(thing, fine)


def _name(whole: Tabular) -> str:
    kind = type(whole).__name__
    return f"{kind} from {whole.from_}" if isinstance(whole, Sum) else f"{kind} {whole.id}"
