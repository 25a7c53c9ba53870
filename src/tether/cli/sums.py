"""Shared by `tether sessions summary` and `tether energy`: options, tables with bars, files."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import click

from tether.cli.display.charts import bar_cells, sparkline, sparkline_width
from tether.cli.display.listing import MAX_PAGE, MAX_TABLE_ROWS, show_first
from tether.cli.display.numbers import short, tenth
from tether.cli.display.output import say, show_line, show_table
from tether.cli.options import ZONE, WholeNumber, together
from tether.cli.writing import Output, csv_options, output_of, output_option
from tether.domain.models import to_json
from tether.domain.views import EnergyStep, SessionSummary
from tether.files.table import Sum

FORMATS = ("table", "json", "csv", "ndjson", "parquet")
WIDE = 110  # columns of a terminal that has space for powers and longer bars
_SUMMARY_TITLES = ("Of", "Begun", "Plugged\nh", "Charged\nh", "kWh", "estim.\nkWh", "Use\n%")
_POWER_TITLES = ("Mean\nkW", "Most\nkW")
_STEP_TITLES = ("Of", "kWh", "estim.\nkWh", "spread\nkWh", "kW")
_ID_COLUMNS = 20  # columns of an id beside a bar; a longer id is wrapped

calendar_zone_option = click.option(
    "--time-zone",
    "zone",
    type=ZONE,
    metavar="ZONE",
    is_eager=True,  # dates begin at its midnight
    help="The time zone of days and hours, such as Europe/Berlin.  [default: UTC]",
)
sum_options = together(
    click.option("--limit", type=WholeNumber(1), metavar="N",
                 help=f"Show at most this many.  [default: {MAX_TABLE_ROWS} in a table, else all]"),
    click.option("--format", "format", type=click.Choice(FORMATS),
                 help="[default: as the name of FILE says, table in a terminal, else ndjson]"),
    output_option,
    csv_options,
)  # fmt: skip
"""How rows are shown or written."""


def sum_output(model: type[Sum], options: dict[str, Any], zone: ZoneInfo | None) -> Output:
    """How to show or write the rows. Removes the options about that from `options`."""
    default = "table" if options["output"] is None and sys.stdout.isatty() else "ndjson"
    output = output_of(model, options, zone, FORMATS, default)
    output.check()
    if output.file is not None and output.format in ("table", "json"):
        raise click.UsageError(f"--format {output.format} goes without --output.")
    return output


def show_sums(found: Iterator[Any], output: Output, limit: int | None, *, days: bool) -> None:
    """Shows or writes rows. `days`: each row begins with a day."""
    if output.format == "table":
        show_first(found, partial(_show, output, days=days), limit, "No such session.")
    elif output.format == "json":
        show_line(to_json(list(islice(found, limit))))
    else:
        rows = islice(found, limit)
        with output.opened() as writer:
            while page := list(islice(rows, MAX_PAGE)):
                writer.write(page)


def _show(output: Output, rows: list[Any], *, days: bool) -> None:
    is_curve = output.model is EnergyStep
    titles, cells = (_step_table if is_curve else _summary_table)(rows, output.zone, days=days)
    if not sys.stdout.isatty():  # each row is one line there
        titles = [title.replace("\n", " ") for title in titles]
    show_table(titles, cells, wrapped=("Of",))
    if is_curve and not any(row[1] for row in cells):
        powers = [row.average_power or Decimal(0) for row in rows]
        if len(powers) > 1 and any(powers):
            say(f"\n{sparkline(powers, sparkline_width())} up to {short(max(powers))} kW")


# Tables -----------------------------------------------------------------------------------------


def _summary_table(
    found: Sequence[SessionSummary], zone: ZoneInfo | None, *, days: bool
) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of sums. Times are local times of the zone, or only days."""
    titles = [_from_title(zone), *_SUMMARY_TITLES]
    if shutil.get_terminal_size().columns >= WIDE:
        titles += _POWER_TITLES
    rows: list[list[str]] = []
    for row in found:
        cells = [
            "" if row.from_ is None else _local(row.from_, zone, days=days),
            row.charger_id or row.vehicle_id or row.flag or row.area or "",
            f"{row.sessions:,}",
            tenth(row.plugged_time / 3600),
            tenth(row.charged_time / 3600),
            tenth(row.charged_energy),
            tenth(row.estimated_energy or None),
            "" if row.utilisation is None else tenth(100 * row.utilisation),
            tenth(row.average_power),
            tenth(row.maximum_power),
        ]
        rows.append(cells[: len(titles)])
    energies = [row.charged_energy for row in found]
    estimated = [row.estimated_energy for row in found]
    return _with_bars(titles, rows, energies, estimated)


def _step_table(
    found: Sequence[EnergyStep], zone: ZoneInfo | None, *, days: bool
) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of a load curve."""
    rows = [
        [
            _local(row.from_, zone, days=days),
            row.charger_id or row.area or "",
            tenth(row.charged_energy),
            tenth(row.estimated_energy or None),
            tenth(row.spread_energy or None),
            tenth(row.average_power or Decimal(0)),
        ]
        for row in found
    ]
    powers = [row.average_power or Decimal(0) for row in found]
    estimated = [
        power * row.estimated_energy / row.charged_energy if row.charged_energy > 0 else Decimal(0)
        for row, power in zip(found, powers, strict=True)
    ]
    return _with_bars([_from_title(zone), *_STEP_TITLES], rows, powers, estimated)


def _with_bars(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    values: Sequence[Decimal],
    estimated: Sequence[Decimal],
) -> tuple[list[str], list[list[str]]]:
    """Adds a bar to each row if the terminal is wide enough; estimated energy is lighter."""
    columns = zip(*rows, strict=True)
    taken = sum(
        2 + min(_ID_COLUMNS, max(map(len, [*title.split("\n"), *cells])))
        for title, cells in zip(titles, columns, strict=True)
        if any(cells)
    )
    bars = bar_cells(values, taken, estimated)
    if bars is None:
        return list(titles), [list(row) for row in rows]
    return [*titles, ""], [[*row, bar] for row, bar in zip(rows, bars, strict=True)]


def _from_title(zone: ZoneInfo | None) -> str:
    return f"From\n{zone.key if zone else 'UTC'}"


def _local(instant: str, zone: ZoneInfo | None, *, days: bool) -> str:
    at = datetime.fromisoformat(instant).astimezone(zone or ZoneInfo("UTC"))
    if days:
        return f"{at:%Y-%m-%d}"
    return f"{at:%Y-%m-%d %H:%M:%S}" if at.second else f"{at:%Y-%m-%d %H:%M}"
