"""The short way from the body of `POST /events` to an event, for bodies that need no second look.

Whatever is unusual (an alias, an escape, a trailing comma, another form of the timestamp) or not
valid is not decided here: then there is no event, and the long way, that of documents.py and
rules.py, decides and finds the words. So all that matters is that this way takes nothing which that
one refuses or takes for something else; a test holds them against each other.

It costs less than half of the long way, as the parser is in C and knows the members. What this
parser does not tell, duplicate names and numbers sent as strings, shows in the number of quotation
marks: where nothing is escaped there are two for each name and two for each string.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from tether.domain.errors import Invalid
from tether.domain.identifiers import is_entity_id
from tether.domain.models import Event, EventType
from tether.domain.timestamps import canonical_instant
from tether.domain.validation import EARLIEST_MS, MAX_AHEAD_MS, members_of, required_of

_Number = Decimal | UnsetType


class _Report(msgspec.Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    type: EventType
    charger_id: str
    vehicle_id: str
    timestamp: str
    state_of_charge: _Number = UNSET
    charge_power: _Number = UNSET
    charged_energy: _Number = UNSET
    charged_time: _Number = UNSET


_decode = msgspec.json.Decoder(_Report).decode
_STRINGS = 4  # and they are required, the numbers are not
_NUMBERS_OF = {
    kind: [
        (field, name, members_of(kind).get(name), name in required_of(kind))
        for field, name in list(
            zip(_Report.__struct_fields__, _Report.__struct_encode_fields__, strict=True)
        )[_STRINGS:]
    ]
    for kind in EventType
}


def usual_event(body: bytes, now_ms: int) -> Event | None:
    """The event that the body reports, if body and event are of the usual kind and valid.

    `now_ms` is the server's time: a timestamp may be at most 24 hours ahead of it.
    """
    if b"\\" in body:
        return None
    try:
        report = _decode(body)
        numbers = _numbers(report)
    except (msgspec.MsgspecError, UnicodeDecodeError, Invalid):
        return None
    if not (
        body.count(b'"') == 2 * (2 * _STRINGS + len(numbers))
        and (all(numbers.values()) or _has_no_negative_zero(body, report, numbers.values()))
        and is_entity_id(report.charger_id)
        and is_entity_id(report.vehicle_id)
        and _is_usual_instant(report.timestamp, now_ms)
    ):
        return None
    return Event(
        type=report.type,
        charger_id=report.charger_id,
        vehicle_id=report.vehicle_id,
        timestamp=report.timestamp,
        **numbers,
    )


def _numbers(report: _Report) -> dict[str, Any]:
    """The checked numbers by field. Raises Invalid for what this type of event must (not) have."""
    numbers = {}
    for field, name, member, is_required in _NUMBERS_OF[report.type]:
        value = getattr(report, field)
        if value is not UNSET:
            if member is None:
                raise Invalid(name, "")
            numbers[field] = member.check(name, value)
        elif is_required:
            raise Invalid(name, "")
    return numbers


def _has_no_negative_zero(body: bytes, report: _Report, numbers: Iterable[Decimal]) -> bool:
    """The parser takes -0 for 0, but what was sent is what comes back; so hyphens are counted."""
    signs = sum(number.is_signed() for number in numbers)
    text = report.charger_id + report.vehicle_id + report.timestamp
    return body.count(b"-") == signs + text.count("-")


def _is_usual_instant(text: str, now_ms: int) -> bool:
    at_ms = canonical_instant(text)
    return at_ms is not None and EARLIEST_MS <= at_ms <= now_ms + MAX_AHEAD_MS
