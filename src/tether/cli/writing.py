"""Writes CSV, NDJSON and Parquet to a file or to standard output.

A file is written completely or not at all, and never through a link of another user.
"""

import gzip
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol
from zoneinfo import ZoneInfo

import click

from tether.cli.display.output import plain, safe_json
from tether.cli.options import SEPARATOR, FilePath, together
from tether.domain.errors import SetupError
from tether.files.csv_dialect import BYTE_ORDER_MARK, CsvDialect, csv_line
from tether.files.csv_table import to_csv
from tether.files.table import Tabular, csv_columns
from tether.files.table_reader import to_ndjson

FOR_OWNER = 0o600
FOR_ALL = 0o644  # minus the umask; only the owner may write
_MAX_LINKS = 40

csv_options = together(
    click.option("--separator", type=SEPARATOR,
                 help="CSV: , ; | or tab.  [default: , or, with --decimal-comma, ;]"),
    click.option("--decimal-comma", is_flag=True, help="CSV: 7,4 in place of 7.4."),
    click.option("--bom", is_flag=True,
                 help="CSV: begin with the mark by which Excel recognises UTF-8."),
)  # fmt: skip


output_option = click.option(
    "--output",
    metavar="FILE",
    type=FilePath(dir_okay=False, path_type=Path),
    help="Write to FILE, which appears when it is complete; .gz is compressed.",
)


class Writer(Protocol):
    """Writes rows in one format."""

    def write(self, rows: list[Any]) -> None: ...

    def close(self) -> None:
        """Completes the output."""


class Output(NamedTuple):
    """What to write, and how. `file` is None for standard output."""

    model: type[Tabular]
    format: str
    file: Path | None
    separator: str | None = None
    decimal_comma: bool = False
    bom: bool = False
    zone: ZoneInfo | None = None

    def check(self) -> None:
        """Raises UsageError for options that contradict each other."""
        if self.format != "csv" and (self.separator or self.decimal_comma or self.bom):
            raise click.UsageError(
                "--separator, --decimal-comma and --bom are for CSV: give --format csv."
            )
        if self.format == "parquet" and self.file is None:
            raise click.UsageError("Parquet needs a file: give --output FILE.")
        if self.file is not None and self.file.suffix == ".gz" and self.format == "parquet":
            raise click.UsageError("Parquet is compressed already: leave .gz off.")

    @contextmanager
    def opened(self) -> Iterator[Writer]:
        """The writer. A file gets its name when it is complete.

        A pipe or a device, such as /dev/null, is not replaced by a file.
        """
        with ExitStack() as stack:
            path = self.file
            if path is not None:
                path = _resolved(path)
                if path.is_file() or not path.exists():
                    path = stack.enter_context(replacing(path))
            writer = self._writer(path)
            yield writer
            writer.close()

    def _writer(self, path: Path | None) -> Writer:
        if self.format == "parquet" and path is not None:
            from tether.files.parquet import ParquetFile

            return ParquetFile(self.model, path)
        gzipped = self.file is not None and self.file.suffix == ".gz"
        if self.format != "csv":
            return _Text(to_ndjson, "", path, gzipped=gzipped)
        separator = self.separator or (";" if self.decimal_comma else ",")
        dialect = CsvDialect(separator, self.decimal_comma, self.zone)
        header = BYTE_ORDER_MARK * self.bom + csv_line(csv_columns(self.model), dialect)
        return _Text(partial(to_csv, dialect=dialect), header, path, gzipped=gzipped)


def output_of(
    model: type[Tabular],
    options: dict[str, Any],
    zone: ZoneInfo | None,
    formats: Sequence[str],
    default: str,
) -> Output:
    """The output that the options --format, --output and `csv_options` describe; removes them.

    Without --format, the end of the file name says which of the `formats` it is.
    """
    file, format = options.pop("output"), options.pop("format")
    if format is None:
        name = file.name.removesuffix(".gz") if file else ""
        format = next((known for known in formats if name.endswith(f".{known}")), default)
    csv = {name: options.pop(name) for name in ("separator", "decimal_comma", "bom")}
    return Output(model, format, file, **csv, zone=zone)


class _Text:
    """Writes CSV or NDJSON into a file, or to standard output if that is None."""

    def __init__(
        self, text_of: Callable[[Any], str], header: str, path: Path | None, *, gzipped: bool
    ) -> None:
        self._text_of = text_of
        self._escape: Callable[[str], str] = str
        self._file: Any = sys.stdout
        if path is not None:
            open_ = gzip.open if gzipped else open
            self._file = open_(path, "wt", encoding="utf-8", newline="")
        elif self._file.isatty():
            self._escape = partial(plain, keep="\r\n") if header else safe_json
        self._file.write(header)

    def write(self, rows: list[Any]) -> None:
        self._file.write(self._escape("".join(map(self._text_of, rows))))
        if self._file is sys.stdout:
            self._file.flush()  # so that a reader gets each page at once

    def close(self) -> None:
        if self._file is not sys.stdout:
            self._file.close()


# Files ------------------------------------------------------------------------------------------


def create(path: Path) -> IO[str]:
    """Creates a file. Raises FileExistsError if the name is taken, also by a link."""
    return open(_created(path), "w", encoding="utf-8")


@contextmanager
def replacing(path: Path, mode: int = FOR_ALL) -> Iterator[Path]:
    """A new file in the same folder. It gets the name at the end; an error removes it."""
    new = path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}.partial")
    try:
        os.close(_created(new, mode))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    try:
        yield new
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def _resolved(path: Path) -> Path:
    """The target of a path that may be a link. Raises SetupError for a link of another user.

    Another user who may write in the folder could point a link at any file of ours.
    """
    target = path
    for _ in range(_MAX_LINKS):
        if not target.is_symlink():
            return target
        folder = target.parent.stat()
        mine = (os.geteuid(), 0)
        if folder.st_mode & stat.S_IWOTH or target.lstat().st_uid not in mine:
            raise SetupError(
                f"{path} is a link which somebody else may have put there: name another file."
            )
        target = target.parent / os.readlink(target)
    raise SetupError(f"{path} is a link that leads nowhere.")


def _created(path: Path, mode: int = FOR_ALL) -> int:
    """Opens a new file. Raises FileExistsError if the name is taken, also by a link."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
