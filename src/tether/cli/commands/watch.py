"""`tether watch`: shows plugged-in vehicles live."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from decimal import Decimal
from typing import TYPE_CHECKING

import click
import msgspec

from tether.cli.access import Access, not_found_as_message, retries_noticed, with_access
from tether.cli.display.listing import json_lines_option
from tether.cli.display.numbers import short
from tether.cli.display.output import counted, note, show_line, table_of
from tether.cli.display.rows import TABLES
from tether.domain.models import Event, Withdrawal, to_json
from tether.domain.timestamps import format_instant, parse_instant
from tether.domain.views import VehicleState

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from tether.client import Client
    from tether.client.sync_run import Stream

_OTHER_LINES = 4  # lines of the screen: titles, the line below them, the sums, the cursor
_REFRESHES_PER_S = 2
_IDS = ("Vehicle", "Charger")  # ids may be long
_KINDS = {Event: "event", Withdrawal: "withdrawal", VehicleState: "state"}
_OUT_OF_REACH = "The server is out of reach: trying again by itself."

_EXAMPLES = """\b
Examples:
  tether watch
  tether watch --charger C1408
  tether watch --json | jq -c .state
"""


@click.command(epilog=_EXAMPLES)
@click.option("--charger", metavar="ID", help="Only at this charger.")
@click.option("--vehicle", metavar="ID", help="Only this vehicle.")
@click.option("--cursor", metavar="CURSOR", help="Begin after the line with this cursor, or "
              "with `start` at the first event.")  # fmt: skip
@json_lines_option
@with_access
def watch(
    charger: str | None, vehicle: str | None, cursor: str | None, as_json: bool, access: Access
) -> None:
    """Show which vehicles are plugged in, and follow the changes.

    In a pipe, or with --json, it prints each event or withdrawal, and then the states that it
    changes: one a line, each with its cursor. It does not end by itself, not
    even in an outage: press Ctrl-C.
    """
    with access.client(patient=True) as client:
        if as_json or not sys.stdout.isatty():
            stream = client.stream(cursor, charger_id=charger, vehicle_id=vehicle)
            for message in stream:
                kind = _KINDS[type(message)]
                show_line(to_json({"cursor": stream.cursor, kind: message}))
        elif cursor is not None:
            raise click.UsageError("--cursor is for --json: the table shows what is now.")
        else:
            _show_board(client, charger, vehicle)


def _show_board(client: "Client", charger: str | None, vehicle: str | None) -> None:
    from rich.console import Console
    from rich.live import Live

    with ExitStack() as stack:
        # Connect first, so that no change between the list and the stream is missed. The stream
        # has all chargers: a vehicle that appears at another charger has left this one.
        with retries_noticed(note):
            stream = stack.enter_context(client.stream(vehicle_id=vehicle))
            states = list(_plugged_in(client, charger, vehicle))
        board = Board(stream, charger)
        for state in sorted(states, key=lambda state: -(state.last_event_age or 0)):
            board.update(state)
        # Exit in order on SIGTERM, so that rich shows the cursor again.
        before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        stack.callback(signal.signal, signal.SIGTERM, before)
        stack.enter_context(retries_noticed(lambda text: None))  # the board shows retries itself
        screen = Console(highlight=False)
        stack.enter_context(Live(board, console=screen, refresh_per_second=_REFRESHES_PER_S))
        for message in stream:
            if isinstance(message, VehicleState):
                board.update(message)


def _plugged_in(
    client: "Client", charger: str | None, vehicle: str | None
) -> Iterator[VehicleState]:
    what = f"vehicle {vehicle}" if vehicle is not None else f"charger {charger}"
    with not_found_as_message(f"There is no {what}."):
        if vehicle is not None:
            yield client.vehicles.state(vehicle)
        elif charger is not None:
            yield from client.chargers.state(charger).vehicles
        else:
            for _, state in client.chargers.list_with_state(page_size=1000):
                yield from state.vehicles


class Board:
    """The plugged-in vehicles. The one with the newest event is at the top."""

    def __init__(self, stream: "Stream", charger: str | None) -> None:
        self._stream = stream
        self._charger = charger
        self._states: dict[str, tuple[float, VehicleState]] = {}  # with the time it was received

    def update(self, state: VehicleState) -> None:
        """Updates the state of a vehicle."""
        self._states.pop(state.vehicle_id, None)
        if state.plugged_in and self._charger in (None, state.charger_id):
            self._states[state.vehicle_id] = (time.monotonic(), state)

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        known = list(self._states.values())  # a copy: another thread changes it
        states = [state for _, state in known]
        warnings = [_OUT_OF_REACH] if self._stream.interrupted else []
        height = max(console.size.height - _OTHER_LINES - len(warnings), 1)
        table = TABLES[VehicleState]
        rows = [table.row(_aged(*pair)) for pair in known[::-1][:height]]
        yield table_of(table.titles, rows, cut=_IDS)
        power = sum((state.charge_power or Decimal(0) for state in states), Decimal(0))
        charging = sum(state.charging for state in states)
        more = f" ({len(states) - height:,} not shown)" if len(states) > height else ""
        plugged_in = f"{counted(len(states), 'vehicle')} plugged in{more}"
        yield f"{plugged_in}, {charging:,} charging, {short(power, 2)} kW."
        yield from warnings


def _aged(received: float, state: VehicleState) -> VehicleState:
    """The state with its ages as of now. `received` is a time of `time.monotonic`."""
    more = int(time.monotonic() - received)
    names = ("state_of_charge_age", "charge_power_age", "last_event_age")
    ages = {name: getattr(state, name) for name in names}
    return msgspec.structs.replace(
        state,
        as_of=format_instant(parse_instant(state.as_of) + 1000 * more),
        **{name: age + more for name, age in ages.items() if age is not None},
    )
