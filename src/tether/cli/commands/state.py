"""`tether state`: what is known at this moment."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import click

from tether.cli.access import Access, calls_of, with_access
from tether.cli.display.listing import lines_option, list_limit_option, show_list, stale_option
from tether.cli.options import OrderedGroup
from tether.domain.errors import SetupError
from tether.domain.views import ChargerState, VehicleState

_EXAMPLES = """\b
Examples:
  tether state vehicles            where every vehicle is, and how full
  tether state vehicles V0313
  tether state chargers C1408 --json
"""


@click.group(cls=OrderedGroup, epilog=_EXAMPLES)
def state() -> None:
    """Show what your vehicles and chargers do at this moment."""


def _command(one: str) -> Callable[..., None]:
    @click.argument("ids", metavar="[ID]...", nargs=-1)
    @list_limit_option
    @stale_option
    @lines_option
    @with_access
    def command(
        ids: Sequence[str], limit: int | None, stale_allowed: bool, as_json: bool, access: Access
    ) -> None:
        with access.client() as client:
            calls = calls_of(client, one)
            if ids:
                get = partial(calls.state, stale_allowed=stale_allowed)
                found = _each(get, ids, one)
            else:
                size = min(limit or 1000, 1000)
                pairs = calls.list_with_state(page_size=size, stale_allowed=stale_allowed)
                found = (known for _, known in pairs)
            none_yet = f"There are no {one}s yet: tether {one}s put --help"
            show_list(found, limit=limit, as_json=as_json, none_yet=none_yet)

    return command


def _each(
    get: Callable[[str], VehicleState | ChargerState], ids: Sequence[str], one: str
) -> Iterator[VehicleState | ChargerState]:
    from tether.client import NotFound

    for id in ids:
        try:
            yield get(id)
        except NotFound:
            raise SetupError(f"There is no {one} {id}.") from None


state.command(
    "vehicles",
    help="Show where your vehicles are, how full, and what they do.\n\nAll of them, or those with "
    "these IDs. That a vehicle is plugged in is as sure as its last event is young.",
)(_command("vehicle"))
state.command(
    "chargers",
    help="Show which vehicles are at your chargers, and their power.\n\nAll of them, or those with "
    "these IDs.",
)(_command("charger"))
