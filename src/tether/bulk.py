"""Many events in one body: reads NDJSON or a JSON array into events and refusals, item by item.

An addition to the reference. Nothing here stores anything, so that a body which is refused as a
whole has done nothing.
"""

from typing import Any, TypeAlias

from tether.documents import decode_document, decode_value
from tether.errors import Invalid, Malformed, TooLarge
from tether.model import Event
from tether.reports import usual_event
from tether.rules import new_event

MAX_EVENTS = 10_000
MAX_BYTES = 8 * 1024 * 1024

Unread: TypeAlias = Any  # a line of NDJSON, or a value of an array
Item: TypeAlias = Event | Malformed | Invalid


def items_of(body: bytes) -> list[Unread]:
    """The items of the body in their order, for `read_item`.

    A body that begins with `[` is a JSON array, any other NDJSON: one event a line, empty lines do
    not count. Raises Malformed if an array is not JSON, TooLarge if there are too many items.
    """
    return _array(body) if body.lstrip(b" \t\r\n").startswith(b"[") else _lines(body)


def _array(body: bytes) -> list[Unread]:
    items: list[Unread] = decode_value(body)
    return _limited(items)


def _lines(body: bytes) -> list[Unread]:
    return _limited([line for line in body.split(b"\n") if line.strip(b" \t\r")])


def _limited(items: list[Unread]) -> list[Unread]:
    if len(items) > MAX_EVENTS:
        raise TooLarge(MAX_EVENTS, "events")
    if not items:
        raise Malformed("The body has no events: NDJSON or a JSON array is expected.")
    return items


def read_item(item: Unread, now_ms: int) -> Item:
    """What an item is: an event, or why it is none."""
    if isinstance(item, bytes) and (event := usual_event(item, now_ms)) is not None:
        return event
    try:
        document = decode_document(item) if isinstance(item, bytes) else item
        if not isinstance(document, dict):
            return Malformed("An event must be a JSON object.")
        return new_event(document, now_ms)
    except (Invalid, Malformed) as error:
        return error
