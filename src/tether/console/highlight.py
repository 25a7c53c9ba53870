"""What of a request is to blame: where the member stands in its path or body."""

import json
import re
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

Span: TypeAlias = tuple[int, int]

MOST_ITEMS = 10_000
_IN_BODY = r'"{}"\s*:\s*(?:"(?:[^"\\]|\\.)*"|[^,}}\]\s]+)?'
_IN_PATH = r"(?<=[?&]){}=[^&]*"
_LINE = re.compile(r"[^\n]*[^\s][^\n]*")
_BETWEEN = re.compile(r"[\s,]*")
_DECODER = json.JSONDecoder()


class Part(NamedTuple):
    """A part of a text; `is_marked` if it is to blame."""

    text: str
    is_marked: bool


def in_path(path: str, member: str | None) -> list[Part]:
    """The path and its query, in which the parameter is marked."""
    return _parts(path, _spans(path, _IN_PATH, member))


def in_body(body: str, member: str | None) -> list[Part]:
    """The body, in which the member is marked with its value, wherever it stands."""
    return _parts(body, _spans(body, _IN_BODY, member))


def in_bulk(body: str, refused: Iterable[tuple[int, str | None]]) -> list[Part]:
    """The body of many items. Of those with these numbers, from 1, the member is marked, or else
    the item; those behind the beginning that is kept are not there.
    """
    items: list[Span] = _items(body)
    marks: list[Span] = []
    for number, member in refused:
        if 0 < number <= len(items):
            begin, end = items[number - 1]
            found = _spans(body[begin:end], _IN_BODY, member)
            marks += [(begin + at, begin + to) for at, to in found] or [(begin, end)]
    return _parts(body, marks)


def _items(body: str) -> list[Span]:
    """Where each item stands: the lines of NDJSON, or the values of an array."""
    start = len(body) - len(body.lstrip())
    if not body.startswith("[", start):
        return [match.span() for match in _LINE.finditer(body)][:MOST_ITEMS]
    found: list[Span] = []
    at = start + 1
    while len(found) < MOST_ITEMS:
        between = _BETWEEN.match(body, at)
        at = between.end() if between else at
        if at >= len(body) or body[at] == "]":
            break
        try:
            _, end = _DECODER.raw_decode(body, at)
        except (ValueError, RecursionError):  # cut off, or no JSON
            break
        found.append((at, end))
        at = end
    return found


def _spans(text: str, pattern: str, member: str | None) -> list[Span]:
    if member is None:
        return []
    return [match.span() for match in re.finditer(pattern.format(re.escape(member)), text)]


def _parts(text: str, marks: Iterable[Span]) -> list[Part]:
    parts, end = [], 0
    for begin, to in sorted(marks):
        if begin >= end:
            parts += [Part(text[end:begin], False), Part(text[begin:to], True)]
            end = to
    return [part for part in [*parts, Part(text[end:], False)] if part.text]
