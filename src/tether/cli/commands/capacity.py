"""`tether capacity`: how much power and energy plugged-in vehicles could move."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from tether.cli.access import with_client
from tether.cli.data_options import INSTANT, NUMBERS
from tether.cli.display.charts import sparkline, sparkline_width
from tether.cli.display.listing import (
    json_lines_option,
    list_limit_option,
    page_size,
    show_list,
    show_one,
    stale_option,
)
from tether.cli.display.numbers import short
from tether.cli.display.output import counted, show_pairs, show_table
from tether.cli.options import DURATION
from tether.cli.times import format_second
from tether.domain.views import Capacity

if TYPE_CHECKING:
    from tether.client import Client
    from tether.client.models import By

_EXAMPLES = """\b
Examples:
  tether capacity
  tether capacity --at 2026-01-05T08:30:00Z --charger C1408
  tether capacity --bbox 17.2,62.3,17.4,62.5 --by-charger
  tether capacity --from 2026-01-05 --to 2026-01-06 --step 15m --json
  tether capacity --from 2026-01-05 --to 2026-01-06 --step 1h --by area
"""
_AREA = "Area"
MAX_MOMENTS = 10_000  # of a series
_TITLES = (
    "Time (UTC)", "Charger", "Vehicles", "Takes\nkW", "more\nkW", "Gives\nkW", "more\nkW",
    "Stored\nkWh", "Room\nkWh", "Unknown",
)  # fmt: skip


@click.command(epilog=_EXAMPLES)
@click.option("--at", type=INSTANT, help="At this past moment.  [default: now]")
@click.option("--charger", "charger_id", metavar="ID", help="Only of this charger.")
@click.option("--bbox", type=NUMBERS, metavar="W,S,E,N", help="Of chargers in this box, degrees.")
@click.option("--by", type=click.Choice(["charger", "area"]),
              help="Of each charger, or of each area: a box of a tenth of a degree.")  # fmt: skip
@click.option("--by-charger", is_flag=True, help="The same as --by charger.")
@click.option("--from", "from_", type=INSTANT, help="Over time: from this moment …")
@click.option("--to", type=INSTANT, help="… to before this one …  [default: now]")
@click.option("--step", type=DURATION, help="… in steps of this length: 15m, 1h.")
@click.option(
    "--max-age",
    type=DURATION,
    help="Leave out vehicles without an event for longer than this: 24h, 7d.",
)
@list_limit_option
@stale_option
@json_lines_option
@with_client
def capacity(
    at: str | None,
    by: "By | None",
    by_charger: bool,
    from_: str | None,
    to: str | None,
    step: int | None,
    limit: int | None,
    as_json: bool,
    client: "Client",
    **selection: Any,
) -> None:
    """Show what plugged-in vehicles could take and give.

    Power and energy, now and available: docs/capacity.md has the rules. In a terminal numbers are
    rounded.
    """
    series = any((from_, to, step is not None))
    by = "charger" if by_charger else by
    if series and (from_ is None or step is None):
        raise click.UsageError("Give --from and --step together.")
    if series and at is not None:
        raise click.UsageError("--from, --to and --step go without --at.")
    if limit is not None and by is None:
        raise click.UsageError("--limit goes with --by.")
    if selection["bbox"] is not None and len(selection["bbox"]) != 4:
        raise click.UsageError("--bbox takes four numbers: west,south,east,north.")
    if selection["max_age"] is not None:
        selection["max_age"] //= 1000  # the SDK takes seconds
    if by is None and not series:
        figures = client.capacity.get(at=at, **selection)
        show_one(figures, lambda figures: show_pairs(_pairs(figures)), as_json=as_json)
        return
    if series:
        assert from_ is not None
        assert step is not None
        found = client.capacity.over_time(
            from_=from_,
            to=to,
            step=step // 1000,
            by=by,
            page_size=page_size(limit),
            **selection,
        )
    else:
        ask = client.capacity.by_charger if by == "charger" else client.capacity.by_area
        found = ask(at=at, page_size=page_size(limit), **selection)
    show_list(
        found,
        partial(_show_table, timed=series),
        limit=limit if by else MAX_MOMENTS,
        as_json=as_json,
        none_yet="No vehicle is plugged in.",
    )


def _show_table(listed: Sequence[Capacity], *, timed: bool) -> None:
    to_minute = all(format_second(figures.as_of).endswith(":00") for figures in listed)
    rows = [_row(figures, 16 if to_minute else 19) for figures in listed]
    if not timed:
        rows = [["", *row[1:]] for row in rows]
    is_by_area = any(figures.area for figures in listed)
    titles = [_AREA if name == "Charger" and is_by_area else name for name in _TITLES]
    show_table(titles, rows, wrapped=("Time (UTC)", "Charger", _AREA, "Unknown"))
    over_time = len({figures.as_of for figures in listed}) == len(listed) > 1
    if over_time and (graphs := _sparklines(listed)):
        click.echo()
        show_pairs(graphs)


def _sparklines(moments: Sequence[Capacity]) -> list[tuple[str, str]]:
    """A sparkline for each figure over time, each on its own scale, with the highest value."""
    figures = (
        ("Takes", [moment.charge_power for moment in moments], "kW"),
        ("could take more", [moment.charge_power_available for moment in moments], "kW"),
        ("Gives", [moment.discharge_power for moment in moments], "kW"),
        ("could give more", [moment.discharge_power_available for moment in moments], "kW"),
        ("Stored", [moment.energy_stored for moment in moments], "kWh"),
    )
    return [
        (name, f"{sparkline(values, sparkline_width())} up to {short(max(values))} {unit}")
        for name, values, unit in figures
        if any(values)
    ]


def _row(figures: Capacity, time_digits: int) -> list[str]:
    unknown = figures.unknown
    kinds = (
        unknown.state_of_charge, unknown.charge_power,
        unknown.common_charge_power, unknown.common_discharge_power,
        unknown.stale, unknown.power_above_charger,
    )  # fmt: skip
    return [
        format_second(figures.as_of)[:time_digits],
        figures.charger_id or figures.area or "",
        str(figures.vehicles_plugged_in),
        short(figures.charge_power),
        short(figures.charge_power_available),
        short(figures.discharge_power),
        short(figures.discharge_power_available),
        short(figures.energy_stored),
        short(figures.energy_room),
        "/".join(map(str, kinds)) if any(kinds) else "",
    ]


def _pairs(figures: Capacity) -> list[tuple[str, str]]:
    unknown = figures.unknown
    lacks = [
        (unknown.state_of_charge, "state of charge"),
        (unknown.charge_power, "power of a charge"),
        (unknown.common_charge_power, "charge power in common with the charger"),
        (unknown.common_discharge_power, "discharge power in common with the charger"),
        (unknown.stale, "any event for so long (left out)"),
    ]
    return [
        ("Time (UTC)", format_second(figures.as_of)),
        ("Plugged in", f"{counted(figures.vehicles_plugged_in, 'vehicle')} at "
                       f"{counted(figures.chargers_occupied, 'charger')}, "
                       f"{figures.vehicles_charging} charging"),
        ("Charge power", f"{short(figures.charge_power)} kW taken, "
                         f"{short(figures.charge_power_available)} kW more available"),
        ("Discharge power", f"{short(figures.discharge_power)} kW given, "
                            f"{short(figures.discharge_power_available)} kW more available"),
        ("Energy", f"{short(figures.energy_stored)} kWh stored, "
                   f"room for {short(figures.energy_room)} kWh"),
        *(("Not known", f"{what} of {counted(n, 'vehicle')}") for n, what in lacks if n),
    ]  # fmt: skip
