"""Validation: makes chargers, vehicles and events from the members that a partner sent.

The rules and their order come from the schema tables and constraint lists of the reference.
"Constraint N" below is its number there. Chargers and vehicles have the same numbers; only chargers
have constraint 7.
"""

from collections.abc import Callable, Iterable, Mapping
from decimal import Context, Decimal, Rounded
from functools import partial
from typing import Any, NamedTuple, TypeVar

from tether.domain.errors import Invalid, Missing, Unknown
from tether.domain.models import (
    ENTITY_ID,
    ENTITY_ID_RULE,
    Charger,
    Entity,
    Event,
    EventType,
    Vehicle,
)
from tether.domain.timestamps import fault_in, format_instant, parse_instant

INSTANT_RULE = "It must be an RFC 3339 date-time with a zone, such as 2023-05-11T22:06:40.738Z."
MAX_ITEMS = 10_000  # of a bulk request
MAX_BYTES = 8 * 1024 * 1024  # of a bulk request
MAX_ITEM_BYTES = 64 * 1024
MAX_DIGITS = 15
MAX_EXPONENT = 9  # every number is below 10 to this power
MIN_EXPONENT = -324  # the smallest exponent of a double
MAX_POWERS = 100
MAX_NAME_LENGTH = 100  # characters of an unknown name that are compared and shown
EARLIEST_MS = parse_instant("2000-01-01T00:00:00Z")
MAX_AHEAD_MS = 24 * 60 * 60 * 1000
MAX_LIKELY_POWER = Decimal(5_000)  # kW, for charging and discharging: no vehicle has more

_FEWER_DIGITS = Context(prec=MAX_DIGITS, traps=[Rounded])

Document = Mapping[str, Any]
Changes = dict[str, Any]
E = TypeVar("E", Charger, Vehicle)


class Member(NamedTuple):
    """A member of a body: its field in the model and the check that gives the field's value."""

    field: str
    check: Callable[[str, Any], Any]


# Checks of single values ------------------------------------------------------------------------


def _quotes_hint(value: Any) -> str:
    """The end of a message about a value that is not a number."""
    return ", without quotes" if isinstance(value, str) else ""


def check_number(
    name: str,
    value: Any,
    *,
    above: Decimal | None = None,
    low: Decimal | None = None,
    high: Decimal | None = None,
    unit: str = "",
) -> Decimal:
    """The number. Raises Invalid unless it is within these bounds and those of all numbers."""
    if not isinstance(value, Decimal):
        raise Invalid(name, f"It must be a number{unit}{_quotes_hint(value)}.")
    # abs() and comparisons would overflow at 1e1000000, so the exponent is compared.
    exponent = value.adjusted()
    if exponent >= MAX_EXPONENT:
        raise Invalid(name, f"It must be a number whose absolute value is below 1e{MAX_EXPONENT}.")
    if exponent < MIN_EXPONENT:
        raise Invalid(name, f"It must be 0 or at least 1e{MIN_EXPONENT} away from it.")
    try:
        _FEWER_DIGITS.plus(value)
    except Rounded:
        raise Invalid(
            name, f"It must be a number of at most {MAX_DIGITS} significant digits."
        ) from None
    if above is not None and value <= above:
        raise Invalid(name, f"It must be a number above {above}{unit}.")
    if (low is not None and value < low) or (high is not None and value > high):
        bounds = f"from {low} to {high}" if high is not None else f"not below {low}"
        raise Invalid(name, f"It must be a number {bounds}{unit}.")
    return value


# Decimals are compared with Decimals in half the time.
_0 = Decimal(0)
_power = partial(check_number, above=_0, unit=" (kW)")
_capacity = partial(check_number, above=_0, unit=" (kWh)")
_latitude = partial(check_number, low=Decimal(-90), high=Decimal(90), unit=" (degrees)")
_longitude = partial(check_number, low=Decimal(-180), high=Decimal(180), unit=" (degrees)")
_state_of_charge = partial(check_number, low=_0, high=Decimal(100), unit=" (%)")
_signed_power = partial(check_number, unit=" (kW)")
_signed_energy = partial(check_number, unit=" (kWh)")
check_duration = partial(check_number, low=_0, unit=" (seconds)")


def _powers(name: str, value: Any) -> tuple[Decimal, ...]:
    if not isinstance(value, list):
        raise Invalid(name, f"It must be an array of numbers above 0 (kW){_quotes_hint(value)}.")
    if len(value) > MAX_POWERS:
        raise Invalid(name, f"It must have at most {MAX_POWERS} values.")
    return tuple(_power(name, power) for power in value)


def check_entity_id(name: str, value: Any) -> str:
    """The id of a charger or vehicle."""
    if isinstance(value, Decimal):
        raise Invalid(name, 'It must be text in quotes, such as "C1408".')
    if not isinstance(value, str) or ENTITY_ID.fullmatch(value) is None:
        raise Invalid(name, ENTITY_ID_RULE)
    return value


_EVENT_TYPES = {kind.value: kind for kind in EventType}


def _event_type(name: str, value: Any) -> EventType:
    kind = _EVENT_TYPES.get(value) if isinstance(value, str) else None
    if kind is None:
        raise Invalid(name, f"It must be one of {', '.join(EventType)}.")
    return kind


def check_instant(name: str, value: Any) -> int:
    """Milliseconds since 1970 of a parameter that must be an RFC 3339 date-time with a zone."""
    try:
        at_ms = parse_instant(value)
    except (TypeError, ValueError):
        fault = fault_in(value)
        raise Invalid(name, f"{INSTANT_RULE} {fault}" if fault else INSTANT_RULE) from None
    if at_ms < EARLIEST_MS:
        raise Invalid(name, "It must not be before the year 2000.")
    return at_ms


# Members ----------------------------------------------------------------------------------------

_POWER_MEMBERS = {
    "chargePowers": Member("charge_powers", _powers),
    "chargePowerMin": Member("charge_power_min", _power),
    "chargePowerMax": Member("charge_power_max", _power),
    "dischargePowers": Member("discharge_powers", _powers),
    "dischargePowerMin": Member("discharge_power_min", _power),
    "dischargePowerMax": Member("discharge_power_max", _power),
}
ENTITY_MEMBERS: dict[type[Entity], dict[str, Member]] = {
    Charger: {
        **_POWER_MEMBERS,
        "latitude": Member("latitude", _latitude),
        "longitude": Member("longitude", _longitude),
    },
    Vehicle: {"chargeCapacity": Member("charge_capacity", _capacity), **_POWER_MEMBERS},
}
_EVENT_MEMBERS = {
    "type": Member("type", _event_type),
    "chargerId": Member("charger_id", check_entity_id),
    "vehicleId": Member("vehicle_id", check_entity_id),
    "stateOfCharge": Member("state_of_charge", _state_of_charge),
    "chargePower": Member("charge_power", _signed_power),
    "chargedEnergy": Member("charged_energy", _signed_energy),
    "chargedTime": Member("charged_time", check_duration),
    "timestamp": Member("timestamp", check_instant),
}
# The reference has a table of members for each type. A type does not have the other members.
_EVENT_MEMBERS_NOT_OF = {
    EventType.VEHICLE_CONNECTED: {"chargePower", "chargedEnergy", "chargedTime"},
    EventType.VEHICLE_DISCONNECTED: {"chargePower", "chargedEnergy", "chargedTime"},
    EventType.VEHICLE_CHARGE_STARTED: {"chargedEnergy", "chargedTime"},
    EventType.VEHICLE_CHARGE_STOPPED: {"chargePower"},
    EventType.VEHICLE_CHARGE_UPDATED: set[str](),
}
_MEMBERS_OF_TYPE = {
    kind: {name: m for name, m in _EVENT_MEMBERS.items() if name not in excluded}
    for kind, excluded in _EVENT_MEMBERS_NOT_OF.items()
}
_REQUIRED_OF_TYPE = {kind: ["chargerId", "vehicleId"] for kind in EventType}
_REQUIRED_OF_TYPE[EventType.VEHICLE_CHARGE_UPDATED] = ["chargerId", "vehicleId", "stateOfCharge"]
# The examples of the reference use these names. Its tables use the other names.
_ALIASES = {
    "minChargePower": "chargePowerMin",
    "maxChargePower": "chargePowerMax",
    "minDischargePower": "dischargePowerMin",
    "maxDischargePower": "dischargePowerMax",
    "chargeTime": "chargedTime",
}


def checked_members(
    document: Document, members: Mapping[str, Member], owner: str, *, null_removes: bool = False
) -> dict[str, Any]:
    """The checked values of a document by model field; None if a null removes the value."""
    values = {}
    for sent, value in document.items():
        name = sent
        member = members.get(sent)
        if member is None:
            name = _ALIASES.get(sent, sent)
            member = members.get(name)
        if member is None:
            raise Unknown(_escaped(sent), f"It is not a member of a {owner}{_hint(sent, members)}.")
        if name is not sent and name in document:
            raise Invalid(sent, f"It is another name of {name}: only one of them may be given.")
        values[member.field] = None if null_removes and value is None else member.check(sent, value)
    return values


def _hint(sent: str, members: Mapping[str, Member]) -> str:
    """The end of the message about an unknown name: which name was probably meant."""
    spelled = sent[:MAX_NAME_LENGTH].replace("_", "").replace("-", "").casefold()
    for name in (*members, *_ALIASES):
        if spelled == name.casefold():
            return f": write {name}"
    if sent in _EVENT_MEMBERS and members.keys() < _EVENT_MEMBERS.keys():
        owners = [kind for kind, names in _EVENT_MEMBERS_NOT_OF.items() if sent not in names]
        return f": {' and '.join(owners)} have it" if owners[1:] else f": {owners[0]} has it"
    return ""


def _escaped(name: str) -> str:
    """An unknown member name, made safe and short enough for a message."""
    return name.encode("unicode_escape").decode()[:MAX_NAME_LENGTH]


def _required(
    values: Mapping[str, Any], members: Mapping[str, Member], names: Iterable[str]
) -> None:
    for name in names:
        if values.get(members[name].field) is None:
            raise Missing(name)


# Chargers and vehicles --------------------------------------------------------------------------


def new_entity(kind: type[E], entity_id: str, document: Document) -> E:
    """The charger or vehicle that a PUT of this document to this id creates.

    Raises Invalid. Reference: Charger and Vehicle Schema (PUT), Constraints (PUT).
    """
    values = checked_members(_without_id(document, entity_id), ENTITY_MEMBERS[kind], _name_of(kind))
    return _checked_entity(kind, entity_id, values)


def identified_entity(kind: type[E], document: Document) -> E:
    """The charger or vehicle of a document that has its id. Raises Invalid."""
    if "id" not in document:
        raise Missing("id")
    entity_id = check_entity_id("id", document["id"])
    return new_entity(kind, entity_id, document)


def changes_of(kind: type[E], entity_id: str, document: Document) -> Changes:
    """The checked members of a PATCH of this id. None and () remove a member.

    Raises Invalid. Reference: Charger and Vehicle Schema (PATCH).
    """
    document = _without_id(document, entity_id)
    return checked_members(document, ENTITY_MEMBERS[kind], _name_of(kind), null_removes=True)


def patched_entity(entity: E, changes: Changes) -> E:
    """The entity with these changes. Other members stay. The result must obey all rules.

    Raises Invalid. Reference: Charger and Vehicle Constraints (PATCH).
    """
    kind = type(entity)
    fields = (member.field for member in ENTITY_MEMBERS[kind].values())
    values = {field: getattr(entity, field) for field in fields} | changes
    try:
        return _checked_entity(kind, entity.id, values)
    except _Clash as clash:
        raise Invalid(clash.parameter, _stored_conflict(clash.use, changes) or clash.hint) from None


class _Clash(Invalid):
    """Discrete powers and a range of powers are both given."""

    def __init__(self, use: str) -> None:
        ends = f"{use}PowerMin and {use}PowerMax"
        super().__init__(f"{use}Powers", f"It cannot be given together with {ends}.")
        self.use = use


def _stored_conflict(use: str, changes: Changes) -> str | None:
    """The message if one kind of powers was sent and the other kind is stored."""
    if f"{use}_powers" not in changes:
        return "It is stored: send null to remove it."
    if f"{use}_power_min" not in changes and f"{use}_power_max" not in changes:
        return f"{use}PowerMin and {use}PowerMax are stored: send null for both to remove them."
    return None


def _name_of(kind: type[Entity]) -> str:
    return kind.__name__.lower()


def _without_id(document: Document, entity_id: str) -> Document:
    if "id" not in document:
        return document
    if document["id"] != entity_id:
        raise Invalid("id", "It must be the id in the path, or be left out.")
    return {name: value for name, value in document.items() if name != "id"}


def _checked_entity(kind: type[E], entity_id: str, values: dict[str, Any]) -> E:
    if kind is Vehicle:
        _required(values, ENTITY_MEMBERS[Vehicle], ["chargeCapacity"])
    _check_powers(values, "charge")
    _check_powers(values, "discharge")
    if not (values.get("charge_powers") or values.get("charge_power_min")):  # constraint 3
        raise Invalid(
            "chargePowers", "Either it or chargePowerMin and chargePowerMax must be given."
        )
    _check_pair(values, ("latitude", "latitude"), ("longitude", "longitude"))  # constraint 7
    # Constraint 1: an empty array counts as not given, so it is not stored.
    given = {field: value for field, value in values.items() if value not in (None, ())}
    return kind(id=entity_id, **given)


def _check_powers(values: Mapping[str, Any], use: str) -> None:
    """Constraints 2 and 4 for charging, 5 and 6 for discharging."""
    low = (f"{use}PowerMin", f"{use}_power_min")
    high = (f"{use}PowerMax", f"{use}_power_max")
    _check_pair(values, low, high)
    minimum, maximum = values.get(low[1]), values.get(high[1])
    if minimum is None or maximum is None:
        return
    if values.get(f"{use}_powers"):
        raise _Clash(use)
    if minimum > maximum:
        raise Invalid(low[0], f"It must not be above {high[0]}.")


def _check_pair(values: Mapping[str, Any], one: tuple[str, str], two: tuple[str, str]) -> None:
    for (name, field), (other_name, other_field) in ((one, two), (two, one)):
        if values.get(field) is None and values.get(other_field) is not None:
            raise Invalid(name, f"It must be given together with {other_name}.")


# Events -----------------------------------------------------------------------------------------


def new_event(document: Document, now_ms: int) -> Event:
    """The event of this document; without a timestamp if the document has none.

    `now_ms` is the server's time: a timestamp may be at most 24 hours ahead of it.
    Raises Invalid. Reference: Event Schema (POST) and the schema of each type.
    """
    if "type" not in document:
        raise Missing("type")
    kind = _event_type("type", document["type"])
    values = checked_members(document, _MEMBERS_OF_TYPE[kind], kind)
    _required(values, _EVENT_MEMBERS, _REQUIRED_OF_TYPE[kind])
    at_ms = values.get("timestamp")
    if at_ms is not None:
        if at_ms > now_ms + MAX_AHEAD_MS:
            raise Invalid("timestamp", "It must not be more than 24 hours in the future.")
        values["timestamp"] = format_instant(at_ms)
    return Event(**values)


def has_unlikely_power(event: Event) -> bool:
    """Whether the power is probably in another unit."""
    return event.charge_power is not None and abs(event.charge_power) > MAX_LIKELY_POWER
