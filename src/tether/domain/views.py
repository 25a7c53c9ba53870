"""Sessions, live states, capacity and sums as the API shows them: what Tether derives from events.

An addition to the reference. Powers are in kW, energies in kWh, durations and ages in seconds,
states of charge in percent. Unknown values are left out.
"""

from decimal import Decimal
from enum import StrEnum

import msgspec

from tether.domain.models import Event


class SessionStatus(StrEnum):
    """Whether the vehicle is still plugged in. A session is removed when a late event shows that it
    did not happen, or that it was part of another session.
    """

    ACTIVE = "active"
    ENDED = "ended"
    REMOVED = "removed"


class EnergySource(StrEnum):
    """The source of a charge period's energy; all but the first are estimates."""

    REPORTED = "reported"
    """The `chargedEnergy` of the event that ended the period."""
    METER = "meter"
    """The `chargedEnergy` of the newest update: the energy is at least so much."""
    POWER = "power"
    """Power over time: straight lines between readings. The first and the last reading hold."""
    STATE_OF_CHARGE = "stateOfCharge"
    """The gain of the state of charge, times the vehicle's capacity."""


class Flag(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """Something odd about a session: its name, and a sentence that explains it."""

    name: str
    message: str


class ChargePeriod(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False
):
    """A charge period of a session. Without `stopped_at` it is still active."""

    started_at: str
    stopped_at: str | None = None
    charged_energy: Decimal | None = None
    charged_time: Decimal
    energy_source: EnergySource | None = None


class Session(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False
):
    """A session of a vehicle at a charger, from plug-in to unplug.

    `charged_energy` is the sum over the periods whose energy is known. `estimated` tells that not
    all of it was reported, `periods_without_energy` is the number of other periods. An active
    session counts up to its newest event, at `last_event_at`. `version` counts the changes of the
    session, and `updated_at` is the time of the last change.
    """

    id: str
    vehicle_id: str
    charger_id: str
    status: SessionStatus
    connected_at: str
    disconnected_at: str | None = None
    plugged_time: Decimal | None = None
    charged_time: Decimal
    charged_energy: Decimal | None = None
    estimated: bool
    periods_without_energy: int = 0
    state_of_charge_start: Decimal | None = None
    state_of_charge_end: Decimal | None = None
    average_power: Decimal | None = None
    maximum_power: Decimal | None = None
    periods: tuple[ChargePeriod, ...]
    flags: tuple[Flag, ...]
    version: int
    updated_at: str
    last_event_at: str | None = None


class VehicleState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """The state of a vehicle at the moment `as_of`, with the age of each value at that moment."""

    vehicle_id: str
    plugged_in: bool
    charger_id: str | None = None
    plugged_in_since: str | None = None
    session_id: str | None = None
    charging: bool
    charging_since: str | None = None
    state_of_charge: Decimal | None = None
    state_of_charge_at: str | None = None
    state_of_charge_age: Decimal | None = None
    charge_power: Decimal | None = None
    charge_power_at: str | None = None
    charge_power_age: Decimal | None = None
    last_event: Event | None = None
    last_event_age: Decimal | None = None
    as_of: str


class ChargerState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """The state of a charger at the moment `as_of`, with the plugged-in vehicles.

    `charge_power` is the sum of the vehicles' known powers. At most the 100 vehicles that were
    plugged in last count; `more_vehicles` tells that there are others.
    """

    charger_id: str
    occupied: bool
    charging: bool
    charge_power: Decimal | None = None
    vehicles: tuple[VehicleState, ...]
    more_vehicles: bool = False
    last_event: Event | None = None
    last_event_age: Decimal | None = None
    as_of: str


class UnknownCapacity(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"
):
    """The number of plugged-in vehicles of a `Capacity` that lack a value: the state of charge, the
    power of a charge under way, a charge power that both the vehicle and the charger support, or
    such a discharge power. `stale` vehicles are left out, as their newest event is older than the
    request allows. At `power_above_charger` chargers the powers of the vehicles add up to more than
    the charger supports.
    """

    state_of_charge: int
    charge_power: int
    common_charge_power: int
    common_discharge_power: int
    stale: int
    power_above_charger: int


class Capacity(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """The power and energy that plugged-in vehicles take, give and store at the moment `as_of`, and
    how much more is possible: at all chargers of the request, at the charger `charger_id`, or at
    the chargers in the box `area`.

    Powers in kW, energies in kWh. `charge_power` is the sum of what vehicles take, and
    `discharge_power` the sum of what other vehicles give; they are never set off against each
    other. `charge_power_available` and `discharge_power_available` are possible in addition.
    """

    as_of: str
    charger_id: str | None = None
    area: str | None = None
    chargers_occupied: int
    vehicles_plugged_in: int
    vehicles_charging: int
    charge_power: Decimal
    charge_power_available: Decimal
    discharge_power: Decimal
    discharge_power_available: Decimal
    energy_stored: Decimal
    energy_room: Decimal
    unknown: UnknownCapacity


class SessionSummary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """The sums of sessions: of all sessions of the request, of a group, or of a bucket of time from
    `from_` to before `to`.

    `sessions`, `vehicles` and `chargers` count the sessions that began in the bucket. All other
    values are divided over the time. `utilisation` is the plugged time as a fraction of the time of
    all chargers of the request together.
    """

    from_: str | None = msgspec.field(name="from", default=None)
    to: str | None = None
    charger_id: str | None = None
    vehicle_id: str | None = None
    flag: str | None = None
    area: str | None = None
    sessions: int
    vehicles: int
    chargers: int
    plugged_time: Decimal
    charged_time: Decimal
    charged_energy: Decimal
    estimated_energy: Decimal
    periods_without_energy: int
    average_power: Decimal | None = None
    maximum_power: Decimal | None = None
    utilisation: Decimal | None = None


class EnergyStep(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """The energy that was charged from `from_` to before `to`: in total, or by a group.

    `estimated_energy` is the part of `charged_energy` that was not reported. `spread_energy` is the
    part from charges without power readings: it is spread evenly over their time.
    """

    from_: str = msgspec.field(name="from")
    to: str
    charger_id: str | None = None
    area: str | None = None
    charged_energy: Decimal
    estimated_energy: Decimal
    spread_energy: Decimal
    average_power: Decimal | None = None
