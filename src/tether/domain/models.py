"""What a charger, a vehicle and an event are. Members and units follow the reference's schemas.

Powers are in kW, energies in kWh, durations in seconds, states of charge in percent, coordinates in
degrees. Numbers are Decimals and keep their digits: what was sent as 22.0 is answered as 22.0.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from tether.domain.timestamps import format_instant, parse_instant


class EventType(StrEnum):
    """The five things that can be reported of a vehicle at a charger."""

    VEHICLE_CONNECTED = "VEHICLE_CONNECTED"
    VEHICLE_DISCONNECTED = "VEHICLE_DISCONNECTED"
    VEHICLE_CHARGE_STARTED = "VEHICLE_CHARGE_STARTED"
    VEHICLE_CHARGE_STOPPED = "VEHICLE_CHARGE_STOPPED"
    VEHICLE_CHARGE_UPDATED = "VEHICLE_CHARGE_UPDATED"

    __hash__ = str.__hash__  # that of enumerations is in Python, and this is looked up per event


class Charger(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A charger: the powers it supports, either discrete or as a range, and where it stands.

    Reference: Charger Schema (GET). Powers in kW, coordinates in degrees.
    """

    id: str
    charge_powers: tuple[Decimal, ...] = ()
    charge_power_min: Decimal | None = None
    charge_power_max: Decimal | None = None
    discharge_powers: tuple[Decimal, ...] = ()
    discharge_power_min: Decimal | None = None
    discharge_power_max: Decimal | None = None
    latitude: Decimal | None = None
    longitude: Decimal | None = None


class Vehicle(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A vehicle: how much energy its battery stores and the powers it supports.

    Reference: Vehicle Schema (GET). Capacity in kWh, powers in kW.
    """

    id: str
    charge_capacity: Decimal
    charge_powers: tuple[Decimal, ...] = ()
    charge_power_min: Decimal | None = None
    charge_power_max: Decimal | None = None
    discharge_powers: tuple[Decimal, ...] = ()
    discharge_power_min: Decimal | None = None
    discharge_power_max: Decimal | None = None


class Event(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False
):
    """Something that happened to a vehicle at a charger.

    Reference: Event Schema (GET). `id` is the server's; `timestamp` has the reference's form, and
    is None only in an event that asks the server for its time.
    """

    id: str | None = None
    type: EventType
    charger_id: str
    vehicle_id: str
    state_of_charge: Decimal | None = None
    charge_power: Decimal | None = None
    charged_energy: Decimal | None = None
    charged_time: Decimal | None = None
    timestamp: str | None = None

    @property
    def at_ms(self) -> int:
        """The instant in milliseconds since 1970; the event must have a timestamp."""
        assert self.timestamp is not None
        return parse_instant(self.timestamp)

    @property
    def time(self) -> datetime:
        """The instant as a datetime in UTC; the event must have a timestamp."""
        return datetime.fromtimestamp(self.at_ms / 1000, UTC)

    def stamped(self, at_ms: int) -> "Event":
        """The same event with this instant (milliseconds since 1970)."""
        return msgspec.structs.replace(self, timestamp=format_instant(at_ms))

    def identified(self, event_id: str) -> "Event":
        """The same event with the id that the server gave it."""
        return msgspec.structs.replace(self, id=event_id)


Entity = Charger | Vehicle

T = TypeVar("T", Charger, Vehicle, Event)

_encoder = msgspec.json.Encoder(decimal_format="number")


def to_json(value: object) -> bytes:
    """The JSON of a charger, vehicle, event or anything built of them; Decimals become numbers."""
    return _encoder.encode(value)


def from_json(kind: type[T], body: bytes | str) -> T:
    """The charger, vehicle or event of a JSON that `to_json` made."""
    decode: Callable[[bytes | str], T] = _DECODE[kind]
    return decode(body)


_DECODE: dict[type, Callable[[bytes | str], Any]] = {
    kind: msgspec.json.Decoder(kind).decode for kind in (Charger, Vehicle, Event)
}
