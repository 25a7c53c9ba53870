"""Many events in one body: reads NDJSON or a JSON array into events and refusals, item by item.

An addition to the reference. Nothing here stores anything, so that a body which is refused as a
whole has done nothing.
"""

from typing import Any

from tether.documents import decode_document, decode_value
from tether.errors import Invalid, Malformed, TooLarge
from tether.model import Event
from tether.rules import new_event

MAX_EVENTS = 10_000
MAX_BYTES = 8 * 1024 * 1024

Item = Event | Malformed | Invalid


def read_events(body: bytes, now_ms: int) -> list[Item]:
    """What each item of the body is, in their order: an event, or why it is none.

    A body that begins with `[` is a JSON array, any other NDJSON: one event a line, empty lines do
    not count. Raises Malformed if an array is not JSON, TooLarge if there are too many items.
    """
    items = _array(body) if body.lstrip(b" \t\r\n").startswith(b"[") else _lines(body)
    return [_event(item, now_ms) for item in items]


def _array(body: bytes) -> list[Any]:
    items: list[Any] = decode_value(body)
    return _limited(items)


def _lines(body: bytes) -> list[bytes]:
    return _limited([line for line in body.split(b"\n") if line.strip(b" \t\r")])


def _limited(items: list[Any]) -> list[Any]:
    if len(items) > MAX_EVENTS:
        raise TooLarge(MAX_EVENTS, "events")
    if not items:
        raise Malformed("The body has no events: NDJSON or a JSON array is expected.")
    return items


def _event(item: Any, now_ms: int) -> Item:
    try:
        document = decode_document(item) if isinstance(item, bytes) else item
        if not isinstance(document, dict):
            return Malformed("An event must be a JSON object.")
        return new_event(document, now_ms)
    except (Invalid, Malformed) as error:
        return error
