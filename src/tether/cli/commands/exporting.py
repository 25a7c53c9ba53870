"""`tether export`: all chargers, vehicles, events or sessions into a file."""

import gzip
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, cast
from zoneinfo import ZoneInfo

import click

from tether.cli.access import Access, told_of_waiting, with_access
from tether.cli.display.output import counted, note, plain, safe_json
from tether.cli.files import followed, replacing
from tether.cli.members import InstantType
from tether.cli.options import FilePath, SeparatorType, ZoneType
from tether.cli.session_filters import given, option_of, session_filters
from tether.domain.views import Session
from tether.files.contents import MODELS, Entry, columns_of
from tether.files.csv_form import BYTE_ORDER_MARK, CsvForm, csv_line
from tether.files.csv_table import to_csv
from tether.files.formats import to_ndjson

if TYPE_CHECKING:
    from tether.client import Client

FORMATS = ("csv", "ndjson", "parquet")
PAGE = 1000
Exported: TypeAlias = Entry | Session
KINDS: dict[str, type[Exported]] = {
    **{kind.value: model for kind, model in MODELS.items()},
    "sessions": Session,
}


class Writer(Protocol):
    """Writes things into a file; `close` makes it whole."""

    def write(self, things: list[Exported]) -> None:
        """So many more."""

    def close(self) -> None:
        """Nothing more comes."""


@click.command(
    epilog="""\b
Examples:
  tether export chargers > chargers.ndjson
  tether export events --from 2023-05-01 --to 2023-06-01 --output may.csv
  tether export sessions --from 2023-05-01 --output may.ndjson.gz
  tether export sessions --charger C1408 --charger C1409 --not-estimated
  tether export events --output events.parquet
  tether export sessions --output june.csv --decimal-comma --bom

\b
`tether import` reads CSV and NDJSON of chargers, vehicles and events as they
are written here. Sessions come of the events.""",
)
@click.argument("kind", metavar="|".join(KINDS), type=click.Choice(list(KINDS)))
@click.option("--from", "from_", type=InstantType(),
              help="Events, or begun sessions, not before this time.")  # fmt: skip
@click.option("--to", type=InstantType(), help="Events, or begun sessions, before this time.")
@session_filters
@click.option("--order", type=click.Choice(["asc", "desc"]), default="asc", show_default=True,
              help="Sessions: the oldest or the newest first.")  # fmt: skip
@click.option("--format", "form", type=click.Choice(FORMATS),
              help="[default: as the name of FILE says, else ndjson]")  # fmt: skip
@click.option("--output", metavar="FILE", type=FilePath(dir_okay=False, path_type=Path),
              help="Not standard output. Whole or not there; .gz is compressed.")  # fmt: skip
@click.option("--time-zone", "zone", type=ZoneType(), metavar="ZONE",
              help="CSV: local times, such as of Europe/Berlin, that spreadsheets take for dates.  "
              "[default: instants in UTC]")  # fmt: skip
@click.option("--separator", type=SeparatorType(),
              help="CSV: , ; | or tab.  [default: , or, with --decimal-comma, ;]")  # fmt: skip
@click.option("--decimal-comma", is_flag=True, help="CSV: 7,4 in place of 7.4.")
@click.option("--bom", is_flag=True, help="CSV: begin with the mark by which Excel knows UTF-8.")
@with_access
def export(
    kind: str,
    from_: str | None,
    to: str | None,
    order: Literal["asc", "desc"],
    form: str | None,
    output: Path | None,
    zone: ZoneInfo | None,
    separator: str | None,
    decimal_comma: bool,
    bom: bool,
    access: Access,
    **filters: Any,
) -> None:
    """Export all chargers, vehicles, events or sessions.

    Events come in the order in which they came in, sessions in that in which they began. Times
    are dates (their first moment in UTC) or date-times with a zone.
    """
    if kind not in ("events", "sessions") and (from_ or to):
        raise click.UsageError("--from and --to are for events and sessions.")
    chosen = given(filters)
    for name in () if kind == "sessions" else (*chosen, *(["order"] if order == "desc" else [])):
        raise click.UsageError(f"{option_of(name)} is for sessions.")
    form = form or _form_of(output)
    if form != "csv" and (zone or separator or decimal_comma or bom):
        raise click.UsageError(
            "--time-zone, --separator, --decimal-comma and --bom are for CSV: give --format csv."
        )
    csv_form = CsvForm(separator or (";" if decimal_comma else ","), decimal_comma, zone)
    if form == "parquet" and output is None:
        raise click.UsageError("Parquet needs a file: give --output FILE.")
    if output is not None and output.suffix == ".gz" and form == "parquet":
        raise click.UsageError("Parquet is compressed already: leave .gz off.")
    started = time.monotonic()
    with _target(output) as path, access.client(patient=True) as client:
        found = _found(client, kind, from_, to, {**chosen, "order": order})
        gzipped = output is not None and output.suffix == ".gz"
        if form == "parquet" and path is not None:
            from tether.files.parquet import ParquetFile

            writer: Writer = ParquetFile(KINDS[kind], path)
        elif form == "csv":
            mark = BYTE_ORDER_MARK if bom else ""
            header = mark + csv_line(columns_of(KINDS[kind]), csv_form)
            writer = _Text(partial(to_csv, form=csv_form), header, path, gzipped=gzipped)
        else:
            writer = _Text(to_ndjson, "", path, gzipped=gzipped)
        done = _write(found, writer, kind, quiet=path is None and sys.stdout.isatty())
    if output is not None:
        seconds = time.monotonic() - started
        note(
            f"Exported {counted(done, kind.removesuffix('s'))} to {output} "
            f"({output.stat().st_size:,} bytes, {seconds:.1f} s, {done / seconds:,.0f}/s)."
        )


def _found(
    client: "Client", kind: str, from_: str | None, to: str | None, of_sessions: dict[str, Any]
) -> Iterator[Exported]:
    match kind:
        case "events":
            return client.events.list(from_=from_, to=to, page_size=PAGE)
        case "sessions":
            return client.sessions.list(from_=from_, to=to, page_size=PAGE, **of_sessions)
        case "chargers":
            return client.chargers.list(page_size=PAGE)
    return client.vehicles.list(page_size=PAGE)


def _form_of(output: Path | None) -> str:
    name = output.name.removesuffix(".gz") if output else ""
    return next((form for form in FORMATS if name.endswith(f".{form}")), "ndjson")


@contextmanager
def _target(output: Path | None) -> Iterator[Path | None]:
    """Where to write: None for standard output, or a file that gets its name when it is whole.

    A pipe or a device, such as /dev/null, is written to: a file must not take its place.
    """
    if output is None:
        yield None
        return
    whole = followed(output)  # a link goes on to be one
    if whole.exists() and not whole.is_file():
        yield whole
        return
    with replacing(whole) as file:
        yield file


def _write(found: Iterator[Exported], writer: Writer, kind: str, *, quiet: bool) -> int:
    """Writes them all, a page at a time; how many they were."""
    from tether.cli.display.progress import Rows, shown_rows

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
    """Writes CSV or NDJSON into a file, or to standard output if that is None."""

    def __init__(
        self, text: Callable[[Exported], str], header: str, path: Path | None, *, gzipped: bool
    ) -> None:
        self._text = text
        self._is_ours = path is not None
        self._file = sys.stdout if path is None else _opened(path, gzipped=gzipped)
        self._shown: Callable[[str], str] = str
        if not self._is_ours and self._file.isatty():
            self._shown = partial(plain, keep="\r\n") if header else safe_json
        self._file.write(header)

    def write(self, things: list[Exported]) -> None:
        text = "".join(map(self._text, things))
        self._file.write(self._shown(text))
        if not self._is_ours:
            self._file.flush()  # whoever reads it shall not wait for more

    def close(self) -> None:
        if self._is_ours:
            self._file.close()


def _opened(path: Path, *, gzipped: bool) -> IO[str]:
    open_ = gzip.open if gzipped else open
    return cast(IO[str], open_(path, "wt", encoding="utf-8", newline=""))
