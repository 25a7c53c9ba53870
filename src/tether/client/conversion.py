"""Converts what users give into what the API takes: exact numbers, instants, ids, parameters."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from numbers import Integral, Real
from typing import Any, TypeVar

import msgspec

from tether.client.errors import invalid
from tether.domain.models import (
    ENTITY_ID_RULE,
    Charger,
    Event,
    EventType,
    Vehicle,
    is_entity_id,
    to_json,
)
from tether.domain.timestamps import format_instant, ms_of, parse_instant

M = TypeVar("M", bound=Charger | Vehicle | Event)

_MUST_BE_TEXT = 'It must be text, such as "C1408".'
_MAX_DIGITS = 15  # which the API accepts, and which a float holds exactly


def exact(model: M) -> M:
    """The charger, vehicle or event, with all values converted to the types of the model.

    Raises Invalid for a wrong value, TypeError for another object.
    """
    fields = _FIELDS.get(type(model))
    if fields is None:
        raise TypeError(f"A Charger, Vehicle or Event is expected, not {type(model).__name__}.")
    changes = {}
    for field, name, convert in fields:
        value = getattr(model, field)
        if value is not None:
            converted = convert(name, value)
            if converted is not value:
                changes[field] = converted
    return msgspec.structs.replace(model, **changes) if changes else model


def sendable(event: Event) -> Event:
    """The event with exact values and without the id of a stored event. Raises Invalid."""
    event = exact(event)
    return event if event.id is None else msgspec.structs.replace(event, id=None)


def patch_of(kind: type[Charger] | type[Vehicle], changes: Mapping[str, Any]) -> bytes:
    """The body of a PATCH with these changes by field name. Raises Invalid, TypeError."""
    known = {field: (name, convert) for field, name, convert in _FIELDS[kind] if field != "id"}
    if unknown := changes.keys() - known.keys():
        raise TypeError(f"A {kind.__name__} has no {', '.join(sorted(unknown))}.")
    body = {}
    for field, value in changes.items():
        name, convert = known[field]
        body[name] = None if value is None else convert(name, value)
    return to_json(body)


def instant_text(name: str, value: object) -> str:
    """An instant, given as a datetime or as RFC 3339 text, in the API's form. Raises Invalid."""
    if isinstance(value, datetime) and value.utcoffset() is None:
        raise invalid(name, "A datetime must have a time zone.")
    try:
        if isinstance(value, datetime):
            return format_instant(ms_of(value))
        return format_instant(parse_instant(value))  # type: ignore[arg-type]  # else TypeError
    except (TypeError, ValueError, OverflowError):  # the last day of 9999 may be later in UTC
        raise invalid(
            name, "It must be a datetime or RFC 3339 text, such as 2023-05-11T22:06:40.738Z."
        ) from None


def entity_id(name: str, value: object) -> str:
    """The id, if it is a valid one. Raises Invalid."""
    if not isinstance(value, str):
        raise invalid(name, _MUST_BE_TEXT)
    if not is_entity_id(value):
        raise invalid(name, ENTITY_ID_RULE)
    return value


def query_of(members: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a request for these members. Raises Invalid."""
    query: dict[str, Any] = {}
    for member, value in members.items():
        if member == "stale_allowed":
            query["stale"] = "allowed" if value else None
        elif value is not None:
            name = api_name(member)
            query[name] = _PARAMETERS.get(member, _unchanged)(name, value)
    return query


def api_name(name: str) -> str:
    """The API's name of a member: `chargerId` for `charger_id`, `from` for `from_`."""
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def _number(name: str, value: object) -> Decimal:
    number = _decimal(value)
    if number is None:
        raise invalid(name, "It must be a number: an int, float, Decimal or the text of one.")
    if not number.is_finite():  # data frames have NaN where a value is missing
        raise invalid(name, "It must be a finite number, or None if it is unknown.")
    return number


def _decimal(value: object) -> Decimal | None:
    if isinstance(value, Decimal):
        return value
    if isinstance(value, float):
        # 0.1 + 0.2 has 17 digits. The last two are noise, and the API would refuse them.
        number = Decimal(float.__repr__(value))  # not repr(), as NumPy's is "np.float64(0.3)"
        return number if len(number.as_tuple().digits) <= _MAX_DIGITS else Decimal(f"{value:.15g}")
    if isinstance(value, Integral) and not isinstance(value, bool):  # NumPy's integers, too
        return Decimal(int(value))
    if isinstance(value, str | Real):  # such as NumPy's float32
        try:
            return Decimal(str(value))
        except InvalidOperation:
            return None
    return None


def _numbers(name: str, value: Any) -> tuple[Decimal, ...]:
    if isinstance(value, str | bytes | Mapping):
        raise invalid(name, "It must be a list of numbers.")
    try:
        return tuple(_number(name, power) for power in value)
    except TypeError:
        raise invalid(name, "It must be a list of numbers.") from None


def _event_type(name: str, value: Any) -> EventType:
    try:
        return EventType(value)
    except ValueError:
        raise invalid(name, f"It must be one of {', '.join(EventType)}.") from None


def _ids(name: str, value: str | Iterable[str]) -> str | list[str]:
    # An empty list is sent as an empty id, which is refused: no id would mean all sessions.
    if isinstance(value, str):
        return value
    if not isinstance(value, Iterable):
        raise invalid(name, _MUST_BE_TEXT)
    return list(value) or ""


def _box(name: str, value: Any) -> str:
    return ",".join(f"{number:f}" for number in _numbers(name, value))


def _boolean(name: str, value: object) -> str:
    return str(bool(value)).lower()


def _unchanged(name: str, value: object) -> object:
    return value


Convert = Callable[[str, Any], Any]
_CONVERTERS: dict[str, Convert] = {
    "id": _unchanged,  # the server checks it
    "charger_id": entity_id,
    "vehicle_id": entity_id,
    "type": _event_type,
    "timestamp": instant_text,
    "charge_powers": _numbers,
    "discharge_powers": _numbers,
}


_FIELDS: dict[type, list[tuple[str, str, Convert]]] = {
    # For each field: its name, its name in JSON, and its converter.
    kind: [
        (field.name, field.encode_name, _CONVERTERS.get(field.name, _number))
        for field in msgspec.structs.fields(kind)
    ]
    for kind in (Charger, Vehicle, Event)
}
_INSTANTS = (
    "at", "from_", "to", "ended_from", "ended_to", "overlapping_from", "overlapping_to",
    "updated_from",
)  # fmt: skip
_PARAMETERS: dict[str, Convert] = {
    **dict.fromkeys(_INSTANTS, instant_text),
    "charger_id": _ids,
    "vehicle_id": _ids,
    "estimated": _boolean,
    "bbox": _box,
}
