"""`tether export`: all chargers, vehicles or events into a file."""

import gzip
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import IO, Protocol, cast

import click

from tether.cli.access import Access, told_of_waiting, with_access
from tether.cli.members import InstantType
from tether.cli.output import counted, note
from tether.interchange import COLUMNS, Kind, Thing, csv_line, to_csv, to_ndjson

FORMATS = ("csv", "ndjson", "parquet")
PAGE = 1000
PARTIAL = ".partial"


class Writer(Protocol):
    """Writes things into a file; `close` makes it whole."""

    def write(self, things: list[Thing]) -> None:
        """So many more."""

    def close(self) -> None:
        """Nothing more comes."""


@click.command(
    epilog="""\b
Examples:
  tether export chargers > chargers.ndjson
  tether export events --from 2023-05-01 --to 2023-06-01 --output may.csv
  tether export events --output events.ndjson.gz
  tether export events --output events.parquet

\b
`tether import` reads CSV and NDJSON as they are written here.""",
)
@click.argument("kind", metavar="chargers|vehicles|events",
                type=click.Choice([kind.value for kind in Kind]))  # fmt: skip
@click.option("--from", "from_", type=InstantType(), help="Events not before this time.")
@click.option("--to", type=InstantType(), help="Events before this time.")
@click.option("--format", "form", type=click.Choice(FORMATS),
              help="[default: as the name of FILE says, else ndjson]")  # fmt: skip
@click.option("--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
              help="Not standard output. Whole or not there; .gz is compressed.")  # fmt: skip
@with_access
def export(
    kind: str,
    from_: str | None,
    to: str | None,
    form: str | None,
    output: Path | None,
    access: Access,
) -> None:
    """Export all chargers, vehicles or events.

    Events come in the order in which they came in. Times are dates (their first moment in UTC) or
    date-times with a zone.
    """
    wanted = Kind(kind)
    if wanted is not Kind.EVENTS and (from_ or to):
        raise click.UsageError("--from and --to are for events.")
    form = form or _form_of(output)
    if form == "parquet" and output is None:
        raise click.UsageError("Parquet needs a file: give --output FILE.")
    if output is not None and output.suffix == ".gz" and form == "parquet":
        raise click.UsageError("Parquet is compressed already: leave .gz off.")
    started = time.monotonic()
    with _target(output) as path, access.client(patient=True) as client:
        if wanted is Kind.EVENTS:
            found: Iterator[Thing] = client.events.list(from_=from_, to=to, page_size=PAGE)
        elif wanted is Kind.CHARGERS:
            found = client.chargers.list(page_size=PAGE)
        else:
            found = client.vehicles.list(page_size=PAGE)
        writer = _writer(form, wanted, path, gzipped=output is not None and output.suffix == ".gz")
        done = _write(found, writer, wanted, quiet=path is None and sys.stdout.isatty())
    if output is not None:
        seconds = time.monotonic() - started
        note(
            f"Exported {counted(done, wanted.one)} to {output} "
            f"({output.stat().st_size:,} bytes, {seconds:.1f} s, {done / seconds:,.0f}/s)."
        )


def _form_of(output: Path | None) -> str:
    name = output.name.removesuffix(".gz") if output else ""
    return next((form for form in FORMATS if name.endswith(f".{form}")), "ndjson")


@contextmanager
def _target(output: Path | None) -> Iterator[Path | None]:
    """Where to write: None for standard output, or a file that gets its name when it is whole."""
    if output is None:
        yield None
        return
    partial = output.with_name(output.name + PARTIAL)
    try:
        yield partial
        os.replace(partial, output)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _write(found: Iterator[Thing], writer: Writer, kind: Kind, *, quiet: bool) -> int:
    """Writes them all, a page at a time; how many they were."""
    from tether.cli.progress import Rows, shown_rows

    done = 0
    # Where the rows themselves are seen, a counter would stand between them.
    with nullcontext(Rows(kind, 0)) if quiet else shown_rows(kind) as shown:
        with told_of_waiting(shown.notice):
            while page := list(islice(found, PAGE)):
                writer.write(page)
                done += len(page)
                shown.advance(len(page))
        writer.close()
    return done


class _Text:
    """Writes CSV or NDJSON."""

    def __init__(self, kind: Kind, form: str, file: IO[str]) -> None:
        self._file = file
        self._is_ours = file is not sys.stdout
        self._text: Callable[[Thing], str] = to_csv if form == "csv" else to_ndjson
        if form == "csv":
            file.write(csv_line(COLUMNS[kind]))

    def write(self, things: list[Thing]) -> None:
        self._file.write("".join(map(self._text, things)))
        if not self._is_ours:
            self._file.flush()  # whoever reads it shall not wait for more

    def close(self) -> None:
        if self._is_ours:
            self._file.close()


def _writer(form: str, kind: Kind, path: Path | None, *, gzipped: bool) -> Writer:
    if path is None:
        return _Text(kind, form, sys.stdout)
    if form == "parquet":
        from tether.cli.parquet import ParquetFile

        return ParquetFile(kind, path)
    if gzipped:
        return _Text(kind, form, cast(IO[str], gzip.open(path, "wt", encoding="utf-8", newline="")))
    return _Text(kind, form, path.open("w", encoding="utf-8", newline=""))
