"""Many items in one body: reads NDJSON or a JSON array into events or the like, or refusals.

An addition to the reference. Nothing here stores anything, so that a body which is refused as a
whole has done nothing. However hostile it is, none of the steps takes much longer than a
millisecond.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypeVar

from tether.domain.errors import Invalid, Malformed, NotFound, Refusal, TooLarge
from tether.domain.models import Charger, Event, Vehicle, event_id_from_path
from tether.domain.validation import MAX_ITEM_BYTES, MAX_ITEMS, identified_entity, new_event
from tether.ingest.json_reader import decode_value, instead, marks_in
from tether.storage.turns import Steps

MAX_MARKS = 100  # commas and quotation marks of an event, which needs 40
MAX_DEPTH = 100
MAX_NESTED = 200  # brackets and strings of a value of an array that has others in it

Raw: TypeAlias = bytes | Refusal  # a line of NDJSON or a value of an array; or why it is not read
Item: TypeAlias = Event | Charger | Vehicle | str
E = TypeVar("E", Charger, Vehicle)


class Items(NamedTuple):
    """What a body holds: `one` of them in words, and what makes one of its bytes.

    `read` raises Malformed for what is not JSON.
    """

    one: str
    read: Callable[[bytes], Item | Refusal]


_WINDOW = MAX_ITEM_BYTES + 1  # no step looks at more, however long a line or a run of blanks is
_SPACE = re.compile(rb"[ \t\r\n]*+")
_BREAK = re.compile(rb"\n[ \t\r\n]*+")
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_FLAT = re.compile(rb'\{[^{}\[\]"]*+(?:' + _STRING + rb'[^{}\[\]"]*+)*+\}', re.DOTALL)
_SCALAR = re.compile(_STRING + rb'|[^,\[\]{}" \t\r\n]++', re.DOTALL)
_BRACKET = re.compile(_STRING + rb'|[\[\]{}"]', re.DOTALL)


def read_items(body: bytes, items: Items) -> Steps[list[Item | Refusal]]:
    """What the body holds, in its order, and for each item that is none, why.

    A body that begins with `[` is a JSON array, any other NDJSON: an item a line, empty lines do
    not count. Raises Malformed if an array is not JSON or there are no items, TooLarge if there are
    too many, or one of an array is too long.
    """
    start = yield from _behind_space(body, 0)
    is_array = body.startswith(b"[", start)
    raw = yield from (_values(body, start + 1, items) if is_array else _lines(body, start, items))
    if not raw:
        raise Malformed(f"The body has no {items.one}s: NDJSON or a JSON array is expected.")
    found: list[Item | Refusal] = []
    for one in raw:
        try:
            found.append(one if isinstance(one, Refusal) else items.read(one))
        except Malformed as error:
            if is_array:  # then all of it is no JSON
                place = f"{items.one.capitalize()} {len(found) + 1}"
                raise Malformed(f"{place} of the array: {error.message}") from None
            found.append(error.refusal())
        yield
    return found


def events_at(now_ms: int) -> Items:
    """Events as `POST /events` takes them; `now_ms` is the server's time."""

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
    """Chargers or vehicles as PUT takes them, each with its id."""
    one = kind.__name__.lower()

    def read(raw: bytes) -> E | Refusal:
        document = _object(raw, f"A {one}")
        if isinstance(document, Refusal):
            return document
        try:
            return identified_entity(kind, document)
        except Invalid as error:
            return error.refusal()

    return Items(one, read)


def event_ids() -> Items:
    """Ids of events, as JSON strings."""

    def read(raw: bytes) -> str | Refusal:
        text = decode_value(raw)
        if not isinstance(text, str):
            return Malformed("The id of an event must be a JSON string.").refusal()
        return event_id_from_path(text) or NotFound().refusal()

    return Items("event id", read)


def _object(raw: bytes, what: str) -> dict[str, Any] | Refusal:
    """Raises Malformed if it is not JSON."""
    document = decode_value(raw)
    if isinstance(document, dict):
        return document
    return Malformed(f"{what} must be a JSON object{instead(document)}.").refusal()


def _behind_space(body: bytes, at: int) -> Steps[int]:
    """Where the blanks and empty lines that begin there end."""
    while (end := _end(_SPACE, body, at)) == at + _WINDOW:
        at = end
        yield
    return end


def _end(pattern: re.Pattern[bytes], body: bytes, at: int) -> int:
    """Where a match that begins there ends, within the window; `at` if there is none."""
    match = pattern.match(body, at, at + _WINDOW)
    return match.end() if match else at


def _check_count(count: int, items: Items) -> None:
    if count > MAX_ITEMS:
        raise TooLarge(MAX_ITEMS, f"{items.one}s")


def _too_long(items: Items) -> TooLarge:
    return TooLarge(MAX_ITEM_BYTES, what=_an(items))


def _an(items: Items) -> str:
    return f"an {items.one}" if items.one.startswith("event") else f"a {items.one}"


# NDJSON ------------------------------------------------------------------------------------------


def _lines(body: bytes, at: int, items: Items) -> Steps[list[Raw]]:
    """The lines that are not empty. One that is too long is refused, and the others are not."""
    lines: list[Raw] = []
    while (at := (yield from _behind_space(body, at))) < len(body):
        end = body.rfind(b"\n", at, at + _WINDOW)
        if end < 0:
            end = body.find(b"\n", at) if len(body) > at + MAX_ITEM_BYTES else len(body)
            end = len(body) if end < 0 else end
        if end - at > MAX_ITEM_BYTES:
            found: list[Raw] = [_too_long(items).refusal()]
        else:
            found = [*filter(None, _BREAK.split(body[at:end]))]
        _check_count(len(lines) + len(found), items)
        lines += found
        at = end
        yield
    return lines


# A JSON array ------------------------------------------------------------------------------------


def _values(body: bytes, at: int, items: Items) -> Steps[list[Raw]]:
    """The values of the array whose first one may begin there. They need not be valid themselves.

    Raises Malformed if they are not separated as in JSON, but for one comma after the last.
    """
    values: list[Raw] = []
    at = yield from _behind_space(body, at)
    while not body.startswith(b"]", at):
        end = yield from _end_of_value(body, at, items)
        _check_count(len(values) + 1, items)
        values.append(body[at:end])
        at = yield from _behind_space(body, end)
        if body.startswith(b",", at):
            at = yield from _behind_space(body, at + 1)
        elif not body.startswith(b"]", at):
            raise _no_array(at, "a comma or the end of the array is expected")
    at = yield from _behind_space(body, at + 1)
    if at < len(body):
        raise _no_array(at, "something follows the array")
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
    """Where a value ends that has others in it: a charger's powers, or no item at all."""
    depth = 0
    for count, bracket in enumerate(_BRACKET.finditer(body, at, at + _WINDOW)):
        token = bracket[0]
        if count > MAX_NESTED:
            raise _no_array(at, f"{_an(items)} has no more than {MAX_NESTED} brackets and strings")
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
    raise _no_array(at, f"{_an(items)} is expected")


def _no_array(at: int, reason: str) -> Malformed:
    return Malformed(f"The body is not valid JSON: {reason} (byte {at}).")
