"""Warnings of the server: a valid number that is probably in another unit."""

import re
from collections.abc import Callable, Iterable
from typing import TypeAlias
from warnings import warn

import msgspec

from tether.client.exchange import DECODE_ERRORS, Answer
from tether.client.models import Doubt

_ITEM = re.compile(r' *([a-z*][\w!#$%&\'*+.^`|~:/-]*)[^",]*?; *parameter="([^"\\]*)"')


class UnitWarning(UserWarning):
    """A number was stored as it was sent, but seems to be meant in another unit."""


class _Item(msgspec.Struct):
    warnings: tuple[Doubt, ...] = ()


WarningHandler: TypeAlias = Callable[[Iterable[Doubt]], None]
"""Gets the warnings of an answer."""


def warnings_in(answer: Answer) -> tuple[Doubt, ...]:
    """The warnings in an answer about one thing; an item of a bulk answer has them in its body."""
    if field := answer.headers.get("tether-warning"):
        return tuple(Doubt(code, parameter) for code, parameter in _ITEM.findall(field))
    if b'"warnings"' not in answer.body:
        return ()
    try:
        return msgspec.json.decode(answer.body, type=_Item).warnings
    except DECODE_ERRORS:
        return ()


def warn_user(doubts: Iterable[Doubt]) -> None:
    """Gives them to Python's `warnings`, which shows each one once by default."""
    for doubt in doubts:
        warn(warning_text(doubt), UnitWarning, stacklevel=2)


def warning_text(doubt: Doubt) -> str:
    """The warning as a sentence."""
    name = doubt.parameter or "A number"
    unit = "kWh" if name in ("chargeCapacity", "chargedEnergy") else "kW"
    return f"{name} was stored as it was sent, but it is far too high for {unit}: check the unit."
