"""Makes sessions and states, as partners see them, from the stored records.

They are compared with the vehicle and the charger here, not where sessions are derived. Vehicles
and chargers may change at any time, while a session depends on events alone.
"""

from decimal import Decimal
from functools import reduce
from typing import NamedTuple

from tether.domain.charge_reports import with_reports
from tether.domain.earlier_sessions import SessionContext, allows
from tether.domain.models import (
    EXACT,
    Charger,
    Entity,
    Event,
    Vehicle,
)
from tether.domain.session_record import PeriodRecord, SessionRecord
from tether.domain.timestamps import format_instant
from tether.domain.views import (
    ChargePeriod,
    ChargerState,
    EnergySource,
    Flag,
    Session,
    SessionStatus,
    VehicleState,
)

FLAGS = {
    "connect-missing": "Nothing told that the vehicle was plugged in: the session begins with the "
    "first event that shows it was.",
    "disconnect-missing": "Nothing told that the vehicle was unplugged: the session ends with the "
    "next event that shows it was.",
    "connect-repeated": "The plug-in was announced again, and nothing shows that the vehicle had "
    "left: it is the same session.",
    "start-missing": "Nothing told that a charge had started: the period begins where its own "
    "report says, else with the event that shows it.",
    "stop-missing": "Nothing told that a charge had stopped: the period ends with the session.",
    "start-repeated": "A charge started while one was under way: the earlier period ends there, "
    "unless what is reported later shows that both are one.",
    "stop-repeated": "A charge stopped while none was under way: its energy is not counted again.",
    "update-after-stop": "An update is of a charge that had stopped: it does not start it again.",
    "event-after-disconnect": "An event came more than two minutes after the vehicle was "
    "unplugged: it does not plug it in again.",
    "event-elsewhere": "Meanwhile an event named the vehicle at another charger, and does not show "
    "that it is there: it does not move it.",
    "vehicle-shared": "Events named the vehicle at two chargers at once: more than one vehicle "
    "seems to have this id.",
    "meter-began-anew": "The meter of a charge fell and began anew: what it counted before and "
    "after is added up.",
    "state-of-charge-fell": "The state of charge fell while the vehicle was being charged.",
    "state-of-charge-jumped": "The state of charge changed by more than the power allows, so the "
    "energy of a charge cannot be told from it.",
    "state-of-charge-differs": "The state of charge tells of over a fifth more or less energy than "
    "the readings of the power.",
    "state-of-charge-tiny": "No state of charge was above 1 %: it seems to be sent as a fraction, "
    "0.22 where 22 is meant, or as 0 where it is not known.",
    "charged-time-too-long": "A charge reported over two minutes more than lie between the "
    "timestamps of its start and stop: a clock was wrong.",
    "earlier-charge-included": "A report included an earlier charge, which counts there: only the "
    "rest counts here.",
    "periods-merged": "There are more than 1,000 charge periods: the last one shown takes in all "
    "that follow.",
    "energy-above-capacity": "A charge took more energy than the vehicle can store.",
    "energy-above-power": "A charge reported more energy than the highest power gives in its time.",
    "power-above-charger": "The power was higher than the charger supports.",
    "power-above-vehicle": "The power was higher than the vehicle supports.",
}
"""Every flag that a session can carry, with the sentence that explains it."""

_IN_RECORD = {
    "connect-missing": '"start_missing":true',
    "disconnect-missing": '"end_missing":true',
    "start-missing": '"start_missing":true',
    "stop-missing": '"stop_missing":true',
}
_COMPUTED = {
    "energy-above-capacity",
    "energy-above-power",
    "power-above-charger",
    "power-above-vehicle",
    "state-of-charge-differs",
    "state-of-charge-jumped",
}


def texts_of_flag(name: str) -> tuple[str, ...]:
    """The JSON of each stored session with the flag has one of these texts. Empty if nobody knows
    before the session is compared with its vehicle and charger.
    """
    return () if name in _COMPUTED else (_IN_RECORD.get(name, f'"{name}"'), '"reports":')


_SHOWN_FLAGS = {name: Flag(name=name, message=message) for name, message in FLAGS.items()}

_ZERO, _ONE, _HOUR_S = Decimal(0), Decimal(1), Decimal(3600)
_THOUSANDTH = Decimal("0.001")

GREATEST = Decimal(10) ** 9
"""Numbers in events are smaller. A computed number that is not smaller counts as unknown."""


class StoredSession(NamedTuple):
    """A session as it is stored, with the vehicle and the charger as they are now."""

    id: str
    record: SessionRecord
    vehicle: Vehicle
    charger: Charger
    version: int
    updated_ms: int
    removed: bool = False
    created_ms: int = 0
    """When it was first derived; 0 if that is not known."""


class LatestSession(NamedTuple):
    """A vehicle's newest session with its context, and its newest event.

    The event is None if it was withdrawn and the session was not derived again yet.
    """

    record: SessionRecord
    context: SessionContext
    last_event: Event | None


class ChargerOccupancy(NamedTuple):
    """The vehicles that are plugged in at a charger, by their sessions, and its newest event.

    If there are `more` vehicles, these are the ones that were plugged in last.
    """

    sessions: list[LatestSession]
    last_event: Event | None
    more: bool


def session_of(known: StoredSession) -> Session:
    """The session as partners see it."""
    record = with_reports(known.record) if known.record.reports else known.record
    until_ms = record.last.at_ms if record.end_ms is None else record.end_ms
    flags = flags_of(record)
    periods: list[ChargePeriod] = []
    energy = charged_time = measured_time = highest = None
    estimated, without_energy = False, 0
    for period in record.periods:
        view = _period(period, until_ms, known, flags)
        periods.append(view)
        charged_time = _sum(charged_time, view.charged_time)
        if view.energy_source is not EnergySource.REPORTED:
            estimated = True
        if view.charged_energy is None:
            without_energy += 1
        else:
            energy = _sum(energy, view.charged_energy)
            measured_time = _sum(measured_time, view.charged_time)
        if period.power_max is not None and (highest is None or period.power_max > highest):
            highest = period.power_max
    return Session(
        id=known.id,
        vehicle_id=record.vehicle_id,
        charger_id=record.charger_id,
        status=_status(known),
        connected_at=format_instant(record.start_ms),
        disconnected_at=None if record.end_ms is None else format_instant(record.end_ms),
        plugged_time=None if record.end_ms is None else seconds(record.end_ms - record.start_ms),
        charged_time=charged_time or _ZERO,
        charged_energy=energy,
        estimated=estimated,
        periods_without_energy=without_energy,
        state_of_charge_start=record.soc_start,
        state_of_charge_end=record.soc,
        average_power=average_power(energy, measured_time),
        maximum_power=highest,
        periods=tuple(periods),
        # During a roll-out there may be flags that only another version knows.
        flags=tuple([_SHOWN_FLAGS[name] for name in sorted(flags) if name in _SHOWN_FLAGS]),
        version=known.version,
        updated_at=format_instant(known.updated_ms),
        last_event_at=format_instant(until_ms) if record.end_ms is None else None,
    )


def _status(known: StoredSession) -> SessionStatus:
    if known.removed:
        return SessionStatus.REMOVED
    return SessionStatus.ACTIVE if known.record.end_ms is None else SessionStatus.ENDED


def _period(
    period: PeriodRecord, until_ms: int, known: StoredSession, flags: set[str]
) -> ChargePeriod:
    """The period. Adds flags for what is odd about it."""
    if _is_above(period, known.charger):
        flags.add("power-above-charger")
    if _is_above(period, known.vehicle):
        flags.add("power-above-vehicle")
    lasted_ms = period.lasted_ms(until_ms)
    energy, source = _energy(period, lasted_ms, known, flags)
    time_s = period.own_time_s
    charged_time = seconds(lasted_ms) if time_s is None else time_s
    if energy is not None and energy > known.vehicle.charge_capacity:
        flags.add("energy-above-capacity")
    if source is EnergySource.REPORTED or source is EnergySource.METER:
        longest_ms = max(lasted_ms, period.reported_ms - period.start_ms, int(charged_time * 1000))
        if not _is_possible(energy, longest_ms, period, known):
            flags.add("energy-above-power")
    return ChargePeriod(
        started_at=format_instant(period.start_ms),
        stopped_at=None if period.stop_ms is None else format_instant(period.stop_ms),
        charged_energy=energy,
        charged_time=charged_time,
        energy_source=source,
    )


def _energy(
    period: PeriodRecord, lasted_ms: int, known: StoredSession, flags: set[str]
) -> tuple[Decimal | None, EnergySource | None]:
    """The energy of the period from the best available source."""
    energy, source = energy_of_events(period, lasted_ms)
    if source is EnergySource.REPORTED or source is EnergySource.METER:
        return energy, source
    gained = _gained(period, known.vehicle)
    if source is EnergySource.POWER:
        # The state of charge is compared if it is the newer reading.
        if gained is not None and period.soc_end_ms >= period.power_ms:
            by_then = period.by_power(min(lasted_ms, period.soc_end_ms - period.start_ms))
            if _differ(by_then, gained, known.vehicle):
                flags.add("state-of-charge-differs")
        return energy, source
    if gained is None:
        return None, None
    if not _is_possible(gained, lasted_ms, period, known):
        flags.add("state-of-charge-jumped")
        return None, None
    return gained, EnergySource.STATE_OF_CHARGE


def energy_of_events(
    period: PeriodRecord, lasted_ms: int
) -> tuple[Decimal | None, EnergySource | None]:
    """The energy of the period from the best source that does not depend on the vehicle."""
    if (energy := period.own_energy(lasted_ms)) is None:
        return None, None
    if period.energy is not None:
        return energy, EnergySource.REPORTED
    if period.metered is not None:
        return energy, EnergySource.METER
    return plain(energy), EnergySource.POWER


def _gained(period: PeriodRecord, vehicle: Vehicle) -> Decimal | None:
    """The energy that the battery gained in the period by its state of charge, in kWh."""
    if period.soc_start is None or period.soc_end is None:
        return None
    percent = EXACT.subtract(period.soc_end, period.soc_start)
    return EXACT.divide(EXACT.multiply(percent, vehicle.charge_capacity), Decimal(100))


def _differ(energy: Decimal | None, gained: Decimal, vehicle: Vehicle) -> bool:
    """Whether the energy that the state of charge shows differs from that of the power by over a
    fifth, and by over two points, as many vehicles report whole ones.
    """
    if energy is None:
        return False
    difference = abs(EXACT.subtract(energy, gained))
    highest = max(abs(energy), abs(gained))
    return 5 * difference > highest and 50 * difference > vehicle.charge_capacity


def _is_possible(
    energy: Decimal | None, during_ms: int, period: PeriodRecord, known: StoredSession
) -> bool:
    """Whether the powers of charger and vehicle, and the highest reported power, allow it."""
    if not energy:
        return True
    if energy > 0:
        power = min(highest_charge(known.charger), highest_charge(known.vehicle))
        reported = period.power_max
    else:
        power = min(highest_discharge(known.charger), highest_discharge(known.vehicle))
        reported = None if period.power_min is None else max(-period.power_min, _ZERO)
    return allows(power if reported is None else min(power, reported), abs(energy), during_ms)


def flags_of(record: SessionRecord) -> set[str]:
    """The flags of the session that do not depend on its vehicle and charger."""
    flags = set(record.flags)
    if record.start_missing:
        flags.add("connect-missing")
    if record.end_missing:
        flags.add("disconnect-missing")
    if any(period.start_missing for period in record.periods):
        flags.add("start-missing")
    if any(period.stop_missing for period in record.periods):
        flags.add("stop-missing")
    return flags


def highest_charge(entity: Entity) -> Decimal:
    """The highest power in kW at which it can charge."""
    powers = entity.charge_powers
    return max(powers) if powers else entity.charge_power_max or _ZERO


def highest_discharge(entity: Entity) -> Decimal:
    """The highest power in kW at which it can discharge; 0 if it cannot."""
    powers = entity.discharge_powers
    return max(powers) if powers else entity.discharge_power_max or _ZERO


def _is_above(period: PeriodRecord, entity: Entity) -> bool:
    """Whether a reading of the power was higher than the charger or vehicle supports."""
    if period.power_max is None or period.power_min is None:
        return False
    if period.power_max > highest_charge(entity):
        return True
    return period.power_min < 0 and -period.power_min > highest_discharge(entity)


# States -------------------------------------------------------------------------------------------


def vehicle_state(vehicle_id: str, latest: LatestSession | None, now_ms: int) -> VehicleState:
    """The state of a vehicle now; `latest` is None if it has no events."""
    as_of = format_instant(now_ms)
    if latest is None:
        return VehicleState(vehicle_id=vehicle_id, plugged_in=False, charging=False, as_of=as_of)
    record, context, last_event = latest
    here = record.end_ms is None
    soc, soc_ms = record.soc, record.soc_ms
    if soc is None:
        soc, soc_ms = context.soc, context.soc_ms
    period = record.charging
    power = None if period is None else period.power
    return VehicleState(
        vehicle_id=vehicle_id,
        plugged_in=here,
        charger_id=record.charger_id if here else None,
        plugged_in_since=format_instant(record.start_ms) if here else None,
        session_id=record.id if here else None,
        charging=period is not None,
        charging_since=format_instant(period.start_ms) if period else None,
        state_of_charge=soc,
        state_of_charge_at=None if soc is None else format_instant(soc_ms),
        state_of_charge_age=None if soc is None else age(soc_ms, now_ms),
        charge_power=power,
        charge_power_at=format_instant(period.power_ms) if period and power is not None else None,
        charge_power_age=age(period.power_ms, now_ms) if period and power is not None else None,
        last_event=last_event,
        last_event_age=None if last_event is None else age(last_event.at_ms, now_ms),
        as_of=as_of,
    )


def charger_state(charger_id: str, occupancy: ChargerOccupancy, now_ms: int) -> ChargerState:
    """The state of a charger now, with the states of the vehicles at it."""
    sessions, last_event, more = occupancy
    vehicles = tuple(vehicle_state(latest.record.vehicle_id, latest, now_ms) for latest in sessions)
    return ChargerState(
        charger_id=charger_id,
        occupied=bool(vehicles),
        charging=any(vehicle.charging for vehicle in vehicles),
        charge_power=reduce(_sum, (vehicle.charge_power for vehicle in vehicles), None),
        vehicles=vehicles,
        more_vehicles=more,
        last_event=last_event,
        last_event_age=None if last_event is None else age(last_event.at_ms, now_ms),
        as_of=format_instant(now_ms),
    )


# Numbers ------------------------------------------------------------------------------------------


def seconds(milliseconds: int) -> Decimal:
    """Milliseconds in seconds."""
    return Decimal(milliseconds) / 1000


def age(at_ms: int, now_ms: int) -> Decimal:
    """How many seconds ago it was; 0 if it is in the future, as clocks may be wrong."""
    return seconds(max(0, now_ms - at_ms))


def _sum(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    """The exact sum of the known numbers; None if both are unknown."""
    if one is None or other is None:
        return other if one is None else one
    return EXACT.add(one, other)


def average_power(energy: Decimal | None, time_s: Decimal | None) -> Decimal | None:
    """The power in kW; None if it is unknown or too large."""
    if energy is None or not time_s:
        return None
    average = EXACT.divide(EXACT.multiply(energy, _HOUR_S), time_s)
    return rounded(average, _THOUSANDTH) if abs(average) < GREATEST else None


def rounded(value: Decimal, step: Decimal) -> Decimal:
    """The value rounded to a multiple of `step`, without trailing zeros."""
    return plain(value.quantize(step, context=EXACT))


def plain(value: Decimal) -> Decimal:
    """The same number without trailing zeros, which sums have."""
    short = value.normalize(EXACT)
    return short.quantize(_ONE, context=EXACT) if short == short.to_integral() else short
