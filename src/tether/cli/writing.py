"""How commands write many things into a file or to standard output: CSV, NDJSON, Parquet."""

import gzip
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, cast
from zoneinfo import ZoneInfo

import click

from tether.cli.display.output import plain, safe_json
from tether.cli.files import followed, replacing
from tether.cli.options import SEPARATOR, FilePath, together
from tether.files.contents import Tabular, csv_columns
from tether.files.csv_form import BYTE_ORDER_MARK, CsvForm, csv_line
from tether.files.csv_table import to_csv
from tether.files.formats import to_ndjson

csv_options = together(
    click.option("--separator", type=SEPARATOR,
                 help="CSV: , ; | or tab.  [default: , or, with --decimal-comma, ;]"),
    click.option("--decimal-comma", is_flag=True, help="CSV: 7,4 in place of 7.4."),
    click.option("--bom", is_flag=True,
                 help="CSV: begin with the mark by which Excel knows UTF-8."),
)  # fmt: skip


output_option = click.option(
    "--output",
    metavar="FILE",
    type=FilePath(dir_okay=False, path_type=Path),
    help="Not standard output. Whole or not there; .gz is compressed.",
)


def form_of(file: Path | None, forms: Sequence[str], usual: str) -> str:
    """The format that the file name says, otherwise the usual one."""
    name = file.name.removesuffix(".gz") if file else ""
    return next((form for form in forms if name.endswith(f".{form}")), usual)


class Writer(Protocol):
    """Writes things in one format."""

    def write(self, things: list[Any]) -> None: ...

    def close(self) -> None:
        """Completes the output."""


class Output(NamedTuple):
    """What to write, and how. `file` is None for standard output."""

    model: type[Tabular]
    form: str
    file: Path | None
    separator: str | None = None
    decimal_comma: bool = False
    bom: bool = False
    zone: ZoneInfo | None = None

    def check(self) -> None:
        """Raises UsageError for options that do not go together."""
        if self.form != "csv" and (self.separator or self.decimal_comma or self.bom):
            raise click.UsageError(
                "--separator, --decimal-comma and --bom are for CSV: give --format csv."
            )
        if self.form == "parquet" and self.file is None:
            raise click.UsageError("Parquet needs a file: give --output FILE.")
        if self.file is not None and self.file.suffix == ".gz" and self.form == "parquet":
            raise click.UsageError("Parquet is compressed already: leave .gz off.")

    @contextmanager
    def opened(self) -> Iterator[Writer]:
        """The writer. A file gets its name when it is complete."""
        with target(self.file) as path:
            writer = self._writer(path)
            yield writer
            writer.close()

    def _writer(self, path: Path | None) -> Writer:
        if self.form == "parquet" and path is not None:
            from tether.files.parquet import ParquetFile

            return ParquetFile(self.model, path)
        gzipped = self.file is not None and self.file.suffix == ".gz"
        if self.form != "csv":
            return _Text(to_ndjson, "", path, gzipped=gzipped)
        separator = self.separator or (";" if self.decimal_comma else ",")
        form = CsvForm(separator, self.decimal_comma, self.zone)
        header = BYTE_ORDER_MARK * self.bom + csv_line(csv_columns(self.model), form)
        return _Text(partial(to_csv, form=form), header, path, gzipped=gzipped)


@contextmanager
def target(output: Path | None) -> Iterator[Path | None]:
    """The path to write to: None for standard output, or a file that is renamed when complete.

    A pipe or a device, such as /dev/null, is not replaced by a file.
    """
    if output is None:
        yield None
        return
    whole = followed(output)  # a link stays a link
    if whole.exists() and not whole.is_file():
        yield whole
        return
    with replacing(whole) as file:
        yield file


class _Text:
    """Writes CSV or NDJSON into a file, or to standard output if that is None."""

    def __init__(
        self, text: Callable[[Any], str], header: str, path: Path | None, *, gzipped: bool
    ) -> None:
        self._text = text
        self._is_ours = path is not None
        self._file = sys.stdout if path is None else _opened(path, gzipped=gzipped)
        self._shown: Callable[[str], str] = str
        if not self._is_ours and self._file.isatty():
            self._shown = partial(plain, keep="\r\n") if header else safe_json
        self._file.write(header)

    def write(self, things: list[Any]) -> None:
        text = "".join(map(self._text, things))
        self._file.write(self._shown(text))
        if not self._is_ours:
            self._file.flush()  # so that a reader gets each page at once

    def close(self) -> None:
        if self._is_ours:
            self._file.close()


def _opened(path: Path, *, gzipped: bool) -> IO[str]:
    open_ = gzip.open if gzipped else open
    return cast(IO[str], open_(path, "wt", encoding="utf-8", newline=""))
