"""`tether import`: chargers, vehicles, events and lists of sessions from a file."""

import asyncio
import concurrent.futures
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar
from zoneinfo import ZoneInfo

import click

from tether.cli.access import PATIENT_RETRIES, Access, retries_noticed, with_access
from tether.cli.display.output import counted, note, say, show_line
from tether.cli.display.progress import RowProgress, row_progress
from tether.cli.files import create
from tether.cli.lines import STANDARD_INPUT, Damaged, Lines
from tether.cli.members import POSITIVE_NUMBER
from tether.cli.missing_entities import MissingEntities
from tether.cli.options import SEPARATOR, ZONE, FilePath, Parsed
from tether.domain.errors import SetupError
from tether.domain.models import Event
from tether.files.contents import Entry, Kind, MappedColumn, ReadOptions, Row, Table
from tether.files.csv_form import DateOrder, csv_line
from tether.files.csv_table import column_of, refused_csv, report_header
from tether.files.formats import read_table, refused_ndjson, to_ndjson
from tether.files.session_list import ListedSession

if TYPE_CHECKING:
    from tether.client import AsyncClient

T = TypeVar("T")
Refused: TypeAlias = tuple[Row, str]  # with the reason

BATCH = 2_000  # rows that are read, and sent, together
DRY_ROWS = 10
EVENT_KINDS = (Kind.EVENTS, Kind.SESSIONS)
NO_TIMESTAMP = (
    "It has no timestamp: imported twice it would be reported twice. Give it one, or pass --stamp."
)


def _encoding(text: str) -> str:
    try:
        "".encode(text)
    except LookupError:
        raise ValueError(f"{text!r} is no encoding: utf-8, cp1252, latin-1, utf-16 …") from None
    return text


@click.command(
    "import",
    epilog="""\b
Examples:
  tether import chargers.csv
  tether import events.ndjson.gz
  zcat old.csv.gz | tether import --kind events -
  tether import list.csv --map Station=chargerId --map Start=connectedAt

\b
A CSV has the API's names as its header; several powers in a cell are 11;22:
  id,chargePowers,latitude,longitude
  C1408,11;22,62.268,17.448
More: docs/cli.md""",
)
@click.argument("file", type=FilePath(exists=True, dir_okay=False, allow_dash=True))
@click.option("--kind", type=click.Choice([kind.value for kind in Kind]),
              help="What the file holds.  [default: as its members say]")  # fmt: skip
@click.option("--stamp", is_flag=True,
              help="Events without a timestamp happened now: not to be repeated.")  # fmt: skip
@click.option("--map", "columns", type=Parsed("column=member", column_of), multiple=True,
              metavar="COLUMN=MEMBER",
              help="What a column, or member, is; others are passed over.")  # fmt: skip
@click.option("--ignore", "ignored", multiple=True, metavar="COLUMN",
              help="A column, or member, to pass over; once for each.")  # fmt: skip
@click.option("--encoding", type=Parsed("encoding", _encoding), default="utf-8", metavar="NAME",
              help="How the file's letters are written: cp1252, latin-1, utf-16.  "
              "[default: UTF-8]")  # fmt: skip
@click.option("--time-zone", "zone", type=ZONE, metavar="ZONE",
              help="Of times without one, such as Europe/Berlin.")  # fmt: skip
@click.option("--date-order", type=click.Choice(["dmy", "mdy"]),
              help="Whether day or month comes first in 05/01/2026.")  # fmt: skip
@click.option("--separator", type=SEPARATOR,
              help="Between cells: , ; | or tab.  [default: as the header says]")  # fmt: skip
@click.option("--decimal-comma", is_flag=True,
              help="7,4 means 7.4.  [default: where commas do not separate cells]")  # fmt: skip
@click.option("--create-chargers", type=POSITIVE_NUMBER, metavar="KW",
              help="Create the chargers that events name, with this power.")  # fmt: skip
@click.option("--create-vehicles", type=POSITIVE_NUMBER, metavar="KWH",
              help="Create the vehicles that events name, with this capacity.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Send nothing: show what the first rows mean.")
@with_access
def import_(
    file: str,
    kind: str | None,
    stamp: bool,
    columns: Sequence[tuple[str, MappedColumn]],
    ignored: Sequence[str],
    encoding: str,
    zone: ZoneInfo | None,
    date_order: DateOrder | None,
    separator: str | None,
    decimal_comma: bool,
    create_chargers: Decimal | None,
    create_vehicles: Decimal | None,
    dry_run: bool,
    access: Access,
) -> None:
    """Import chargers, vehicles, events or a list of sessions from FILE.

    FILE is NDJSON (an object a line), CSV or Parquet; the first two may be gzip, or - for
    standard input. Rows that are refused go to a file beside it, with the reasons. Run again,
    nothing changes: what is stored stays as it is.
    A list of sessions, as operators export it, becomes events.
    """

    reading = ReadOptions(
        Kind(kind) if kind else None, separator, decimal_comma, zone, date_order, dict(columns),
        ignored,
    )  # fmt: skip
    with Lines(file, encoding) as lines, access.errors_as_messages():
        if not dry_run:
            access.check()
        table = _table(lines, reading)
        for sentence in table.assumed:
            note(sentence)
        if dry_run:
            _show(table)
            return
        missing = MissingEntities(create_chargers, create_vehicles)
        run = _Import(table, lines, _report_of(file, table), stamp, missing)
        try:
            with row_progress(table.kind, lines.size) as progress, retries_noticed(progress.notice):
                asyncio.run(run.send(access, progress))
        except BaseException as error:
            # Also after Ctrl-C: say what was imported so far.
            run.summarize(f"Stopped after line {run.line:,} of {lines.name}, after")
            if not isinstance(error, KeyboardInterrupt):
                note("Run it again when the cause is gone: what is stored stays as it is.")
            raise
        run.summarize(f"Imported {lines.name} in")
    if run.report.rows:
        sys.exit(1)


def _table(lines: Lines, reading: ReadOptions) -> Table:
    try:
        table = read_table(lines, reading)
    except Damaged:
        raise
    except SetupError as error:
        raise SetupError(f"{lines.name}: {error.message}") from None
    if table is None:
        raise SetupError(f"{lines.name} is empty.")
    return table


def _show(table: Table) -> None:
    """Shows the first rows as they would be stored, and counts the others."""
    good = refused = 0
    for row in table.rows:
        if row.thing is None:
            refused += 1
            if refused <= DRY_ROWS:
                note(f"Line {row.line}: {row.reason}")
            continue
        good += 1
        if good <= DRY_ROWS:
            for entry in _entries(row):
                show_line(to_ndjson(entry))
    one = table.kind.one
    note(f"{counted(good, one)} would be sent, {counted(refused, 'row')} refused: nothing is sent.")


def _entries(row: Row) -> Sequence[Entry]:
    """The chargers, vehicles or events of the row."""
    if row.thing is None:
        return ()
    return row.thing.events if isinstance(row.thing, ListedSession) else (row.thing,)


# Refused rows -----------------------------------------------------------------------------------


@dataclass
class _Report:
    """The file of refused rows. It is created for the first refused row."""

    path: Path
    table: Table
    rows: int = 0
    _file: IO[str] | None = None

    def add(self, row: Row, reason: str) -> None:
        if self._file is None:
            self._file = create(self.path)
            if self.table.header is not None:
                self._file.write(csv_line(report_header(self.table.header), self.table.form))
        row = row._replace(reason=reason)
        header = self.table.header
        form = self.table.form
        self._file.write(refused_ndjson(row) if header is None else refused_csv(row, header, form))
        self.rows += 1

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _report_of(file: str, table: Table) -> _Report:
    """The report beside the file: `events.refused.ndjson` for `events.ndjson.gz`.

    For a pipe, such as the shell's `<(zcat old.gz)`, the report is in the current folder. Removes
    an old report.
    """
    form = "ndjson" if table.header is None else "csv"
    path = Path(file)
    if not path.is_file():
        path = Path("stdin" if file == STANDARD_INPUT else path.name)
    stem = path.name.removesuffix(".gz").removesuffix(f".{form}")
    report = path.with_name(f"{stem}.refused.{form}")
    report.unlink(missing_ok=True)
    return _Report(report, table)


# Sending ----------------------------------------------------------------------------------------


class _Batch(NamedTuple):
    """Rows that are sent together, and the position in the file, in bytes, after them."""

    rows: list[Row]
    position: int


@dataclass
class _Import:
    """One run: reads a batch while it sends the batch before, and counts."""

    table: Table
    lines: Lines
    report: _Report
    stamp: bool
    missing: MissingEntities
    created: int = 0
    stored: int = 0
    line: int = 0
    started: float = field(default_factory=time.monotonic)

    async def send(self, access: Access, progress: RowProgress) -> None:
        from tether.client import AsyncClient

        events = self.table.kind in EVENT_KINDS
        batches = self._batches()
        async with AsyncClient(access.url, access.key, retries=PATIENT_RETRIES) as client:
            send = self._send_events if events else self._send_entities
            following = asyncio.create_task(_in_thread(partial(next, batches)))
            while batch := await following:
                following = asyncio.create_task(_in_thread(partial(next, batches)))
                refused = await send(client, batch.rows)
                for row, reason in sorted(refused, key=lambda one: one[0].line):
                    self.report.add(row, reason)
                self.line = batch.rows[-1].line
                progress.advance(len(batch.rows), batch.position)

    def _batches(self) -> Iterator[_Batch | None]:
        """The batches, then None. An error of reading is raised after the rows before it."""
        failure = None
        while failure is None:
            rows: list[Row] = []
            try:
                rows.extend(islice(self.table.rows, BATCH))
            except (SetupError, OSError) as error:
                failure = error
            if rows:
                yield _Batch(rows, self.lines.position)
            elif failure is None:
                yield None
        raise failure

    async def _send_events(self, client: "AsyncClient", rows: list[Row]) -> list[Refused]:
        """Sends events in order. Returns the refused rows with the reasons."""
        refused: list[Refused] = []
        good: list[Row] = []
        events: list[Event] = []
        for row in rows:
            told = [one for one in _entries(row) if isinstance(one, Event)]
            if told and all(event.timestamp or self.stamp for event in told):
                good += [row] * len(told)
                events += told
            else:
                refused.append((row, row.reason or NO_TIMESTAMP))
        await self.missing.complete(client, events)
        reasons: dict[int, Refused] = {}
        for row, result in zip(good, await client.events.bulk(events), strict=True):
            if not result.ok:
                reasons.setdefault(row.line, (row, result.message or f"Status {result.status}."))
        self.stored += len({row.line for row in good}) - len(reasons)
        return [*refused, *reasons.values()]

    async def _send_entities(self, client: "AsyncClient", rows: list[Row]) -> list[Refused]:
        """Sends chargers or vehicles in order. Of two with the same id the later one counts."""
        refused: list[Refused] = [(row, row.reason) for row in rows if row.thing is None]
        good = [row for row in rows if row.thing is not None]
        calls: Any = client.chargers if self.table.kind is Kind.CHARGERS else client.vehicles
        results = await calls.bulk([row.thing for row in good])
        for row, result in zip(good, results, strict=True):
            if result.ok:
                self.stored += 1
                self.created += result.created
            else:
                refused.append((row, result.message or f"Status {result.status}."))
        return refused

    def summarize(self, what: str) -> None:
        self.report.close()
        seconds = time.monotonic() - self.started
        rate = (self.stored + self.report.rows) / seconds
        say(f"{what} {seconds:.1f} s ({rate:,.0f} rows/s):")
        one = self.table.kind.one
        if self.table.kind in EVENT_KINDS:
            say(f"  {counted(self.stored, one)} stored, now or before")
        else:
            replaced = self.stored - self.created
            say(f"  {counted(self.stored, one)}: {self.created:,} created, {replaced:,} replaced")
        if self.missing.created:
            say(f"  {self.missing.created}")
        if self.report.rows:
            say(f"  {counted(self.report.rows, 'row')} refused: see {self.report.path}")


async def _in_thread(call: Callable[[], T]) -> T:
    """The result of the call, which runs in a daemon thread.

    The end of the program waits for `asyncio.to_thread`: Ctrl-C would not end a command that reads
    from a pipe in which nothing comes.
    """
    result = concurrent.futures.Future[T]()
    result.set_running_or_notify_cancel()

    def run() -> None:
        try:
            result.set_result(call())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wrap_future(result)
