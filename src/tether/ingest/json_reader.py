"""Reads a request body: JSON by RFC 8259, strictly, plus one trailing comma; gzip.

The examples of the reference end objects with a comma, so it is accepted. Everything that parsers
read in different ways (duplicate names, NaN, lone surrogates) is refused, so that we store what the
sender meant. The standard library's parser is used because it shows duplicate names and the digits
of numbers. Faster parsers hide both.
"""

import json
import zlib
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from tether.domain.errors import Malformed, TooLarge
from tether.storage.turns import Steps

_BLANKS = " \t\n\r"
# Valid bodies have at most 200 numbers in two arrays. A mebibyte of values would take half a second
# and a hundred times its size in memory, so larger bodies are refused before they are parsed.
MAX_MARKS = 2_000
_MARKS = b',"'


def decode_document(body: bytes | bytearray) -> dict[str, Any]:
    """The JSON object in the body: numbers as exact Decimals, strings, lists, booleans, None.

    Raises Malformed with a sentence that says what is wrong and where.
    """
    value = decode_value(body)
    if not isinstance(value, dict):
        raise Malformed(f"The body must be a JSON object{object_hint(value)}.")
    return value


def object_hint(value: Any) -> str:
    """The end of a message about a value that is not an object."""
    if isinstance(value, str):
        return ", without quotes around it"
    return ", not an array" if isinstance(value, list) else ""


def marks_in(body: bytes | bytearray) -> int:
    """The number of commas and quotation marks, which is above the number of values."""
    return len(body) - len(body.translate(None, _MARKS))


def decode_value(body: bytes | bytearray) -> Any:
    """The JSON value in the body, by the same rules as `decode_document`."""
    if marks_in(body) > MAX_MARKS:
        raise Malformed(f"The body has more than {MAX_MARKS:,} commas and quotation marks.")
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
        stripped = before.rstrip(_BLANKS)
        has_value = stripped[-1] not in "[{" if stripped else has_value
        closes = part.lstrip(_BLANKS)[:1]
        kept.append(part if has_value and closes and closes in "}]" else f",{part}")
        before, has_value = part, False
    return "".join(kept)


_REASONS = {  # by the first words of what Python's decoder says
    "Extra data": "something follows its end",
    "Expecting value": "a value is expected",
    "Expecting property name": "a name in double quotes is expected",
    "Expecting ',' delimiter": "a comma or a closing bracket is expected",
    "Expecting ':' delimiter": "a colon is expected",
    "Illegal trailing comma": "a value is expected after the comma",
    "Unterminated string": "a text has no closing quotation mark",
    "Invalid control character": "a text has a control character, such as a line break",
    "Invalid \\escape": "a text has a backslash that begins no escape of JSON",
    "Invalid \\uXXXX escape": "a text has a \\u without four hexadecimal digits",
}


def _malformed(error: json.JSONDecodeError) -> Malformed:
    if error.doc.startswith("\ufeff"):  # it is invisible
        return Malformed("The body is not valid JSON: it begins with a byte order mark.")
    if not error.doc.strip(_BLANKS).startswith(("{", "[", '"')):
        return Malformed("The body is not valid JSON: it does not begin with {.")
    reasons = (said for words, said in _REASONS.items() if error.msg.startswith(words))
    reason = next(reasons, error.msg)
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
                escaped = name.encode("unicode_escape").decode()[:100]
                raise Malformed(f"The body names {{{escaped}}} twice.")
            seen.add(name)
    return document


def _constant(name: str) -> NoReturn:
    raise Malformed(f"The body is not valid JSON: {name} is not a number.")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=Decimal, parse_int=Decimal, parse_constant=_constant
)


# gzip ---------------------------------------------------------------------------------------------

PIECE_BYTES = 64 * 1024
ZIPPED_BYTES = 16 * 1024
MAX_MEMBERS = 1_000  # each takes some microseconds, even if it is short
GZIP_BEGINS = b"\x1f"


def gunzip(body: bytes, limit: int) -> Steps[bytes]:
    """Uncompresses a body of one or several gzip members (RFC 1952, 2.2), in steps.

    Raises TooLarge if it is longer than `limit` bytes, and Malformed.
    """
    plain, rest, read, members = bytearray(), b"", 0, 0
    while rest or read < len(body) or not members:
        members += 1
        if members > 1 and (rest or body[read : read + 1])[:1] != GZIP_BEGINS:
            raise Malformed("The body is not valid gzip: something follows its end.")
        if members > MAX_MEMBERS:
            raise Malformed(f"The body is not valid gzip: it has more than {MAX_MEMBERS} members.")
        unzip = zlib.decompressobj(wbits=31)
        while not unzip.eof:
            # Input and output are in pieces, because zlib copies the unused rest of a piece.
            piece = rest or body[read : (read := read + ZIPPED_BYTES)]
            try:
                more = unzip.decompress(piece, PIECE_BYTES)
            except zlib.error as error:
                raise Malformed("The body is not valid gzip.") from error
            if not more and not piece:
                raise Malformed("The body is not valid gzip: it ends too early.")
            rest = unzip.unused_data if unzip.eof else unzip.unconsumed_tail
            plain += more
            if len(plain) > limit:
                raise TooLarge(limit)
            yield
    return bytes(plain)
