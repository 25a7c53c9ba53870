"""Reads sessions and states out of stays: what partners are shown of them.

Here, and not where stays are made, they are compared with what the vehicle and the charger are
said to be: that may change at any time, while a stay depends on events alone.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

from tether.derived import (
    ChargePeriod,
    ChargerState,
    EnergySource,
    Flag,
    Session,
    SessionStatus,
    VehicleState,
)
from tether.instants import format_instant
from tether.model import Charger, Entity, Event, Vehicle
from tether.periods import EXACT, Period
from tether.stays import Before, Stay

FLAGS = {
    "connect-missing": "Nothing told that the vehicle was plugged in: the session begins with the "
    "first event that shows it was.",
    "disconnect-missing": "Nothing told that the vehicle was unplugged: the session ends with the "
    "next event that shows it was.",
    "start-missing": "Nothing told that a charge had started: the period begins where its own "
    "report says, else with the event that shows it.",
    "stop-missing": "Nothing told that a charge had stopped: the period ends with the session.",
    "start-repeated": "A charge started while one was under way: the earlier period ends there, "
    "unless what is reported later shows that both are one.",
    "stop-repeated": "A charge stopped while none was under way: its energy is not counted again.",
    "update-after-stop": "An update came up to ten minutes after the charge had stopped: it does "
    "not start it again.",
    "same-instant": "Something ended and began in the same millisecond: what had lasted before is "
    "taken to have ended first.",
    "event-after-disconnect": "An event came up to ten minutes after the vehicle was unplugged: it "
    "does not plug it in again.",
    "event-elsewhere": "Meanwhile an event named the vehicle at a charger that it had left: it "
    "does not move it back, and energy that it reports is not counted.",
    "state-of-charge-fell": "The state of charge fell while the vehicle was being charged.",
    "charged-time-too-long": "A charge reported over two minutes more than lie between the "
    "timestamps of its start and stop: a clock was wrong.",
    "periods-merged": "There are more than 1,000 charge periods: the last one shown takes in all "
    "that follow.",
    "energy-above-capacity": "A charge took more energy than the vehicle can store.",
    "power-above-charger": "The power was higher than the charger supports.",
    "power-above-vehicle": "The power was higher than the vehicle supports.",
}
"""Every flag that a session can carry, with the sentence that explains it."""


class Known(NamedTuple):
    """A stay as it is stored, with the vehicle and the charger as they are now."""

    id: str
    stay: Stay
    vehicle: Vehicle
    charger: Charger
    version: int
    updated_ms: int
    removed: bool = False


class Moment(NamedTuple):
    """A vehicle's newest stay, what it knows of the time before, and its newest event."""

    stay: Stay
    before: Before
    last_event: Event


def session_of(known: Known) -> Session:
    """The stay as a session."""
    stay = known.stay
    until_ms = stay.last.at_ms if stay.end_ms is None else stay.end_ms
    periods = [_period(period, until_ms, known.vehicle) for period in stay.periods]
    with_energy = [period for period in periods if period.charged_energy is not None]
    energy = _sum(period.charged_energy for period in with_energy)
    highest = [period.power_max for period in stay.periods if period.power_max is not None]
    ended = None if stay.end_ms is None else seconds(stay.end_ms - stay.start_ms)
    return Session(
        id=known.id,
        vehicle_id=stay.vehicle_id,
        charger_id=stay.charger_id,
        status=_status(known),
        connected_at=format_instant(stay.start_ms),
        disconnected_at=None if stay.end_ms is None else format_instant(stay.end_ms),
        plugged_time=ended,
        charged_time=_sum(period.charged_time for period in periods) or Decimal(0),
        charged_energy=energy,
        estimated=any(period.energy_source != EnergySource.REPORTED for period in periods),
        periods_without_energy=len(periods) - len(with_energy),
        state_of_charge_start=stay.soc_start,
        state_of_charge_end=stay.soc,
        average_power=_average(energy, _sum(period.charged_time for period in with_energy)),
        maximum_power=max(highest, default=None),
        periods=tuple(periods),
        flags=tuple(Flag(name=name, message=FLAGS[name]) for name in _flags(known, with_energy)),
        version=known.version,
        updated_at=format_instant(known.updated_ms),
    )


def _status(known: Known) -> SessionStatus:
    if known.removed:
        return SessionStatus.REMOVED
    return SessionStatus.ACTIVE if known.stay.end_ms is None else SessionStatus.ENDED


def _period(period: Period, until_ms: int, vehicle: Vehicle) -> ChargePeriod:
    stop_ms = until_ms if period.stop_ms is None else period.stop_ms
    energy, source = _energy(period, stop_ms, vehicle)
    return ChargePeriod(
        started_at=format_instant(period.start_ms),
        stopped_at=None if period.stop_ms is None else format_instant(period.stop_ms),
        charged_energy=energy,
        charged_time=seconds(stop_ms - period.start_ms) if period.time_s is None else period.time_s,
        energy_source=source,
    )


def _energy(
    period: Period, stop_ms: int, vehicle: Vehicle
) -> tuple[Decimal | None, EnergySource | None]:
    """The energy of the period by the best source that there is."""
    if period.energy is not None:
        return period.energy, EnergySource.REPORTED
    if period.metered is not None:
        return period.metered, EnergySource.METER
    if period.power is not None and period.power_first is not None:
        held = EXACT.multiply(period.power_first, Decimal(period.power_first_ms - period.start_ms))
        held = EXACT.fma(period.power, Decimal(stop_ms - period.power_ms), held)
        twice = EXACT.fma(held, Decimal(2), period.power_area)
        return _rounded(EXACT.divide(twice, Decimal(7_200_000)), "0.000001"), EnergySource.POWER
    if period.soc_start is not None and period.soc_end is not None:
        gained = EXACT.subtract(period.soc_end, period.soc_start)
        energy = EXACT.divide(EXACT.multiply(gained, vehicle.charge_capacity), Decimal(100))
        return energy, EnergySource.STATE_OF_CHARGE
    return None, None


def _flags(known: Known, with_energy: Iterable[ChargePeriod]) -> list[str]:
    flags = list(known.stay.flags)
    capacity = known.vehicle.charge_capacity
    if any((period.charged_energy or 0) > capacity for period in with_energy):
        flags.append("energy-above-capacity")
    for name, entity in (
        ("power-above-charger", known.charger),
        ("power-above-vehicle", known.vehicle),
    ):
        if any(_is_above(period, entity) for period in known.stay.periods):
            flags.append(name)
    return sorted(flags)


def _is_above(period: Period, entity: Entity) -> bool:
    """Whether a reading was higher than what the charger or vehicle supports, in its direction."""
    if period.power_max is None or period.power_min is None:
        return False
    return period.power_max > highest_charge(entity) or -period.power_min > highest_discharge(
        entity
    )


def highest_charge(entity: Entity) -> Decimal:
    """The highest power in kW at which it can charge."""
    return max(entity.charge_powers, default=entity.charge_power_max) or Decimal(0)


def highest_discharge(entity: Entity) -> Decimal:
    """The highest power in kW at which it can give back; 0 if it cannot."""
    return max(entity.discharge_powers, default=entity.discharge_power_max) or Decimal(0)


# States -------------------------------------------------------------------------------------------


def vehicle_state(vehicle_id: str, moment: Moment | None, now_ms: int) -> VehicleState:
    """What is known of a vehicle now; `moment` is None if nothing was ever reported of it."""
    as_of = format_instant(now_ms)
    if moment is None:
        return VehicleState(vehicle_id=vehicle_id, plugged_in=False, charging=False, as_of=as_of)
    stay, before, last_event = moment
    here = stay.end_ms is None
    soc, soc_ms = (stay.soc, stay.soc_ms) if stay.soc is not None else (before.soc, before.soc_ms)
    period = stay.charging
    power = None if period is None else period.power
    return VehicleState(
        vehicle_id=vehicle_id,
        plugged_in=here,
        charger_id=stay.charger_id if here else None,
        plugged_in_since=format_instant(stay.start_ms) if here else None,
        session_id=stay.id if here else None,
        charging=period is not None,
        charging_since=format_instant(period.start_ms) if period else None,
        state_of_charge=soc,
        state_of_charge_at=None if soc is None else format_instant(soc_ms),
        state_of_charge_age=None if soc is None else age(soc_ms, now_ms),
        charge_power=power,
        charge_power_at=format_instant(period.power_ms) if period and power is not None else None,
        charge_power_age=age(period.power_ms, now_ms) if period and power is not None else None,
        last_event=last_event,
        last_event_age=age(last_event.at_ms, now_ms),
        as_of=as_of,
    )


def charger_state(
    charger_id: str,
    vehicles: Iterable[VehicleState],
    last_event: Event | None,
    now_ms: int,
    *,
    more: bool,
) -> ChargerState:
    """What is known of a charger now: the states of the vehicles at it, and its newest event.

    `more`: there are more vehicles than these.
    """
    there = tuple(vehicles)
    return ChargerState(
        charger_id=charger_id,
        occupied=bool(there),
        charging=any(vehicle.charging for vehicle in there),
        charge_power=_sum(vehicle.charge_power for vehicle in there),
        vehicles=there,
        more_vehicles=more,
        last_event=last_event,
        last_event_age=None if last_event is None else age(last_event.at_ms, now_ms),
        as_of=format_instant(now_ms),
    )


# Numbers ------------------------------------------------------------------------------------------


def seconds(milliseconds: int) -> Decimal:
    """So many milliseconds in seconds."""
    return Decimal(milliseconds) / 1000


def age(at_ms: int, now_ms: int) -> Decimal:
    """How many seconds ago it was; 0 for what a clock that is ahead has stamped."""
    return seconds(max(0, now_ms - at_ms))


def _sum(values: Iterable[Decimal | None]) -> Decimal | None:
    """The exact sum of the known values; None if there are none."""
    total = None
    for value in values:
        if value is not None:
            total = value if total is None else EXACT.add(total, value)
    return total


def _average(energy: Decimal | None, time_s: Decimal | None) -> Decimal | None:
    if energy is None or not time_s:
        return None
    return _rounded(EXACT.divide(EXACT.multiply(energy, Decimal(3600)), time_s), "0.001")


def _rounded(value: Decimal, step: str) -> Decimal:
    """The value to that many digits, without zeros at its end."""
    return plain(value.quantize(Decimal(step), context=EXACT))


def plain(value: Decimal) -> Decimal:
    """The same number without zeros at its end: sums have those of whatever was added."""
    short = value.normalize(EXACT)
    return short.quantize(Decimal(1), context=EXACT) if short == short.to_integral() else short
