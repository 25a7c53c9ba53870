"""What `tether sessions summary` and `tether energy` share: formats, tables, files."""

import shutil
import sys
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import click

from tether.cli.display.charts import spark_room, sparkline
from tether.cli.display.listing import MOST_IN_A_TABLE, show_some
from tether.cli.display.numbers import short
from tether.cli.display.output import say, show_line, show_table
from tether.cli.display.sums import step_table, summary_table
from tether.cli.options import ZONE, WholeNumber, together
from tether.cli.writing import Output, csv_options, form_of, output_option
from tether.domain.models import to_json
from tether.domain.views import EnergyStep, SessionSummary

FORMATS = ("table", "json", "csv", "ndjson", "parquet")
PAGE = 1000
Sum = SessionSummary | EnergyStep


calendar_zone_option = click.option(
    "--time-zone",
    "zone",
    type=ZONE,
    metavar="ZONE",
    help="Whose clocks and calendar, such as Europe/Berlin.  [default: UTC]",
)
sum_options = together(
    click.option("--limit", type=WholeNumber(1),
                 help=f"At most so many.  [default: {MOST_IN_A_TABLE} in a table, else all]"),
    click.option("--format", "form", type=click.Choice(FORMATS),
                 help="[default: as the name of FILE says, table in a terminal, else ndjson]"),
    output_option,
    csv_options,
)  # fmt: skip
"""How rows are shown, or written."""


def output_of(model: type[Sum], options: dict[str, Any], zone: ZoneInfo | None) -> Output:
    """How they are to be shown or written; takes its own out of the options."""
    file, form = options.pop("output"), options.pop("form")
    if form is None:
        usual = "table" if file is None and sys.stdout.isatty() else "ndjson"
        form = form_of(file, FORMATS, usual)
    csv = {name: options.pop(name) for name in ("separator", "decimal_comma", "bom")}
    output = Output(model, form, file, **csv, zone=zone)
    output.check()
    if file is not None and form in ("table", "json"):
        raise click.UsageError(f"--format {form} goes without --output.")
    return output


def show_sums(found: Iterator[Any], output: Output, limit: int | None, *, days: bool) -> None:
    """Shows or writes rows; `days` says that each begins with a day."""
    if output.form == "table":
        show_some(found, partial(_show, output, days=days), limit, "No such session.")
    elif output.form == "json":
        show_line(to_json(list(islice(found, limit))))
    else:
        rows = islice(found, limit)
        with output.opened() as writer:
            while page := list(islice(rows, PAGE)):
                writer.write(page)


def _show(output: Output, rows: list[Any], *, days: bool) -> None:
    width = shutil.get_terminal_size().columns
    if output.model is EnergyStep:
        titles, shown = step_table(rows, output.zone, days=days)
    else:
        titles, shown = summary_table(rows, output.zone, width, days=days)
    if not sys.stdout.isatty():  # where each row is a line
        titles = [title.replace("\n", " ") for title in titles]
    show_table(titles, shown, wrapped=("Of",))
    if output.model is EnergyStep and not any(row[1] for row in shown):
        powers = [row.average_power or Decimal(0) for row in rows]
        if len(powers) > 1 and any(powers):
            say(f"\n{sparkline(powers, spark_room())} up to {short(max(powers))} kW")
