"""The options by which commands choose sessions."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from tether.cli.members import InstantType
from tether.domain.session_views import FLAGS

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--charger", "charger_id", metavar="ID", multiple=True,
                 help="At this charger only. May be given up to 50 times."),
    click.option("--vehicle", "vehicle_id", metavar="ID", multiple=True,
                 help="Of this vehicle only. May be given up to 50 times."),
    click.option("--status", type=click.Choice(["active", "ended"]),
                 help="Only those that go on, or the others."),
    click.option("--flag", metavar="NAME", type=click.Choice(list(FLAGS)),
                 help="Only those that carry this flag, such as vehicle-shared."),
    click.option("--estimated/--not-estimated", default=None,
                 help="Only those of which some energy is estimated, or the others."),
    click.option("--ended-from", type=InstantType(), help="Ended not before this time."),
    click.option("--ended-to", type=InstantType(), help="Ended before this time."),
    click.option("--overlapping-from", type=InstantType(),
                 help="Plugged in at some time from this one on."),
    click.option("--overlapping-to", type=InstantType(),
                 help="Plugged in at some time before this one."),
)  # fmt: skip


def session_filters(command: F) -> F:
    """Adds the options; the command gets them by the names that the SDK has for them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def given(filters: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that were given."""
    return {name: value for name, value in filters.items() if value not in (None, ())}


def option_of(name: str) -> str:
    """The option as it is written."""
    words = {"charger_id": "charger", "vehicle_id": "vehicle"}
    return "--" + words.get(name, name).replace("_", "-")
