"""The options that filter sessions."""

from typing import Any

import click

from tether.cli.members import INSTANT
from tether.cli.options import together
from tether.domain.session_views import FLAGS

ids_options = together(
    click.option("--charger", "charger_id", metavar="ID", multiple=True,
                 help="At this charger only. May be given up to 50 times."),
    click.option("--vehicle", "vehicle_id", metavar="ID", multiple=True,
                 help="Of this vehicle only. May be given up to 50 times."),
)  # fmt: skip
session_filters = together(
    ids_options,
    click.option("--status", type=click.Choice(["active", "ended"]),
                 help="Only those that go on, or the others."),
    click.option("--flag", metavar="NAME", type=click.Choice(list(FLAGS)),
                 help="Only those that carry this flag, such as vehicle-shared."),
    click.option("--estimated/--not-estimated", default=None,
                 help="Only those of which some energy is estimated, or the others."),
    click.option("--ended-from", type=INSTANT, help="Ended not before this time."),
    click.option("--ended-to", type=INSTANT, help="Ended before this time."),
    click.option("--overlapping-from", type=INSTANT,
                 help="Plugged in at some time from this one on."),
    click.option("--overlapping-to", type=INSTANT,
                 help="Plugged in at some time before this one."),
)  # fmt: skip
"""The parameters have the names of the SDK."""


def given(filters: dict[str, Any]) -> dict[str, Any]:
    """The options that the user gave."""
    return {name: value for name, value in filters.items() if value not in (None, ())}


def option_of(name: str) -> str:
    """The name of the option: `--charger` for `charger_id`."""
    words = {"charger_id": "charger", "vehicle_id": "vehicle"}
    return "--" + words.get(name, name).replace("_", "-")
