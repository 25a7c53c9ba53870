"""What Tether derives from events, as its API shows it: sessions and live states.

An addition to the reference. Powers are in kW, energies in kWh, durations and ages in seconds,
states of charge in percent; a value that is not known is left out.
"""

from decimal import Decimal
from enum import StrEnum

import msgspec

from tether.domain.models import Event


class SessionStatus(StrEnum):
    """Whether the vehicle is still plugged in. A session is removed when a late event showed that
    there was none, or that it was part of another.
    """

    ACTIVE = "active"
    ENDED = "ended"
    REMOVED = "removed"


class EnergySource(StrEnum):
    """Where the energy of a charge period comes from; all but the first are estimates."""

    REPORTED = "reported"
    """The `chargedEnergy` of the event that ended the period."""
    METER = "meter"
    """The `chargedEnergy` of the newest update: at least so much."""
    POWER = "power"
    """Power over time: straight lines between the readings, the first and the last one held."""
    STATE_OF_CHARGE = "stateOfCharge"
    """What the state of charge gained, of the vehicle's capacity."""


class Flag(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """Something odd about a session: its name, and a sentence that says what it means."""

    name: str
    message: str


class ChargePeriod(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False
):
    """One charge period of a session. Without `stopped_at` it goes on."""

    started_at: str
    stopped_at: str | None = None
    charged_energy: Decimal | None = None
    charged_time: Decimal
    energy_source: EnergySource | None = None


class Session(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False
):
    """One stay of one vehicle at one charger, from plug-in to unplug.

    `charged_energy` is the sum over the periods of which it is known; `estimated` says that not all
    of it was reported, `periods_without_energy` of how many nothing is known. What goes on is
    counted up to the newest event of the session, at `last_event_at`. `version` counts the changes
    of the session and `updated_at` is the time of the last one.
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
    """What is known of a vehicle at the moment `as_of`; the ages say how old each value is then."""

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
    """What is known of a charger at the moment `as_of`, with the vehicles that are plugged in.

    `charge_power` is the sum of the vehicles' known ones. If there are `more_vehicles` than the 100
    that were plugged in last, the others count in nothing here.
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
    """How many plugged-in vehicles the figures of a `Capacity` lack something of, by what is not
    known: how full they are, what they take or give while a charge runs, a charge power that both
    the vehicle and the charger support, a discharge power. `stale` are left out, as they were not
    heard of for longer than was asked for. At `power_above_charger` chargers the powers of the
    vehicles together are higher than the charger supports.
    """

    state_of_charge: int
    charge_power: int
    common_charge_power: int
    common_discharge_power: int
    stale: int
    power_above_charger: int


class Capacity(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What the plugged-in vehicles take, give and store at the moment `as_of`, and how much more
    they could; of all chargers that were asked for, or of the one that `charger_id` names, or of
    those in the box `area`.

    Powers in kW, energies in kWh. `charge_power` is what vehicles take and `discharge_power` what
    others give, never set off against each other; `charge_power_available` could be taken and
    `discharge_power_available` given beside that.
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
    """What sessions have together: all that were asked for, or those of a group, or what they have
    within a part of time, from `from_` to before `to`.

    `sessions`, `vehicles` and `chargers` are those that began then. All else is divided among the
    times in which it was. `utilisation` is the plugged time as a part of the time that there was,
    of all chargers that were asked for together.
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
    """What was charged from `from_` to before `to`: by all that was asked for, or by a group.

    Of `charged_energy` `estimated_energy` was not reported, and `spread_energy` is of charges of
    which no readings tell how they went: it is spread evenly over their time.
    """

    from_: str = msgspec.field(name="from")
    to: str
    charger_id: str | None = None
    area: str | None = None
    charged_energy: Decimal
    estimated_energy: Decimal
    spread_energy: Decimal
    average_power: Decimal | None = None
