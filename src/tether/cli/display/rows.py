"""Shows chargers, vehicles, events, states and sessions in a terminal. Times are UTC."""

import shutil
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import click

from tether.cli.display import numbers
from tether.cli.display.output import Cell, coloured, counted, plain, show_pairs, show_table
from tether.cli.times import format_duration, format_hours, format_second
from tether.domain.models import Charger, Event, Vehicle, Withdrawal
from tether.domain.timestamps import parse_instant
from tether.domain.views import ChargePeriod, ChargerState, EnergySource, Session, VehicleState
from tether.files.table import short_type

WIDE = 120  # columns; a terminal of this width shows the ids of sessions, too


class TableFormat(NamedTuple):
    """The titles of a table, and the function that makes the cells of a row."""

    titles: Sequence[str]
    row: Callable[[Any], Sequence[str]]


# Chargers, vehicles, events -----------------------------------------------------------------------


def show_entity(entity: Charger | Vehicle) -> None:
    """Prints the members of a charger or vehicle."""
    if isinstance(entity, Vehicle):
        special = ("Capacity", _capacity(entity))
    else:
        special = ("Position", _position(entity))
    show_pairs(
        [
            ("Id", entity.id),
            special,
            ("Charges with", _charge(entity)),
            ("Feeds back with", _discharge(entity)),
        ]
    )


def _powers(powers: Sequence[Decimal], low: Decimal | None, high: Decimal | None) -> str:
    if powers:
        return f"{', '.join(map(numbers.exact, powers))} kW"
    if low is None or high is None:
        return ""
    return f"{numbers.exact(low)} to {numbers.exact(high)} kW"


def _charge(entity: Charger | Vehicle) -> str:
    return _powers(entity.charge_powers, entity.charge_power_min, entity.charge_power_max)


def _discharge(entity: Charger | Vehicle) -> str:
    return _powers(entity.discharge_powers, entity.discharge_power_min, entity.discharge_power_max)


def _position(charger: Charger) -> str:
    degrees = (charger.latitude, charger.longitude)
    return ", ".join(numbers.exact(one, 5) for one in degrees if one is not None)  # to a metre


def _capacity(vehicle: Vehicle) -> str:
    return f"{numbers.exact(vehicle.charge_capacity)} kWh"


def _charger_row(charger: Charger) -> list[str]:
    return [charger.id, _charge(charger), _discharge(charger), _position(charger)]


def _vehicle_row(vehicle: Vehicle) -> list[str]:
    return [vehicle.id, _capacity(vehicle), _charge(vehicle), _discharge(vehicle)]


def _event_row(event: Event) -> list[str]:
    return [
        event.time.strftime("%Y-%m-%d %H:%M:%S"),
        short_type(event.type),
        event.charger_id,
        event.vehicle_id,
        numbers.percent(event.state_of_charge),
        numbers.power(event.charge_power),
        numbers.energy(event.charged_energy),
    ]


def event_line(event: Event) -> str:
    """An event as one line: the state of charge, and the power, otherwise the energy."""
    time, kind, charger, vehicle, charge, power, energy = _event_row(event)
    measured = f"{power} kW" if power else f"{energy} kWh" if energy else ""
    charge = charge and f"{charge} %"
    return f"{time}  {kind:12}  {charger:10}  {vehicle:8}  {charge:8}  {measured}".rstrip()


def _withdrawal_row(withdrawal: Withdrawal) -> list[str]:
    return [
        format_second(withdrawal.withdrawn_at),
        format_second(withdrawal.timestamp),
        short_type(withdrawal.type),
        withdrawal.charger_id,
        withdrawal.vehicle_id,
        withdrawal.reason or "",
    ]


# States -----------------------------------------------------------------------------------------


def _vehicle_state_row(state: VehicleState) -> list[str]:
    return [
        state.vehicle_id,
        _activity(state),
        state.charger_id or "",
        _since(state, state.as_of),
        numbers.power(state.charge_power),
        numbers.percent(state.state_of_charge),
        "" if state.state_of_charge_age is None else format_duration(state.state_of_charge_age),
        _ago(state.last_event_age),
    ]


def _activity(state: VehicleState) -> str:
    if state.charging:
        back = (state.charge_power or 0) < 0
        return Cell("feeding back" if back else "charging", "green")
    if state.plugged_in:
        return "plugged in"
    return Cell("away" if state.last_event else "no event", "dim")


def _charger_state_row(state: ChargerState) -> list[str]:
    if not state.occupied:
        activity: str = Cell("free" if state.last_event else "no event", "dim")
    else:
        activity = Cell("charging", "green") if state.charging else "occupied"
    return [
        state.charger_id,
        activity,
        ", ".join(vehicle.vehicle_id for vehicle in state.vehicles),
        _since(state.vehicles[0], state.as_of) if state.vehicles else "",
        numbers.power(state.charge_power),
        _ago(state.last_event_age),
    ]


def _since(state: VehicleState, now: str) -> str:
    """How long the vehicle has been plugged in."""
    if state.plugged_in_since is None:
        return ""
    length_ms = parse_instant(now) - parse_instant(state.plugged_in_since)
    return format_duration(max(0, length_ms) // 1000)


# Sessions ---------------------------------------------------------------------------------------


def _session_row(session: Session) -> list[str]:
    return [
        format_second(session.connected_at)[:16],
        session.charger_id,
        session.vehicle_id,
        _plugged_time(session),
        format_hours(session.charged_time),
        _energy(session.charged_energy, estimated=session.estimated),
        _states_of_charge(session),
        Cell(str(len(session.flags)) if session.flags else "", "yellow"),
        session.id if shutil.get_terminal_size().columns >= WIDE else "",
    ]


def _silent_session_row(session: Session, now_ms: int) -> list[str]:
    last_event_ms = parse_instant(session.last_event_at or session.connected_at)
    return [
        session.id,
        session.charger_id,
        session.vehicle_id,
        session.connected_at[:10],
        Cell(_ago(Decimal(max(0, now_ms - last_event_ms)) / 1000), "yellow"),
    ]


def session_line(session: Session) -> str:
    """A session as one line."""
    begun, charger, vehicle, plugged, _, energy, states, *_ = _session_row(session)
    what = f"{energy:>9} kWh  {states:9}" if energy else f"{'':15}{states:9}"
    flags = ", ".join(flag.name for flag in session.flags)
    return f"{begun}  {charger:10}  {vehicle:8}  {plugged:>8}  {what}  {flags}".rstrip()


def show_session(session: Session) -> None:
    """Prints a session with its charge periods and flags."""
    energy = _energy(session.charged_energy, estimated=False)
    plugged, unknown = session.plugged_time, session.periods_without_energy
    notes = ["estimated"] if energy and session.estimated else []
    notes += [f"not known of {counted(unknown, 'charge period')}"] if unknown else []
    pairs = [
        ("Id", session.id),
        ("Vehicle", session.vehicle_id),
        ("Charger", session.charger_id),
        ("Status", session.status.value),
        ("Plugged in", format_second(session.connected_at)),
        ("Unplugged", format_second(session.disconnected_at)),
        ("Plugged for", "" if plugged is None else f"{format_hours(plugged)} h"),
        ("Charged for", f"{format_hours(session.charged_time)} h"),
        ("Energy", ", ".join(filter(None, [energy and f"{energy} kWh", *notes]))),
        ("Full", f"{states} %" if (states := _states_of_charge(session)) else ""),
        ("Power", _session_powers(session)),
        ("Heard of", format_second(session.last_event_at)),
        ("Changed", f"{format_second(session.updated_at)}, version {session.version}"),
    ]
    show_pairs(pairs)
    if session.periods:
        click.echo()
        titles = ("Charge from (UTC)", "To", "Charged", "kWh", "Energy is")
        show_table(titles, [_period_row(period) for period in session.periods])
    for flag in session.flags:
        click.echo(f"\n{coloured(plain(flag.name), 'yellow')}")
        width = shutil.get_terminal_size().columns
        click.echo(click.wrap_text(plain(flag.message), width, "  ", "  "))


_SOURCES = {
    EnergySource.REPORTED: "reported",
    EnergySource.METER: "the newest reading",
    EnergySource.POWER: "power over time",
    EnergySource.STATE_OF_CHARGE: "from the state of charge",
}


def _period_row(period: ChargePeriod) -> list[str]:
    return [
        format_second(period.started_at),
        format_second(period.stopped_at) or "goes on",
        format_hours(period.charged_time),
        _energy(period.charged_energy, estimated=period.energy_source != EnergySource.REPORTED),
        _SOURCES[period.energy_source] if period.energy_source else "not known",
    ]


def _session_powers(session: Session) -> str:
    both = ((session.average_power, "on average"), (session.maximum_power, "at most"))
    return ", ".join(
        f"{numbers.power(power)} kW {word}" for power, word in both if power is not None
    )


def _plugged_time(session: Session) -> str:
    if session.plugged_time is not None and session.status == "ended":
        return format_hours(session.plugged_time)
    return Cell(session.status.value, "green" if session.status == "active" else "dim")


def _energy(energy: Decimal | None, *, estimated: bool) -> str:
    return f"{'~' if estimated and energy is not None else ''}{numbers.energy(energy)}"


def _states_of_charge(session: Session) -> str:
    """The first and the last state of charge, or one if their texts are equal."""
    start = numbers.percent(session.state_of_charge_start)
    end = numbers.percent(session.state_of_charge_end)
    return start if start == end else f"{start}→{end}"


def _ago(seconds: Decimal | None) -> str:
    return "" if seconds is None else f"{format_duration(seconds)} ago"


# Tables ------------------------------------------------------------------------------------------


TABLES: dict[type, TableFormat] = {
    Charger: TableFormat(("Charger", "Charges with", "Feeds back with", "Position"), _charger_row),
    Vehicle: TableFormat(("Vehicle", "Capacity", "Charges with", "Feeds back with"), _vehicle_row),
    Event: TableFormat(("Time (UTC)", "Event", "Charger", "Vehicle", "%", "kW", "kWh"), _event_row),
    Withdrawal: TableFormat(
        ("Withdrawn (UTC)", "Time (UTC)", "Event", "Charger", "Vehicle", "Reason"), _withdrawal_row
    ),
    VehicleState: TableFormat(
        ("Vehicle", "Now", "Charger", "For", "kW", "%", "Old", "Last event"), _vehicle_state_row
    ),
    ChargerState: TableFormat(
        ("Charger", "Now", "Vehicles", "For", "kW", "Last event"), _charger_state_row
    ),
    Session: TableFormat(
        ("Begun (UTC)", "Charger", "Vehicle", "Stay", "Charged", "kWh", "%", "Flags", "Id"),
        _session_row,
    ),
}


def silent_sessions_table(now_ms: int) -> TableFormat:
    """The table of active sessions without a recent event."""
    titles = ("Id", "Charger", "Vehicle", "Begun", "Heard of")
    return TableFormat(titles, lambda session: _silent_session_row(session, now_ms))
