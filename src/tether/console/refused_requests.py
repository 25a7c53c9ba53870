"""Refused requests, and a sample of others: the list, and one request with its error marked."""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from shlex import quote
from typing import NamedTuple, TypeAlias

from falcon.asgi import Request

from tether.console.pages import Page, split_page
from tether.console.rendering import address, visible
from tether.console.request import choice, partner_of, position, problem_of, query_of, url_of
from tether.domain.errors import Invalid
from tether.domain.partners import retention_in_words
from tether.storage.refused_requests import RefusalFilter, RefusedRequest

PAGE = 50
END = 2**62, ""
MAX_TEXT_LENGTH = 200  # of a search; a request id has up to 128 characters
MAX_ITEMS = 10_000  # of a bulk, that can be marked
STATUSES = {
    "": (100, 599), "2xx": (200, 299), "3xx": (300, 399), "4xx": (400, 499), "5xx": (500, 599),
}  # fmt: skip
SHOW = ("refused", "all")
_POSITION = re.compile(r"([0-9]{1,15}) ([!-~]{1,128})")
_PARAMETER = re.compile(r'parameter="([A-Za-z]{1,50})"')
_IN_BODY = r'"{}"\s*:\s*(?:"(?:[^"\\]|\\.)*"|[^,}}\]\s]+)?'
_IN_PATH = r"(?<=[?&]){}=[^&]*"
_BETWEEN = re.compile(r"[\s,]*")
_DECODER = json.JSONDecoder()
Span: TypeAlias = tuple[int, int]


class RefusedItem(NamedTuple):
    """A refused item of a bulk. Numbers begin at 1."""

    number: int
    message: str
    member: str | None


class RequestsPage(Page):
    """`…/requests`: the newest first."""

    template = "refused-requests.html"

    async def values(self, req: Request) -> dict[str, object]:
        query, partner = query_of(req), partner_of(req)
        status, path, text = query.get("status", ""), query.get("path", ""), query.get("q", "")
        show = choice(query, "show", SHOW, "refused")
        before = position(query, "before", _POSITION) or END
        rows: list[RefusedRequest] = []
        last: RefusedRequest | None = None
        problem = ""
        try:
            wanted = RefusalFilter(_statuses(status), path, _text(text), sampled=show == "all")
            found = await self._store.refused_requests.page(
                partner.id, wanted, before, self._now_ms(), PAGE + 1
            )
            rows, last = split_page(found, PAGE)
        except Invalid as error:
            problem = problem_of(error)
        parameters: dict[str, object] = {"show": show, "status": status, "path": path, "q": text}
        kept_ms = await self._store.refused_requests.kept_ms(partner.id)
        following = {**parameters, "before": f"{last.at_ms} {last.id}"} if last else None
        return {
            "status": 400 if problem else 200,
            "problem": problem,
            "requests": [(request, _message(request)) for request in rows],
            "chosen": status,
            "starts": path,
            "text": text,
            "is_first": before == END and not problem,
            "again": address(partner, "requests", query=parameters),
            "next_page": following and address(partner, "requests", query=following),
            "show": show,
            "kept_for": f"for {retention_in_words(kept_ms)}" if kept_ms else "for ever",
            "kept": self._store.refused_requests.kept,
        }


class RequestPage(Page):
    """`…/requests/one?id=…`: one request, with the cause of its error marked."""

    template = "refused-request.html"

    async def values(self, req: Request) -> dict[str, object]:
        request_id = query_of(req).get("id", "")
        found = await self._store.refused_requests.get(partner_of(req).id, request_id)
        named, items = _PARAMETER.search(found.error), _items(found)
        member = named[1] if named else None
        body = marked_items(found.body, items) if items else _marked(found.body, _IN_BODY, member)
        return {
            "request": found,
            "message": _message(found),
            "member": member,
            "items": items,
            "kept": self._store.refused_requests.kept,
            "target": _marked(found.path, _IN_PATH, member),
            "body": body,
            "curl": _curl(found, url_of(req)),
        }


def _message(request: RefusedRequest) -> str:
    """The message in the answer."""
    try:
        answer = json.loads(request.answer)
    except ValueError:
        return request.answer
    return str(answer.get("message", "")) if isinstance(answer, dict) else request.answer


def _items(request: RefusedRequest) -> list[RefusedItem]:
    """The refused items of a bulk, from its answer."""
    if request.status >= 400 or not request.is_refused:
        return []
    try:
        found = json.loads(request.answer)["items"]
        return [
            RefusedItem(int(item["item"]), item["message"], item["parameter"]) for item in found
        ]
    except (ValueError, KeyError, TypeError):  # it was cut
        return []


def _curl(request: RefusedRequest, url: str) -> str:
    """A curl command that sends the request again, to be pasted into a shell."""
    # These options stop curl from interpreting braces, dots and a leading @.
    words = ["curl", "--globoff", "--path-as-is", "-X", quote(request.method)]
    words.append(quote(url + request.path))
    words.append('-H "x-api-key: $KEY"')
    if request.body:
        words += ["--data-raw", quote(request.body)]
    return visible(" ".join(words))  # no control characters for the terminal


def _text(text: str) -> str:
    if len(text) > MAX_TEXT_LENGTH:
        raise Invalid("q", f"It has at most {MAX_TEXT_LENGTH} characters.")
    return text


def _statuses(text: str) -> tuple[int, int]:
    if re.fullmatch(r"[1-5][0-9]{2}", text):
        return int(text), int(text)
    if text not in STATUSES:
        raise Invalid("status", "It must be 2xx, 3xx, 4xx, 5xx or one such as 409.")
    return STATUSES[text]


# Marking the cause of an error --------------------------------------------------------------------


class Part(NamedTuple):
    """A part of a text. `is_marked`: it caused the error."""

    text: str
    is_marked: bool


def _marked(text: str, pattern: str, member: str | None) -> list[Part]:
    """The path or body, with the member and its value marked wherever they occur."""
    return _parts(text, _spans(text, pattern, member))


def marked_items(body: str, refused: Iterable[RefusedItem]) -> list[Part]:
    """The body of many items, with the member of each refused item marked, or the whole item.

    The stored body may be cut, and lack the last items.
    """
    spans = _item_spans(body)
    marks: list[Span] = []
    for item in refused:
        if 0 < item.number <= len(spans):
            begin, end = spans[item.number - 1]
            found = _spans(body[begin:end], _IN_BODY, item.member)
            marks += [(begin + at, begin + to) for at, to in found] or [(begin, end)]
    return _parts(body, marks)


def _item_spans(body: str) -> list[Span]:
    """The span of each item: a line of NDJSON, or a value of an array."""
    start = len(body) - len(body.lstrip())
    if not body.startswith("[", start):
        return list(islice(_line_spans(body), MAX_ITEMS))
    found: list[Span] = []
    at = start + 1
    while len(found) < MAX_ITEMS:
        between = _BETWEEN.match(body, at)
        at = between.end() if between else at
        if at >= len(body) or body[at] == "]":
            break
        try:
            _, end = _DECODER.raw_decode(body, at)
        except (ValueError, RecursionError):  # cut, or no JSON
            break
        found.append((at, end))
        at = end
    return found


def _line_spans(body: str) -> Iterator[Span]:
    """The span of each line that is not blank."""
    at = 0
    for line in body.split("\n"):
        if line.strip():
            yield at, at + len(line)
        at += len(line) + 1


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
