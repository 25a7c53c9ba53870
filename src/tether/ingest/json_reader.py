"""Reads a request body into a dictionary: RFC 8259, strictly, plus one trailing comma.

The reference's own examples end objects with a comma, so that much is accepted; everything which
parsers disagree about (duplicate names, NaN, lone surrogates) is refused, so that what we store is
what the sender meant. The standard library's parser is used because it shows duplicate names and
the digits of a number as they were written; the faster ones hide both.
"""

import json
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from tether.domain.errors import Malformed

_BLANKS = " \t\n\r"
# What we read has at most 200 numbers in two arrays. A mebibyte of values would take half a second
# and a hundred times its size, so what has more than that cannot be is refused before it is read.
MOST_MARKS = 2_000
_MARKS = b',"'


def decode_document(body: bytes | bytearray) -> dict[str, Any]:
    """The JSON object in the body: numbers as exact Decimals, strings, lists, booleans, None.

    Raises Malformed with a sentence that says where the body is not what it should be.
    """
    value = decode_value(body)
    if not isinstance(value, dict):
        raise Malformed(f"The body must be a JSON object{instead(value)}.")
    return value


def instead(value: Any) -> str:
    """What to say of a value that is no object in a message."""
    if isinstance(value, str):
        return ", without quotes around it"
    return ", not an array" if isinstance(value, list) else ""


def marks_in(body: bytes | bytearray) -> int:
    """How many commas and quotation marks there are: more than there are values."""
    return len(body) - len(body.translate(None, _MARKS))


def decode_value(body: bytes | bytearray) -> Any:
    """The JSON value in the body, by the same rules as `decode_document`."""
    if marks_in(body) > MOST_MARKS:
        raise Malformed(f"The body has more than {MOST_MARKS:,} commas and quotation marks.")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"The body is not valid UTF-8 (byte {error.start}).") from None
    if not text.strip(_BLANKS):
        raise Malformed("The body is empty: a JSON object is expected.")
    try:
        value = _decode(text)
        if "\\u" in text:
            _refuse_lone_surrogates(value)
    except RecursionError:
        raise Malformed("The body is nested too deeply.") from None
    except InvalidOperation:  # of Decimal
        raise Malformed("The body has a number which is out of range.") from None
    return value


def _decode(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        repaired = _without_trailing_commas(text)
        if len(repaired) == len(text):
            raise _malformed(error) from None
    try:
        return _DECODER.decode(repaired)
    except json.JSONDecodeError as error:
        raise _malformed(error) from None


def _without_trailing_commas(text: str) -> str:
    """The text without each comma between a value and a closing bracket."""
    pieces = text.split('"')
    in_string = False
    for place, piece in enumerate(pieces):
        if in_string:
            backslashes = len(piece) - len(piece.rstrip("\\"))
            in_string = backslashes % 2 == 1  # then the quotation mark belongs to the string
        else:
            if "," in piece:
                pieces[place] = _between_strings(piece, follows_string=place > 0)
            in_string = True
    return '"'.join(pieces)


def _between_strings(piece: str, *, follows_string: bool) -> str:
    first, *others = piece.split(",")
    kept, before, has_value = [first], first, follows_string
    for part in others:
        shown = before.rstrip(_BLANKS)
        has_value = shown[-1] not in "[{" if shown else has_value
        closes = part.lstrip(_BLANKS)[:1]
        kept.append(part if has_value and closes and closes in "}]" else f",{part}")
        before, has_value = part, False
    return "".join(kept)


_REASONS = {
    "Extra data": "something follows its end",
    "Expecting value": "a value is expected",
    "Expecting property name enclosed in double quotes": "a name in double quotes is expected",
}


def _malformed(error: json.JSONDecodeError) -> Malformed:
    if error.doc.startswith("\ufeff"):  # nobody sees it, so say it
        return Malformed("The body is not valid JSON: it begins with a byte order mark.")
    if not error.doc.strip(_BLANKS).startswith(("{", "[", '"')):
        return Malformed("The body is not valid JSON: it does not begin with {.")
    reason = _REASONS.get(error.msg, error.msg)
    return Malformed(
        f"The body is not valid JSON: {reason} (line {error.lineno}, column {error.colno})."
    )


def _refuse_lone_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        raise Malformed("The body has a lone surrogate (an incomplete \\u escape).") from None


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(members)
    if len(document) != len(members):
        seen: set[str] = set()
        for name, _ in members:
            if name in seen:
                shown = name.encode("unicode_escape").decode()[:100]
                raise Malformed(f"The body names {{{shown}}} twice.")
            seen.add(name)
    return document


def _constant(name: str) -> NoReturn:
    raise Malformed(f"The body is not valid JSON: {name} is not a number.")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=Decimal, parse_int=Decimal, parse_constant=_constant
)
