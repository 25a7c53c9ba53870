"""How lists and entities are shown: tables in a terminal, JSON for programs."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from functools import partial
from itertools import islice
from typing import Any, TypeAlias, TypeVar

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

T = TypeVar("T")
TableOf: TypeAlias = tuple[Sequence[str], Callable[[Any], Sequence[Cell | str]]]
"""The titles of a table, and what makes the cells of a row."""

MOST_IN_A_TABLE = 100

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
    things: Iterator[T],
    show: Callable[[list[T]], None] | None = None,
    *,
    limit: int | None,
    as_json: bool,
    none_yet: str,
) -> None:
    """Shows at most so many of them: to people by `show`, else in the table of their kind, and to
    programs as JSON. `none_yet` is said to people where there are none.
    """
    if as_json or not sys.stdout.isatty():
        for thing in islice(things, limit):
            show_line(to_json(thing))
    else:
        show_some(things, show or _show_table, limit, none_yet)


def show_some(
    things: Iterator[T], show: Callable[[list[T]], None], limit: int | None, none_yet: str
) -> None:
    """Shows people at most so many of them, and says if there are more, or none."""
    found = list(islice(things, limit or MOST_IN_A_TABLE))
    if not found:
        note(none_yet)
        return
    show(found)
    if limit is None and next(things, None) is not None:
        note(f"\nThere are more: --limit shows more than {MOST_IN_A_TABLE}, a pipe gets all.")


def _show_table(things: list[Any]) -> None:
    show_rows(_TABLES[type(things[0])], things)


def show_rows(table: TableOf, things: Iterable[Any]) -> None:
    """Shows them in this table."""
    titles, row = table
    rows = [row(thing) for thing in things]
    show_table(titles, rows, wrapped=("Charger", "Vehicle", "Vehicles"))


def show_one(thing: T, show: Callable[[T], None], *, as_json: bool) -> None:
    """Shows one: to people by `show`, to programs as the API's object."""
    if as_json or not sys.stdout.isatty():
        show_line(to_json(thing))
    else:
        show(thing)


def show_entity(entity: Charger | Vehicle) -> None:
    """Shows the members of a charger or vehicle."""
    if isinstance(entity, Vehicle):
        particular = ("Capacity", _with("kWh", entity.charge_capacity))
    else:
        particular = ("Position", _position(entity))
    show_pairs(
        [
            ("Id", entity.id),
            particular,
            ("Charges with", _charge(entity)),
            ("Feeds back with", _discharge(entity)),
        ]
    )


# Cells ------------------------------------------------------------------------------------------


def _with(unit: str, number: Decimal) -> str:
    return f"{numbers.given(number)} {unit}"


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
    degrees = (charger.latitude, charger.longitude)
    return ", ".join(numbers.given(one, 5) for one in degrees if one is not None)  # to a metre


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
        numbers.percent(thing.state_of_charge),
        numbers.power(thing.charge_power),
        numbers.energy(thing.charged_energy),
    ]


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
