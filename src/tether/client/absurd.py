"""Numbers that no answer of this API has: to show or add up some of them takes all memory."""

from decimal import Decimal
from enum import Enum
from functools import cache
from typing import Any, get_type_hints

import msgspec

_MOST_DIGITS = 80  # sums of what events carry are exact to 60 digits
# Powers of ten. Events and vehicles may carry 4.9E-324, and some answers have products of two.
_LARGEST, _SMALLEST = 40, -700
_HARMLESS = (str, bool, Enum, type(None))


def has_absurd_number(found: Any) -> bool:
    """Whether any number in a decoded answer is none, or of an absurd size or length."""
    if isinstance(found, _HARMLESS):
        return False
    if isinstance(found, Decimal):
        return not (
            found.is_finite()
            and _SMALLEST < found.adjusted() < _LARGEST
            and len(str(found)) <= _MOST_DIGITS
        )
    if isinstance(found, int):
        return found.bit_length() > 64
    if isinstance(found, msgspec.Struct):
        return any(has_absurd_number(getattr(found, name)) for name in _to_look_at(type(found)))
    return any(map(has_absurd_number, found))  # a list, or a tuple


@cache
def _to_look_at(kind: type[msgspec.Struct]) -> list[str]:
    """The members which may have a number in them."""
    return [name for name, hint in get_type_hints(kind).items() if not _is_harmless(hint)]


def _is_harmless(hint: Any) -> bool:
    members = getattr(hint, "__args__", None) or (hint,)
    return all(isinstance(one, type) and issubclass(one, _HARMLESS) for one in members)
