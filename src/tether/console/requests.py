"""Requests that were refused, and some others: which, why, and what would have to differ."""

import json
import re
from shlex import quote
from typing import NamedTuple

from falcon.asgi import Request, Response

from tether.console import highlight
from tether.console.forms import choice, position, query_of
from tether.console.pages import Page
from tether.console.rendering import address, visible
from tether.console.start import url_of
from tether.console.users import partner_of
from tether.domain.errors import Invalid
from tether.domain.partners import retention_in_words
from tether.storage.refused_requests import RefusalFilter, RefusedRequest

PAGE = 50
END = 2**62, ""
LONGEST_TEXT = 200  # that is looked for: a request id has up to 128 characters
STATUSES = {
    "": (100, 599), "2xx": (200, 299), "3xx": (300, 399), "4xx": (400, 499), "5xx": (500, 599),
}  # fmt: skip
SHOWS = ("refused", "all")
_POSITION = re.compile(r"([0-9]{1,15}) ([!-~]{1,128})")
_PARAMETER = re.compile(r'parameter="([A-Za-z]{1,50})"')


class Item(NamedTuple):
    """An item of a bulk that was refused, its number from 1."""

    number: int
    message: str
    member: str | None


class RequestsPage(Page):
    """`…/requests`: the newest first."""

    async def on_get(self, req: Request, resp: Response) -> None:
        query, partner = query_of(req), partner_of(req)
        status, path, text = query.get("status", ""), query.get("path", ""), query.get("q", "")
        if len(text) > LONGEST_TEXT:
            raise Invalid("q", f"It has at most {LONGEST_TEXT} characters.")
        shows = choice(query, "show", SHOWS, "refused")
        wanted = RefusalFilter(_statuses(status), path, text, sampled=shows == "all")
        before = position(query, "before", _POSITION) or END
        found = await self._store.refused_requests.page(
            partner.id, wanted, before, self._renderer.now_ms(), PAGE + 1
        )
        asked: dict[str, object] = {"show": shows, "status": status, "path": path, "q": text}
        last = found[PAGE - 1] if len(found) > PAGE else None
        kept_ms = await self._store.refused_requests.kept_ms(partner.id)
        await self._renderer.render(
            req,
            resp,
            "requests.html",
            requests=[(one, _message(one)) for one in found[:PAGE]],
            chosen=status,
            starts=path,
            text=text,
            is_first=before == END,
            again=address(partner, "requests", query=asked),
            next_page=last
            and address(partner, "requests", query={**asked, "before": f"{last.at_ms} {last.id}"}),
            shows=shows,
            kept_for=f"for {retention_in_words(kept_ms)}" if kept_ms else "for ever",
            kept=self._store.refused_requests.kept,
        )


class RequestPage(Page):
    """`…/requests/one?id=…`: one of them, with what is to blame marked in its body."""

    async def on_get(self, req: Request, resp: Response) -> None:
        request_id = query_of(req).get("id", "")
        found = await self._store.refused_requests.get(partner_of(req).id, request_id)
        named, items = _PARAMETER.search(found.error), _items(found)
        member = named[1] if named else None
        await self._renderer.render(
            req,
            resp,
            "request.html",
            request=found,
            message=_message(found),
            member=member,
            items=items,
            kept=self._store.refused_requests.kept,
            target=highlight.in_path(found.path, member),
            body=highlight.in_bulk(found.body, [(one.number, one.member) for one in items])
            if items
            else highlight.in_body(found.body, member),
            curl=_curl(found, url_of(req)),
        )


def _message(request: RefusedRequest) -> str:
    """The sentence of the answer."""
    try:
        answer = json.loads(request.answer)
    except ValueError:
        return request.answer
    return str(answer.get("message", "")) if isinstance(answer, dict) else request.answer


def _items(request: RefusedRequest) -> list[Item]:
    """The items of a bulk of which the answer says that they were refused."""
    if request.status >= 400 or not request.is_refused:
        return []
    try:
        found = json.loads(request.answer)["items"]
        return [Item(int(one["item"]), one["message"], one["parameter"]) for one in found]
    except (ValueError, KeyError, TypeError):  # it was cut off
        return []


def _curl(request: RefusedRequest, url: str) -> str:
    """The same request again, to be pasted into a shell."""
    # Braces, dots and a leading @ are what was sent, and no command to curl.
    words = ["curl", "--globoff", "--path-as-is", "-X", quote(request.method)]
    words.append(quote(url + request.path))
    words.append('-H "x-api-key: $KEY"')
    if request.body:
        words += ["--data-raw", quote(request.body)]
    return visible(" ".join(words))  # what is pasted may command a terminal


def _statuses(text: str) -> tuple[int, int]:
    if re.fullmatch(r"[1-5][0-9]{2}", text):
        return int(text), int(text)
    if text not in STATUSES:
        raise Invalid("status", "It must be 2xx, 3xx, 4xx, 5xx or one such as 409.")
    return STATUSES[text]
