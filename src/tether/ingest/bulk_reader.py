"""Reads a body with many items, as NDJSON or a JSON array (an addition to the reference).

Each item becomes an event, a charger, a vehicle or an event id, or a refusal. Nothing is stored
here, so a body that is refused as a whole has no effect. No step takes much longer than a
millisecond, even if the body is hostile.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypeVar

from tether.domain.errors import Invalid, Malformed, NotFound, Refusal, TooLarge
from tether.domain.models import Charger, Event, Vehicle, event_id_from_path
from tether.domain.validation import MAX_ITEM_BYTES, MAX_ITEMS, identified_entity, new_event
from tether.ingest.json_reader import decode_value, marks_in, object_hint
from tether.storage.turns import Steps

MAX_MARKS = 100  # commas and quotation marks of an event; it needs 40
MAX_DEPTH = 100
MAX_NESTED = 200  # brackets and strings in a nested value of an array

Raw: TypeAlias = bytes | Refusal  # a line of NDJSON, a value of an array, or a refusal
Item: TypeAlias = Event | Charger | Vehicle | str
E = TypeVar("E", Charger, Vehicle)


class Items(NamedTuple):
    """A kind of items: the name of a single one, and the function that reads one from its bytes.

    `read` raises Malformed if the bytes are not JSON.
    """

    singular: str
    read: Callable[[bytes], Item | Refusal]


_WINDOW = MAX_ITEM_BYTES + 1  # of bytes that one step searches
_SPACE = re.compile(rb"[ \t\r\n]*+")
_BREAK = re.compile(rb"\n[ \t\r\n]*+")
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_FLAT = re.compile(rb'\{[^{}\[\]"]*+(?:' + _STRING + rb'[^{}\[\]"]*+)*+\}', re.DOTALL)
_SCALAR = re.compile(_STRING + rb'|[^,\[\]{}" \t\r\n]++', re.DOTALL)
_BRACKET = re.compile(_STRING + rb'|[\[\]{}"]', re.DOTALL)


def read_items(body: bytes, items: Items) -> Steps[list[Item | Refusal]]:
    """The items of the body in their order, with a refusal for each invalid one.

    A body that begins with `[` is a JSON array. Any other body is NDJSON: each line has an item,
    and empty lines do not count. Raises Malformed if an array is not JSON or there are no items,
    and TooLarge if there are too many items or an item of an array is too long.
    """
    start = yield from _skip_space(body, 0)
    is_array = body.startswith(b"[", start)
    raw = yield from (_values(body, start + 1, items) if is_array else _lines(body, start, items))
    if not raw:
        raise Malformed(f"The body has no {items.singular}s: NDJSON or a JSON array is expected.")
    results: list[Item | Refusal] = []
    for item in raw:
        try:
            results.append(item if isinstance(item, Refusal) else items.read(item))
        except Malformed as error:
            if is_array:  # then the whole array is not JSON
                place = f"{items.singular.capitalize()} {len(results) + 1}"
                raise Malformed(f"{place} of the array: {error.message}") from None
            results.append(error.refusal())
        yield
    return results


def events_at(now_ms: int) -> Items:
    """Events as in `POST /events`; `now_ms` is the server's time."""

    def read(raw: bytes) -> Event | Refusal:
        if marks_in(raw) > MAX_MARKS:
            words = f"An event has at most {MAX_MARKS} commas and quotation marks."
            return Malformed(words).refusal()
        document = _object(raw, "An event")
        if isinstance(document, Refusal):
            return document
        try:
            return new_event(document, now_ms)
        except Invalid as error:
            return error.refusal()

    return Items("event", read)


def entities(kind: type[E]) -> Items:
    """Chargers or vehicles as in PUT, each with its id."""
    singular = kind.__name__.lower()

    def read(raw: bytes) -> E | Refusal:
        document = _object(raw, f"A {singular}")
        if isinstance(document, Refusal):
            return document
        try:
            return identified_entity(kind, document)
        except Invalid as error:
            return error.refusal()

    return Items(singular, read)


def event_ids() -> Items:
    """Ids of events, as JSON strings."""

    def read(raw: bytes) -> str | Refusal:
        text = decode_value(raw)
        if not isinstance(text, str):
            return Malformed("The id of an event must be a JSON string.").refusal()
        return event_id_from_path(text) or NotFound().refusal()

    return Items("event id", read)


def _object(raw: bytes, what: str) -> dict[str, Any] | Refusal:
    """The JSON object. Raises Malformed if it is not JSON."""
    document = decode_value(raw)
    if isinstance(document, dict):
        return document
    return Malformed(f"{what} must be a JSON object{object_hint(document)}.").refusal()


def _skip_space(body: bytes, at: int) -> Steps[int]:
    """The position after the blanks and empty lines that begin at `at`."""
    while (end := _end(_SPACE, body, at)) == at + _WINDOW:
        at = end
        yield
    return end


def _end(pattern: re.Pattern[bytes], body: bytes, at: int) -> int:
    """The end of the match that begins at `at`, within the window; `at` without a match."""
    match = pattern.match(body, at, at + _WINDOW)
    return match.end() if match else at


def _check_count(count: int, items: Items) -> None:
    if count > MAX_ITEMS:
        raise TooLarge(MAX_ITEMS, f"{items.singular}s")


def _too_long(items: Items) -> TooLarge:
    return TooLarge(MAX_ITEM_BYTES, what=_with_article(items))


def _with_article(items: Items) -> str:
    return f"an {items.singular}" if items.singular.startswith("event") else f"a {items.singular}"


# NDJSON ------------------------------------------------------------------------------------------


def _lines(body: bytes, at: int, items: Items) -> Steps[list[Raw]]:
    """The lines that are not empty, with a refusal for each line that is too long."""
    lines: list[Raw] = []
    while (at := (yield from _skip_space(body, at))) < len(body):
        end = body.rfind(b"\n", at, at + _WINDOW)
        if end < 0:
            end = body.find(b"\n", at) if len(body) > at + MAX_ITEM_BYTES else len(body)
            end = len(body) if end < 0 else end
        if end - at > MAX_ITEM_BYTES:
            more: list[Raw] = [_too_long(items).refusal()]
        else:
            more = [*filter(None, _BREAK.split(body[at:end]))]
        _check_count(len(lines) + len(more), items)
        lines += more
        at = end
        yield
    return lines


# A JSON array ------------------------------------------------------------------------------------


def _values(body: bytes, at: int, items: Items) -> Steps[list[Raw]]:
    """The values of the array; `at` is behind its opening bracket. The values may be invalid.

    Raises Malformed if they are not separated as in JSON; a comma after the last one is accepted.
    """
    values: list[Raw] = []
    at = yield from _skip_space(body, at)
    while not body.startswith(b"]", at):
        end = yield from _end_of_value(body, at, items)
        _check_count(len(values) + 1, items)
        values.append(body[at:end])
        at = yield from _skip_space(body, end)
        if body.startswith(b",", at):
            at = yield from _skip_space(body, at + 1)
        elif not body.startswith(b"]", at):
            raise _malformed_array(at, "a comma or the end of the array is expected")
    at = yield from _skip_space(body, at + 1)
    if at < len(body):
        raise _malformed_array(at, "something follows the array")
    return values


def _end_of_value(body: bytes, at: int, items: Items) -> Steps[int]:
    for usual in (_FLAT, _SCALAR):
        if (end := _end(usual, body, at)) > at:
            break
    else:
        end = _end_of_nested(body, at, items)
    if end - at > MAX_ITEM_BYTES:
        raise _too_long(items)
    yield
    return end


def _end_of_nested(body: bytes, at: int, items: Items) -> int:
    """The end of a nested value, such as a charger with powers, or an invalid item."""
    depth = 0
    for count, bracket in enumerate(_BRACKET.finditer(body, at, at + _WINDOW)):
        token = bracket[0]
        if count > MAX_NESTED:
            raise _malformed_array(
                at, f"{_with_article(items)} has no more than {MAX_NESTED} brackets and strings"
            )
        if depth == 0 and bracket.start() > at:
            break
        if token in b"[{":
            depth += 1
        elif token in b"]}":
            depth -= 1
        elif token == b'"':
            break
        if depth > MAX_DEPTH:
            raise Malformed("The body is nested too deeply.")
        if depth <= 0:
            return bracket.end()
    if len(body) > at + _WINDOW:
        raise _too_long(items)
    raise _malformed_array(at, f"{_with_article(items)} is expected")


def _malformed_array(at: int, reason: str) -> Malformed:
    return Malformed(f"The body is not valid JSON: {reason} (byte {at}).")
