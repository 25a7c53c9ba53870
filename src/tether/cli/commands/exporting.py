"""`tether export`: all chargers, vehicles, events, sessions or their sums into a file."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from itertools import islice
from typing import Any, Literal, TypeAlias
from zoneinfo import ZoneInfo

import click

from tether.cli.access import Access, retries_noticed, with_access
from tether.cli.data_options import INSTANT, given, option_of, session_filters
from tether.cli.display.listing import MAX_PAGE
from tether.cli.display.output import counted, note
from tether.cli.display.progress import RowProgress, row_progress
from tether.cli.options import ZONE
from tether.cli.writing import Writer, csv_options, output_of, output_option
from tether.domain.calendar import Unit
from tether.domain.views import Session, SessionSummary
from tether.files.table import MODELS, Entry

FORMATS = ("csv", "ndjson", "parquet")
Exported: TypeAlias = Entry | Session | SessionSummary
KINDS: dict[str, type[Exported]] = {
    **{kind.value: model for kind, model in MODELS.items()},
    "sessions": Session,
    "summaries": SessionSummary,
}
SESSION_KINDS = ("sessions", "summaries")
_SINGULARS = {"summaries": "sum"}


@click.command(
    epilog="""\b
Examples:
  tether export chargers > chargers.ndjson
  tether export events --from 2023-05-01 --to 2023-06-01 --output may.csv
  tether export sessions --from 2023-05-01 --output may.ndjson.gz
  tether export sessions --charger C1408 --charger C1409 --not-estimated
  tether export events --output events.parquet
  tether export sessions --output june.csv --decimal-comma --bom
  tether export summaries --bucket day --by charger --output days.csv

\b
`tether import` reads CSV and NDJSON of chargers, vehicles and events as they
are written here. Sessions are derived from events.""",
)
@click.argument("kind", metavar="|".join(KINDS), type=click.Choice(list(KINDS)))
@click.option("--from", "from_", type=INSTANT,
              help="Events, or starts of sessions, at this time or later.")  # fmt: skip
@click.option("--to", type=INSTANT, help="Events, or starts of sessions, before this time.")
@session_filters
@click.option("--order", type=click.Choice(["asc", "desc"]), default="asc", show_default=True,
              help="Sessions: the oldest or the newest first.")  # fmt: skip
@click.option("--format", "format", type=click.Choice(FORMATS),
              help="[default: as the name of FILE says, else ndjson]")  # fmt: skip
@output_option
@click.option("--time-zone", "zone", type=ZONE, metavar="ZONE", is_eager=True,
              help="CSV: local times of this zone, which spreadsheets recognise.  "
              "[default: instants in UTC]")  # fmt: skip
@click.option("--bucket", type=click.Choice([unit.value for unit in Unit]),
              help="Summaries: one for each.")  # fmt: skip
@click.option("--by", type=click.Choice(["charger", "vehicle", "flag", "area"]),
              help="Summaries: one for each.")  # fmt: skip
@csv_options
@with_access
def export(
    kind: str,
    from_: str | None,
    to: str | None,
    order: Literal["asc", "desc"],
    zone: ZoneInfo | None,
    bucket: str | None,
    by: str | None,
    access: Access,
    **options: Any,
) -> None:
    """Export chargers, vehicles, events, sessions or their sums.

    Events are in the order of their arrival, sessions in the order of their beginning. Times are
    dates (their first moment) or date-times with a zone. Dates, and days and other buckets of
    summaries, are those of --time-zone, otherwise of UTC.
    """
    if kind not in ("events", *SESSION_KINDS) and (from_ or to):
        raise click.UsageError("--from and --to are for events and sessions.")
    output = output_of(KINDS[kind], options, zone, FORMATS, "ndjson")
    chosen = given(options)
    for name in () if kind in SESSION_KINDS else chosen:
        raise click.UsageError(f"{option_of(name)} is for sessions.")
    if order == "desc" and kind != "sessions":
        raise click.UsageError("--order is for sessions.")
    if (bucket or by) and kind != "summaries":
        raise click.UsageError("--bucket and --by are for summaries.")
    if zone and output.format != "csv" and not bucket:
        raise click.UsageError("--time-zone is for CSV: give --format csv.")
    output.check()
    chosen |= given({"from_": from_, "to": to})
    zone_name = zone.key if zone and bucket else None
    division: Any = {"bucket": bucket, "by": by, "time_zone": zone_name}
    started = time.monotonic()
    with output.opened() as writer, access.client(patient=True) as client:
        lists: dict[str, Callable[..., Iterator[Exported]]] = {
            "chargers": client.chargers.list,
            "vehicles": client.vehicles.list,
            "events": client.events.list,
            "sessions": partial(client.sessions.list, order=order),
            "summaries": partial(client.sessions.summary, **division),
        }
        found = lists[kind](page_size=MAX_PAGE, **chosen)
        done = _write(found, writer, kind, quiet=output.file is None and sys.stdout.isatty())
    if output.file is not None:
        seconds = time.monotonic() - started
        one = _SINGULARS.get(kind, kind.removesuffix("s"))
        note(
            f"Exported {counted(done, one)} to {output.file} "
            f"({output.file.stat().st_size:,} bytes, {seconds:.1f} s, {done / seconds:,.0f}/s)."
        )


def _write(found: Iterator[Exported], writer: Writer, kind: str, *, quiet: bool) -> int:
    """Writes all rows, a page at a time. Returns their number."""
    done = 0
    # A terminal that shows the rows gets no progress bar between them.
    display = nullcontext(RowProgress(kind, 0)) if quiet else row_progress(kind)
    with display as progress, retries_noticed(progress.notice):
        while page := list(islice(found, MAX_PAGE)):
            writer.write(page)
            done += len(page)
            progress.advance(len(page))
    return done
