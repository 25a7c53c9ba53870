"""Reads a request body into a dictionary: RFC 8259, strictly, plus one trailing comma.

The reference's own examples end objects with a comma, so that much is accepted; everything which
parsers disagree about (duplicate names, NaN, lone surrogates) is refused, so that what we store is
what the sender meant. The standard library's parser is used because it shows duplicate names and
the digits of a number as they were written; the faster ones hide both.
"""

import json
import re
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from tether.errors import Malformed

# Strings are matched first so that a comma inside one is left alone; a comma that follows an
# opening bracket or another comma is matched so that it stays and is refused. A string without an
# end is matched too: else each quote in it would be tried as a beginning, in quadratic time.
_TRAILING_COMMA = re.compile(
    r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{,][ \t\n\r]*+,|,(?=[ \t\n\r]*+[}\]])', re.DOTALL
)


def decode_document(body: bytes | bytearray) -> dict[str, Any]:
    """The JSON object in the body: numbers as exact Decimals, strings, lists, booleans, None.

    Raises Malformed with a sentence that says where the body is not what it should be.
    """
    value = decode_value(body)
    if not isinstance(value, dict):
        raise Malformed("The body must be a JSON object.")
    return value


def decode_value(body: bytes | bytearray) -> Any:
    """The JSON value in the body, by the same rules as `decode_document`."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"The body is not valid UTF-8 (byte {error.start}).") from None
    if not text.strip(" \t\n\r"):
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
        repaired = _TRAILING_COMMA.sub(lambda m: "" if m[0] == "," else m[0], text)
        if len(repaired) == len(text):
            raise _malformed(error) from None
    try:
        return _DECODER.decode(repaired)
    except json.JSONDecodeError as error:
        raise _malformed(error) from None


def _malformed(error: json.JSONDecodeError) -> Malformed:
    if error.doc.startswith("\ufeff"):  # nobody sees it, so say it
        return Malformed("The body is not valid JSON: it begins with a byte order mark.")
    return Malformed(
        f"The body is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})."
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
