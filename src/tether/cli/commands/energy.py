"""`tether energy`: what was charged when, as a load curve."""

from typing import Any, cast
from zoneinfo import ZoneInfo

import click

from tether.cli.access import Access, with_access
from tether.cli.data_options import INSTANT, given, ids_options
from tether.cli.display.listing import page_size, stale_allowed_option
from tether.cli.options import Parsed
from tether.cli.sums import calendar_zone_option, show_sums, sum_options, sum_output
from tether.cli.times import parse_duration
from tether.domain.calendar import Unit
from tether.domain.views import EnergyStep

_EXAMPLES = """\b
Examples:
  tether energy --from 2026-01-05 --to 2026-01-06 --step 15m
  tether energy --from 2026-01-05 --to 2026-01-06 --step hour --by charger
  tether energy --step day --time-zone Europe/Berlin --output year.csv \\
    --from 2026-01-01 --to 2027-01-01
"""


def _step(text: str) -> str:
    """A length of time in whole seconds, or hour, day, week or month of a calendar."""
    if text in list(Unit):
        return text
    try:
        seconds = parse_duration(text) // 1000
    except ValueError:
        seconds = 0
    if not seconds:
        raise ValueError(f"{text!r} is no step: write 15m, 1h, or hour, day, week, month.")
    return str(seconds)


@click.command(epilog=_EXAMPLES)
@click.option("--from", "from_", type=INSTANT, required=True, help="From this time on …")
@click.option("--to", type=INSTANT, required=True, help="… to before this one.")
@click.option("--step", type=Parsed("step", _step), default="hour", show_default=True,
              help="15m, 1h, or hour, day, week, month by the clocks of the zone.")  # fmt: skip
@calendar_zone_option
@click.option("--by", type=click.Choice(["charger", "area"]), help="A curve for each.")
@ids_options
@sum_options
@stale_allowed_option
@with_access
def energy(
    from_: str,
    to: str,
    step: str,
    zone: ZoneInfo | None,
    limit: int | None,
    access: Access,
    **options: Any,
) -> None:
    """Show what was charged when: energy and mean power, in steps.

    docs/summaries.md has the rules. Dates begin at midnight of the zone. Times of a table or CSV
    are those of the zone. In a table numbers are rounded.
    """
    output = sum_output(EnergyStep, options, zone)
    calendar = step in list(Unit)
    with access.client(patient=True) as client:
        found = client.energy(
            from_=from_,
            to=to,
            step=cast(Any, step) if calendar else int(step),
            time_zone=zone.key if zone and calendar else None,
            page_size=page_size(limit),
            **given(options),
        )
        show_sums(found, output, limit, days=calendar and step != "hour")
