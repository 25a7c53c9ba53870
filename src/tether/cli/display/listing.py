"""How lists and entities are shown: tables in a terminal, JSON for programs."""

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from functools import partial
from itertools import islice
from typing import Any, TypeAlias

import click

from tether.cli.display import numbers
from tether.cli.display.output import Cell, note, show_line, show_pairs, show_table
from tether.cli.display.rows import (
    CHARGER_STATE_TITLES,
    SESSION_TITLES,
    VEHICLE_STATE_TITLES,
    WITHDRAWAL_TITLES,
    charger_state_row,
    session_row,
    vehicle_state_row,
    withdrawal_row,
)
from tether.cli.members import short_type
from tether.cli.options import WholeNumber
from tether.domain.models import Charger, Event, EventType, Vehicle, Withdrawal, to_json
from tether.domain.views import ChargerState, Session, VehicleState
from tether.files.contents import Written
from tether.files.formats import to_ndjson

MOST_IN_A_TABLE = 100
WIDE = 120  # columns of a terminal in which there is room for ids that nobody remembers

list_limit_option = click.option(
    "--limit",
    type=WholeNumber(1),
    help=f"At most so many.  [default: {MOST_IN_A_TABLE} in a terminal, else all]",
)
lines_option = click.option(
    "--json", "as_json", is_flag=True, help="Objects, one a line, as in a pipe."
)
_flag_of_stale = partial(
    click.option, is_flag=True, help="What is derived by now, also if more events wait."
)
stale_option = _flag_of_stale("--stale-allowed", "--stale", "stale_allowed")
stale_allowed_option = _flag_of_stale("--stale-allowed", "stale_allowed")
object_option = click.option("--json", "as_json", is_flag=True, help="The object, as in a pipe.")


def show_list(
    things: Iterator[Written],
    *,
    limit: int | None,
    as_json: bool,
    none_yet: str,
    table: "TableOf | None" = None,
) -> None:
    """Shows at most so many of them, in this table, else in that of their kind. `none_yet` is said
    where it would have no row.
    """
    if as_json or not sys.stdout.isatty():
        for thing in islice(things, limit):
            show_line(to_ndjson(thing))
        return
    found = list(islice(things, limit or MOST_IN_A_TABLE))
    if not found:
        note(none_yet)
        return
    titles, row = table or _TABLES[type(found[0])]
    rows = [row(thing) for thing in found]
    if (
        table is None
        and isinstance(found[0], Session)
        and shutil.get_terminal_size().columns >= WIDE
    ):
        titles = (*titles, "Id")
        rows = [[*session_row(one), one.id] for one in found if isinstance(one, Session)]
    show_table(titles, rows, wrapped=("Charger", "Vehicle", "Vehicles"))
    if limit is None and next(things, None) is not None:
        note(f"\nThere are more: --limit shows more than {MOST_IN_A_TABLE}, a pipe gets all.")


def show_one(entity: Charger | Vehicle, *, as_json: bool) -> None:
    """Shows one: its members for people, the API's object for programs."""
    if as_json or not sys.stdout.isatty():
        show_line(to_json(entity))
        return
    show_pairs([pair for pair in _pairs(entity) if pair[1]])


def _pairs(entity: Charger | Vehicle) -> list[tuple[str, str]]:
    if isinstance(entity, Vehicle):
        particular = ("Capacity", _with("kWh", entity.charge_capacity))
    else:
        particular = ("Position", _position(entity))
    return [
        ("Id", entity.id),
        particular,
        ("Charges with", _charge(entity)),
        ("Feeds back with", _discharge(entity)),
    ]


# Cells ------------------------------------------------------------------------------------------


def _with(unit: str, number: Decimal | None) -> str:
    return "" if number is None else f"{numbers.given(number)} {unit}"


def _powers(powers: Sequence[Decimal], low: Decimal | None, high: Decimal | None) -> str:
    if powers:
        return f"{', '.join(map(numbers.given, powers))} kW"
    if low is None or high is None:
        return ""
    return f"{numbers.given(low)} to {numbers.given(high)} kW"


def _charge(entity: Charger | Vehicle) -> str:
    return _powers(entity.charge_powers, entity.charge_power_min, entity.charge_power_max)


def _discharge(entity: Charger | Vehicle) -> str:
    return _powers(entity.discharge_powers, entity.discharge_power_min, entity.discharge_power_max)


def _position(charger: Charger) -> str:
    return (
        ""
        if charger.latitude is None
        else f"{_degrees(charger.latitude)}, {_degrees(charger.longitude)}"
    )


def _degrees(number: Decimal | None) -> str:
    """To a metre."""
    return "" if number is None else numbers.given(number, 5)


def _charger_row(thing: Charger) -> list[str]:
    return [thing.id, _charge(thing), _discharge(thing), _position(thing)]


def _vehicle_row(thing: Vehicle) -> list[str]:
    return [thing.id, _with("kWh", thing.charge_capacity), _charge(thing), _discharge(thing)]


def _event_row(thing: Event) -> list[str]:
    return [
        thing.time.strftime("%Y-%m-%d %H:%M:%S"),
        short_type(thing.type),
        thing.charger_id,
        thing.vehicle_id,
        *_measured(thing),
    ]


def _measured(event: Event) -> tuple[str, str, str]:
    """How full, the power and the energy; empty where it does not tell."""
    full, power, energy = event.state_of_charge, event.charge_power, event.charged_energy
    return (
        "" if full is None else numbers.percent(full),
        "" if power is None else numbers.power(power),
        "" if energy is None else numbers.energy(energy),
    )


TableOf: TypeAlias = tuple[Sequence[str], Callable[[Any], Sequence[Cell | str]]]
"""The titles of a table, and what makes the cells of a row."""

_TABLES: dict[type, TableOf] = {
    Charger: (("Charger", "Charges with", "Feeds back with", "Position"), _charger_row),
    Vehicle: (("Vehicle", "Capacity", "Charges with", "Feeds back with"), _vehicle_row),
    Event: (
        ("Time (UTC)", "Event", "Charger", "Vehicle", "%", "kW", "kWh"),
        _event_row,
    ),
    Withdrawal: (WITHDRAWAL_TITLES, withdrawal_row),
    VehicleState: (VEHICLE_STATE_TITLES, vehicle_state_row),
    ChargerState: (CHARGER_STATE_TITLES, charger_state_row),
    Session: (SESSION_TITLES, session_row),
}


def event_line(event: Event) -> str:
    """One event for people, on a line of its own: how full, and the power or else the energy."""
    time, kind, charger, vehicle, full, power, energy = _event_row(event)
    measured = f"{power} kW" if power else f"{energy} kWh" if energy else ""
    longest = max(len(short_type(kind)) for kind in EventType)
    line = (
        f"{time}  {kind:{longest}}  {charger:10}  {vehicle:8}  {full and full + ' %':8}  {measured}"
    )
    return line.rstrip()
