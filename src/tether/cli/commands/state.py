"""`tether state`: what is known at this moment."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import click

from tether.cli.access import calls_of, not_found_as_message, with_client
from tether.cli.display.listing import (
    json_lines_option,
    list_limit_option,
    page_size,
    show_list,
    stale_option,
)
from tether.cli.options import OrderedGroup
from tether.domain.views import ChargerState, VehicleState

if TYPE_CHECKING:
    from tether.client import Client

_EXAMPLES = """\b
Examples:
  tether state vehicles            where every vehicle is, and how full
  tether state vehicles V0313
  tether state chargers C1408 --json
"""


@click.group(cls=OrderedGroup, epilog=_EXAMPLES)
def state() -> None:
    """Show what your vehicles and chargers do at this moment."""


def _add_command(noun: str, help: str) -> None:
    """Adds the command for vehicles or chargers; `noun` is `vehicle` or `charger`."""

    @state.command(f"{noun}s", help=help)
    @click.argument("ids", metavar="[ID]...", nargs=-1)
    @list_limit_option
    @stale_option
    @json_lines_option
    @with_client
    def command(
        ids: Sequence[str], limit: int | None, stale_allowed: bool, as_json: bool, client: "Client"
    ) -> None:
        calls = calls_of(client, noun)
        if ids:
            found = _states(partial(calls.state, stale_allowed=stale_allowed), ids, noun)
        else:
            pairs = calls.list_with_state(page_size=page_size(limit), stale_allowed=stale_allowed)
            found = (known for _, known in pairs)
        none_yet = f"There are no {noun}s yet: tether {noun}s put --help"
        show_list(found, limit=limit, as_json=as_json, none_yet=none_yet)


def _states(
    get: Callable[[str], VehicleState | ChargerState], ids: Sequence[str], noun: str
) -> Iterator[VehicleState | ChargerState]:
    for id in ids:
        with not_found_as_message(f"There is no {noun} {id}."):
            found = get(id)
        yield found


_add_command(
    "vehicle",
    "Show where your vehicles are, how full, and what they do.\n\nAll of them, or those with "
    "these IDs. That a vehicle is plugged in is as sure as its last event is young.",
)
_add_command(
    "charger",
    "Show which vehicles are at your chargers, and their power.\n\nAll of them, or those with "
    "these IDs.",
)
