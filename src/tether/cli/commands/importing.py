"""`tether import`: chargers, vehicles, events and lists of sessions from a file."""

import asyncio
import concurrent.futures
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from tether.cli.access import PATIENT_RETRIES, Access, retries_noticed, with_access
from tether.cli.data_options import POSITIVE_NUMBER
from tether.cli.display.output import counted, note, say, show_line
from tether.cli.display.progress import RowProgress, row_progress
from tether.cli.lines import STANDARD_INPUT, Damaged, LineReader
from tether.cli.options import SEPARATOR, ZONE, FilePath, Parsed
from tether.cli.writing import create
from tether.domain.errors import SetupError
from tether.domain.models import Charger, Event, Vehicle, to_json
from tether.files.csv_dialect import csv_line
from tether.files.csv_table import column_of, refused_csv, report_header
from tether.files.table import Kind, MappedColumn, ReadOptions, Row, Table
from tether.files.table_reader import read_table, refused_ndjson

if TYPE_CHECKING:
    from tether.client import AsyncClient, BulkResult, PutResult

T = TypeVar("T")

BATCH = 2_000  # rows that are read, and sent, together
DRY_ROWS = 10
DEFAULT_KW = Decimal(11)  # of a new vehicle, if no power of chargers is given
MAX_CREATING = 16  # requests at the same time that create chargers and vehicles
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
              help="What the file contains.  [default: found by its members]")  # fmt: skip
@click.option("--stamp", is_flag=True,
              help="Accept events without a timestamp, as happening now. Each import stores them "
              "again.")  # fmt: skip
@click.option("--map", "columns", type=Parsed("column=member", column_of), multiple=True,
              metavar="COLUMN=MEMBER",
              help="What a column, or a member, is. Other columns are ignored.")  # fmt: skip
@click.option("--ignore", "ignored", multiple=True, metavar="COLUMN",
              help="Ignore this column, or member. Give it once for each.")  # fmt: skip
@click.option("--encoding", type=Parsed("encoding", _encoding), default="utf-8", metavar="NAME",
              help="The encoding of the text: cp1252, latin-1, utf-16.  "
              "[default: UTF-8]")  # fmt: skip
@click.option("--time-zone", "zone", type=ZONE, metavar="ZONE",
              help="The zone of times without one, such as Europe/Berlin.")  # fmt: skip
@click.option("--date-order", type=click.Choice(["dmy", "mdy"]),
              help="Whether day or month comes first in 05/01/2026.")  # fmt: skip
@click.option("--separator", type=SEPARATOR,
              help="Between cells: , ; | or tab.  [default: found in the header]")  # fmt: skip
@click.option("--decimal-comma", is_flag=True,
              help="7,4 means 7.4.  [default: if commas do not separate cells]")  # fmt: skip
@click.option("--create-chargers", type=POSITIVE_NUMBER, metavar="KW",
              help="Create the chargers that events name, with this power.")  # fmt: skip
@click.option("--create-vehicles", type=POSITIVE_NUMBER, metavar="KWH",
              help="Create the vehicles that events name, with this capacity.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Send nothing: show what the first rows mean.")
@with_access
def import_(
    file: str,
    kind: str | None,
    columns: Sequence[tuple[str, MappedColumn]],
    stamp: bool,
    encoding: str,
    create_chargers: Decimal | None,
    create_vehicles: Decimal | None,
    dry_run: bool,
    access: Access,
    **options: Any,
) -> None:
    """Import chargers, vehicles, events or sessions from FILE.

    FILE is NDJSON (an object a line), CSV or Parquet; the first two may be gzip, or - for
    standard input. Refused rows are written to a file beside it, with the reasons. To import it
    again changes nothing.
    A list of sessions, as operators export it, becomes events.
    """
    reading = ReadOptions(Kind(kind) if kind else None, columns=dict(columns), **options)
    with LineReader(file, encoding) as lines, access.errors_as_messages():
        if not dry_run:
            access.check()
        table = _table(lines, reading)
        for sentence in table.assumed:
            note(sentence)
        if dry_run:
            _show(table)
            return
        missing = _MissingEntities(create_chargers, create_vehicles)
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


def _table(lines: LineReader, reading: ReadOptions) -> Table:
    try:
        table = read_table(lines, reading)
    except Damaged:
        raise
    except SetupError as error:
        if error.message.startswith(f"{lines.name} "):  # of Parquet
            raise
        raise SetupError(f"{lines.name}: {error.message}") from None
    if table is None:
        raise SetupError(f"{lines.name} is empty.")
    return table


def _show(table: Table) -> None:
    """Shows the first rows as they would be stored, and counts the others."""
    good = refused = 0
    for row in table.rows:
        if not row.entries:
            refused += 1
            if refused <= DRY_ROWS:
                note(f"Line {row.line}: {row.reason}")
            continue
        good += 1
        if good <= DRY_ROWS:
            for entry in row.entries:
                show_line(to_json(entry))
    one = table.kind.one
    note(f"{counted(good, one)} would be sent, {counted(refused, 'row')} refused: nothing is sent.")


# Refused rows -----------------------------------------------------------------------------------


@dataclass
class _Report:
    """Writes refused rows to a file, which it creates for the first one."""

    path: Path
    table: Table
    rows: int = 0
    _file: IO[str] | None = None

    def add(self, row: Row) -> None:
        header, dialect = self.table.header, self.table.dialect
        if self._file is None:
            self._file = create(self.path)
            if header is not None:
                self._file.write(csv_line(report_header(header), dialect))
        text = refused_ndjson(row) if header is None else refused_csv(row, header, dialect)
        self._file.write(text)
        self.rows += 1

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _report_of(file: str, table: Table) -> _Report:
    """The report beside the file: `events.refused.ndjson` for `events.ndjson.gz`.

    For a pipe, such as the shell's `<(zcat old.gz)`, the report is in the current folder. Removes
    an old report.
    """
    format = "ndjson" if table.header is None else "csv"
    path = Path(file)
    if not path.is_file():
        path = Path("stdin" if file == STANDARD_INPUT else path.name)
    stem = path.name.removesuffix(".gz").removesuffix(f".{format}")
    report = path.with_name(f"{stem}.refused.{format}")
    report.unlink(missing_ok=True)
    return _Report(report, table)


# Sending ----------------------------------------------------------------------------------------


@dataclass
class _MissingEntities:
    """Creates chargers and vehicles that events name, all with the same power and capacity."""

    charger_kw: Decimal | None
    vehicle_kwh: Decimal | None
    _created: Counter[type] = field(default_factory=Counter)
    _known: set[tuple[type, str]] = field(default_factory=set)
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_CREATING))

    async def complete(self, client: "AsyncClient", events: Iterable[Event]) -> None:
        """Creates the chargers and vehicles of these events that do not exist."""
        wanted: dict[tuple[type, str], Charger | Vehicle] = {}
        powers = (self.charger_kw or DEFAULT_KW,)
        for event in events:
            if self.charger_kw is not None:
                charger = Charger(id=event.charger_id, charge_powers=powers)
                wanted[Charger, charger.id] = charger
            if self.vehicle_kwh is not None:
                vehicle = Vehicle(
                    id=event.vehicle_id, charge_capacity=self.vehicle_kwh, charge_powers=powers
                )
                wanted[Vehicle, vehicle.id] = vehicle
        new = [wanted[key] for key in wanted.keys() - self._known]
        await asyncio.gather(*(self._create(client, entity) for entity in new))
        self._known |= wanted.keys()

    async def _create(self, client: "AsyncClient", entity: Charger | Vehicle) -> None:
        from tether.client import NotFound

        calls: Any = client.chargers if isinstance(entity, Charger) else client.vehicles
        async with self._slots:
            try:
                await calls.get(entity.id)
            except NotFound:
                saved = await calls.put(entity)
                self._created[type(entity)] += saved.created

    def created(self) -> str:
        """A sentence about what was created; empty if nothing was."""
        text = " and ".join(
            counted(number, kind.__name__.lower())
            for kind in (Charger, Vehicle)
            if (number := self._created[kind])
        )
        return f"{text} created that events named" if text else ""


class _Batch(NamedTuple):
    """Rows that are sent together, and the position in the file, in bytes, after them."""

    rows: list[Row]
    position: int


@dataclass
class _Import:
    """Imports a table: reads a batch while it sends the batch before, and counts."""

    table: Table
    lines: LineReader
    report: _Report
    stamp: bool
    missing: _MissingEntities
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
            next_batch = asyncio.create_task(_in_thread(partial(next, batches)))
            while batch := await next_batch:
                next_batch = asyncio.create_task(_in_thread(partial(next, batches)))
                refused = await send(client, batch.rows)
                for row in sorted(refused, key=lambda row: row.line):
                    self.report.add(row)
                self.line = batch.rows[-1].line
                progress.advance(len(batch.rows), batch.position)

    def _batches(self) -> Iterator[_Batch | None]:
        """The batches, then None. Raises an error of reading after the rows before it."""
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

    async def _send_events(self, client: "AsyncClient", rows: list[Row]) -> list[Row]:
        """Sends events in order. Returns the refused rows."""
        refused: list[Row] = []
        good: list[Row] = []
        events: list[Event] = []
        for row in rows:
            row_events = [entry for entry in row.entries if isinstance(entry, Event)]
            if row_events and all(event.timestamp or self.stamp for event in row_events):
                good += [row] * len(row_events)
                events += row_events
            else:
                refused.append(row._replace(reason=row.reason or NO_TIMESTAMP))
        await self.missing.complete(client, events)
        by_server: dict[int, Row] = {}
        for row, result in zip(good, await client.events.bulk(events), strict=True):
            if not result.ok:
                by_server.setdefault(row.line, _refused(row, result))
        self.stored += len({row.line for row in good}) - len(by_server)
        return [*refused, *by_server.values()]

    async def _send_entities(self, client: "AsyncClient", rows: list[Row]) -> list[Row]:
        """Sends chargers or vehicles in order. Returns the refused rows.

        Of two with the same id the later one counts.
        """
        refused = [row for row in rows if not row.entries]
        good = [row for row in rows if row.entries]
        calls: Any = client.chargers if self.table.kind is Kind.CHARGERS else client.vehicles
        results = await calls.bulk([row.entries[0] for row in good])
        for row, result in zip(good, results, strict=True):
            if result.ok:
                self.stored += 1
                self.created += result.created
            else:
                refused.append(_refused(row, result))
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
        if created := self.missing.created():
            say(f"  {created}")
        if self.report.rows:
            say(f"  {counted(self.report.rows, 'row')} refused: see {self.report.path}")


def _refused(row: Row, result: "BulkResult | PutResult") -> Row:
    return row._replace(reason=result.message or f"Status {result.status}.")


async def _in_thread(call: Callable[[], T]) -> T:
    """The result of the call, which runs in a daemon thread.

    Python waits at its end for a thread of `asyncio.to_thread`. Then Ctrl-C would not end a command
    that waits for data from a pipe.
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
