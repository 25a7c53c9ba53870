"""Chargers, vehicles and events. Members and units follow the reference's schemas.

Powers are in kW, energies in kWh, durations in seconds, states of charge in percent, coordinates in
degrees. Numbers are Decimals and keep their digits: what was sent as 22.0 is answered as 22.0.
"""

import re
from collections.abc import Callable
from datetime import datetime
from decimal import ROUND_FLOOR, Context, Decimal
from enum import StrEnum
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes
from uuid import UUID

import msgspec

from tether.domain.errors import NotFound
from tether.domain.timestamps import format_instant, moment_of, parse_instant

EXACT = Context(prec=60)
"""Sums and products of the numbers in events are exact in this context."""


class EventType(StrEnum):
    """The five types of events of a vehicle at a charger."""

    VEHICLE_CONNECTED = "VEHICLE_CONNECTED"
    VEHICLE_DISCONNECTED = "VEHICLE_DISCONNECTED"
    VEHICLE_CHARGE_STARTED = "VEHICLE_CHARGE_STARTED"
    VEHICLE_CHARGE_STOPPED = "VEHICLE_CHARGE_STOPPED"
    VEHICLE_CHARGE_UPDATED = "VEHICLE_CHARGE_UPDATED"

    __hash__ = str.__hash__  # faster than the hash of enumerations: it is used for each event


class Charger(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A charger: the powers it supports, either discrete or as a range, and its position.

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
    """An event of a vehicle at a charger.

    Reference: Event Schema (GET). The server makes the `id`. `timestamp` has the reference's form;
    it is None only if the server is to set the time.
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
        return moment_of(self.at_ms)

    def stamped(self, at_ms: int) -> "Event":
        """The same event with this instant (milliseconds since 1970)."""
        return msgspec.structs.replace(self, timestamp=format_instant(at_ms))

    def identified(self, event_id: str) -> "Event":
        """The same event with this id."""
        return msgspec.structs.replace(self, id=event_id)


class WithdrawalReason(StrEnum):
    """Why the server withdrew an event."""

    EXPIRED = "expired"
    ERASED = "erased"


class Withdrawal(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False
):
    """The withdrawal of an event (an addition to the reference).

    `withdrawn_at` is the time of the withdrawal. `reason` is there if the server withdrew the event
    by itself; without a reason the partner withdrew a mistake. All other members are the event's:
    `id` is the id of the event, `timestamp` is when it happened.
    """

    id: str
    type: EventType
    charger_id: str
    vehicle_id: str
    timestamp: str
    withdrawn_at: str
    reason: WithdrawalReason | None = None


ERASED = "erased"
"""Replaces the id of an erased charger or vehicle, in all that followers get."""

Entity = Charger | Vehicle

T = TypeVar("T", Charger, Vehicle, Event, Withdrawal)

to_json: Callable[[object], bytes] = msgspec.json.Encoder(decimal_format="number").encode
"""The JSON of a charger, vehicle, event or other object; Decimals become numbers."""


def from_json(kind: type[T], body: bytes | str) -> T:
    """The charger, vehicle, event or withdrawal that `to_json` has encoded."""
    decode: Callable[[bytes | str], T] = _DECODE[kind]
    return decode(body)


_DECODE: dict[type, Callable[[bytes | str], Any]] = {
    kind: msgspec.json.Decoder(kind).decode for kind in (Charger, Vehicle, Event, Withdrawal)
}


# Identifiers --------------------------------------------------------------------------------------

ENTITY_ID_RULE = (
    "It must be 1 to 128 characters of A-Z a-z 0-9 . _ ~ * + @ : - and neither . nor .. alone."
)
ENTITY_ID = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._~*+@:-]{1,128}")
_LONGEST_IN_PATH = 3 * 128  # each character as %xx


def is_entity_id(text: str) -> bool:
    """Whether the text is a valid id of a charger or a vehicle."""
    return ENTITY_ID.fullmatch(text) is not None


_ESCAPED = re.compile(r"\\\\|(?:%|\\u00)[2-7][0-9A-Fa-f]")
_PLAIN = {
    form.format(code): chr(code)
    for code in range(128)
    if is_entity_id(f"a{chr(code)}")
    for form in ("%{:02x}", "\\u{:04x}")
}


def with_plain_ids(text: str) -> str:
    """The text with the characters of ids as they are: not as `%3A`, nor as `\\u003a` of JSON."""
    if "%" not in text and "\\u00" not in text:
        return text
    return _ESCAPED.sub(lambda found: _PLAIN.get(found[0].lower(), found[0]), text)


def entity_id_from_path(segment: str) -> str | None:
    """The id in one segment of the raw, percent-encoded path; None if it is not a valid id.

    It is decoded exactly once: `%2541` is not `A`, and `a%2Fb` never becomes two segments.
    """
    if "%" in segment and len(segment) <= _LONGEST_IN_PATH:
        segment = unquote_to_bytes(segment).decode("latin-1")
    return segment if is_entity_id(segment) else None


def event_id_from_path(segment: str) -> str | None:
    """The id of an event in its canonical form; None if it is not a valid id."""
    if len(segment) != 36:
        return None
    try:
        return str(UUID(segment))
    except ValueError:
        return None


def uuid_to_read(segment: str) -> str:
    """The canonical id of an event, a session or a webhook. Raises NotFound if it is not valid."""
    found = event_id_from_path(segment)
    if found is None:
        raise NotFound
    return found


# Areas --------------------------------------------------------------------------------------------

AREA_SIDE = Decimal("0.1")  # degrees


def area_of(charger: Charger) -> str | None:
    """The area of the charger: a box `west,south,east,north` in degrees, as `bbox` takes it.

    None without a position. A charger on an edge belongs to the box east or north of it.
    """
    if charger.longitude is None or charger.latitude is None:
        return None
    west = charger.longitude.quantize(AREA_SIDE, ROUND_FLOOR) + 0  # not -0.0
    south = charger.latitude.quantize(AREA_SIDE, ROUND_FLOOR) + 0
    return f"{west},{south},{west + AREA_SIDE},{south + AREA_SIDE}"
