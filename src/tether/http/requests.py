"""Reads requests: ids in the path, the body, the parameters and pages of lists."""

import asyncio
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import unquote, urlencode

from falcon.asgi import Request, Response

from tether.domain.audit import Actor
from tether.domain.errors import (
    EpochChanged,
    Invalid,
    Malformed,
    NotFound,
    Refusal,
    TooLarge,
    Unknown,
    UnsupportedEncoding,
)
from tether.domain.keys import Key, without_keys
from tether.domain.models import ENTITY_ID_RULE, entity_id_from_path
from tether.domain.timestamps import format_instant
from tether.domain.validation import check_instant
from tether.ingest.json_reader import decode_document, gunzip
from tether.server.store import Store
from tether.storage.log_positions import EPOCH_ID, Epoch
from tether.storage.turns import Turns, in_steps

UNIT = "unit"  # the code of a Tether-Warning
MAX_BODY_BYTES = 1024 * 1024
CHUNK_BYTES = 64 * 1024
MAX_PARAMETER = 2_000  # characters, percent-encoded
DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
MOST_WAITING = 100  # bodies of a partner; up to 256 KiB of each came with its head
LONGEST_PREFIX = 200
P = TypeVar("P")  # the position of a row in a list
T = TypeVar("T")  # a row
# No segment is empty or begins with a dot, so that a prefix cannot lead somewhere else.
_PREFIX = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
_HOST = re.compile(r"[A-Za-z0-9.\-_]+(:[0-9]+)?|\[[0-9A-Fa-f:.]+\](:[0-9]+)?")


class RequestContext:
    """What the middleware and the handlers know of a request, beside what the client sent."""

    request_id: str
    client: str | None
    """The client's address, if it is known."""
    started: float
    """By `perf_counter`."""
    span: Any
    """The span of OpenTelemetry, if there are any."""
    key: Key | None = None
    """The key by which the request was admitted."""
    rejections: Mapping[str, int] = {}
    """Why it was refused; for a bulk the number of items by reason."""
    in_bulk: int | None = None
    """The number of items in a bulk."""
    refused_items: Sequence[tuple[int, Refusal]] = ()
    """The first refused items of a bulk, with their numbers."""
    warned: Sequence[str] = ()
    """The members with an unlikely unit, of all events or entities."""
    is_kept = True
    """Whether it may appear on the console's page Requests."""


class ApiRequest(Request):
    """Falcon's request with a typed context and with access to the body."""

    __slots__ = ()
    context_type = RequestContext
    context: RequestContext  # type: ignore[assignment]  # Falcon lets applications replace it

    def body_at_hand(self) -> bytes | None:
        """The whole body, still compressed if it is, if it came with the head, as nearly all do."""
        event = self._first_event
        return None if event is None or event["more_body"] else event["body"]

    def begun_body(self) -> bytes:
        """The part of the body that came with the head."""
        event = self._first_event
        return b"" if event is None else bytes(event["body"])

    async def parts_of_body(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises Malformed if the client hangs up before its end, which
        Falcon's stream does not detect.
        """
        event = self._first_event
        while event is None or event["more_body"]:
            if event is not None:
                yield event["body"]
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise Malformed("The body broke off.")  # the client is gone
        yield event["body"]

    async def until_gone(self) -> None:
        """Returns when the client has hung up."""
        # This is not kept in the scope, because that would be a cycle of references.
        while (await self._receive())["type"] != "http.disconnect":
            pass


def key_of(req: ApiRequest) -> Key:
    """The key by which the request was admitted."""
    assert req.context.key is not None
    return req.context.key


def warn_of(req: ApiRequest, resp: Response, members: Sequence[str]) -> None:
    """Adds a Tether-Warning header for members with an unlikely unit. They are stored as sent."""
    if members:
        resp.set_header("Tether-Warning", ", ".join(structured(UNIT, name) for name in members))
        req.context.warned = members


def structured(token: str, parameter: str | None) -> str:
    """A code and its parameter as an item of a structured field (RFC 9651)."""
    if parameter is None:
        return token
    safe = re.sub(r"[^ -~]", "?", without_keys(parameter))
    escaped = safe.replace("\\", "\\\\").replace('"', '\\"')
    return f'{token}; parameter="{escaped}"'


def actor_of(req: ApiRequest) -> Actor:
    """The author of the request for the audit trail."""
    key, context = key_of(req), req.context
    return Actor("key", key.prefix, context.request_id, context.client or "")


def partner_of(req: ApiRequest) -> int:
    """The partner whose key the request carries."""
    return key_of(req).partner


def id_to_read(segment: str) -> str:
    """The entity id in the path of a read. Raises NotFound if nothing can have that id."""
    entity_id = entity_id_from_path(segment)
    if entity_id is None:
        raise NotFound
    return entity_id


def id_to_write(segment: str) -> str:
    """The entity id in the path of a write. Raises Invalid."""
    entity_id = entity_id_from_path(segment)
    if entity_id is None:
        raise Invalid("id", ENTITY_ID_RULE)
    return entity_id


# The body ----------------------------------------------------------------------------------------


def body_turns(at_once: int, of_each: int) -> Turns:
    """Turns for requests with large bodies: so many at once, in all and of each partner."""
    return Turns(at_once, of_each, most_waiting=MOST_WAITING, patience_s=None)


_large = body_turns(16, 4)  # bodies above CHUNK_BYTES, or compressed


async def read_document(
    req: ApiRequest, *, if_array: str = "", if_empty: bytes = b""
) -> dict[str, Any]:
    """The JSON object in the body, with any content type. gzip is accepted.

    `if_array` is for the message about a JSON array: what to do with it. `if_empty` is used for an
    empty body. Reads at most MAX_BODY_BYTES. Raises TooLarge, UnsupportedEncoding and Malformed.
    """
    body = await _read_body(req)
    if isinstance(body, dict):
        return body
    if if_array and body.lstrip().startswith(b"["):
        raise Malformed(f"The body must be a JSON object: {if_array}.")
    return decode_document(body or if_empty)


async def _read_body(req: ApiRequest) -> bytes | dict[str, Any]:
    """The bytes of the body, or the object in a large body; see `read_document`.

    Few large bodies are read at a time, because a mebibyte takes up to 30 ms to decode.
    """
    is_gzip = is_gzipped(req)
    _check_announced(req, MAX_BODY_BYTES)
    body = req.body_at_hand()
    if body is not None and len(body) <= CHUNK_BYTES and not is_gzip:
        return body
    parts, read = body_of(req, MAX_BODY_BYTES), bytearray()
    await _read_on(parts, read, CHUNK_BYTES)
    if len(read) <= CHUNK_BYTES and not is_gzip:
        return bytes(read)
    async with _large.of(partner_of(req)):
        await _read_on(parts, read, MAX_BODY_BYTES)
        body = bytes(read)
        if is_gzip:
            body = await in_steps(gunzip(body, MAX_BODY_BYTES))
        if len(body) <= CHUNK_BYTES:
            return body
        # Decoding is a step of its own. A thread would hold the interpreter just as long.
        await asyncio.sleep(0)
        return decode_document(body)


async def _read_on(parts: AsyncIterator[bytes], read: bytearray, limit: int) -> None:
    """Reads until the end of the body, or until more than the limit is read."""
    while len(read) <= limit and (part := await anext(parts, None)) is not None:
        read += part


def is_gzipped(req: Request) -> bool:
    """Whether the body is gzip. Raises UnsupportedEncoding for other encodings."""
    encoding = req.get_header("Content-Encoding")
    if encoding is None:
        return False
    encoding = encoding.strip().lower() or "identity"
    if encoding not in ("identity", "gzip"):
        raise UnsupportedEncoding(re.sub(r"[^a-z0-9.,+ -]", "?", encoding)[:40])
    return encoding == "gzip"


async def body_of(req: ApiRequest, limit: int) -> AsyncIterator[bytes]:
    """The body as it arrives. Raises TooLarge as soon as it is known to be above the limit."""
    _check_announced(req, limit)
    received = 0
    async for part in req.parts_of_body():
        received += len(part)
        if received > limit:
            raise TooLarge(limit)
        yield part


def _check_announced(req: Request, limit: int) -> None:
    if (req.content_length or 0) > limit:
        raise TooLarge(limit)


# Lists -------------------------------------------------------------------------------------------


def query_of(
    req: Request, allowed: Collection[str], repeated: Collection[str] = ()
) -> dict[str, str]:
    """The query parameters. Raises Unknown, and Invalid for one that is given twice.

    The values of a `repeated` parameter are joined with commas. A plus sign does not mean a blank,
    because ids and time zones have plus signs and no value has blanks.
    """
    query: dict[str, str] = {}
    for pair in filter(None, req.query_string.split("&")):
        name, _, value = pair.partition("=")
        name = unquote(name[:MAX_PARAMETER])
        if name not in allowed:
            shown = re.sub(r"[^A-Za-z0-9_.-]", "?", name)[:40]
            known = "This list has the parameters" if len(allowed) > 1 else "The only parameter is"
            raise Unknown(shown, f"{known} {', '.join(allowed)}.")
        if name in query and name not in repeated:
            raise Invalid(name, "It is given twice.")
        if len(value) > MAX_PARAMETER:
            raise Invalid(name, f"It must have at most {MAX_PARAMETER:,} characters.")
        value = unquote(value)
        query[name] = f"{query[name]},{value}" if name in query else value
    return query


def instants_of(query: dict[str, str], *windows: tuple[str, ...]) -> dict[str, int]:
    """The instants in the query by parameter, in ms since 1970.

    `windows` names the parameters of each window of time, the first one first. Raises Invalid.
    """
    found: dict[str, int] = {}
    for window in windows:
        given = {name: check_instant(name, query[name]) for name in window if name in query}
        if [*given.values()] != sorted(given.values()):
            raise Invalid(window[0], f"It must not be after {window[-1]}.")
        found |= given
    return found


def seconds_of(query: dict[str, str], name: str, alternatives: str = "") -> int:
    """The parameter as a whole number of seconds above 0. Raises Invalid.

    `alternatives` ends the rule in the message.
    """
    text = query[name]
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) == 0:
        rule = f"It must be a whole number of seconds from 1 to 999999999{alternatives}."
        raise Invalid(name, rule)
    return int(text)


def large_answer_turns() -> Turns:
    """Turns for answers that may each read and keep a lot: one of each partner at a time."""
    return Turns(4, 1, patience_s=120.0)


class Page:
    """The page of a list that a request asks for, and the link to the page that follows it."""

    def __init__(
        self,
        store: Store,
        req: ApiRequest,
        resp: Response,
        allowed: Collection[str],
        repeated: Collection[str] = (),
    ) -> None:
        """The list has the `allowed` parameters. Raises Invalid, Unknown."""
        self.query = query = query_of(req, allowed, repeated)
        limit, order = query.get("limit", str(DEFAULT_LIMIT)), query.get("order", "asc")
        if not (re.fullmatch(r"[0-9]{1,4}", limit) and 1 <= int(limit) <= MAX_LIMIT):
            raise Invalid("limit", f"It must be a whole number from 1 to {MAX_LIMIT}.")
        if order not in ("asc", "desc"):
            raise Invalid("order", "It must be asc (oldest first) or desc (newest first).")
        self.limit = int(limit)
        self.descending = order == "desc"
        self.partner = partner_of(req)
        self._store, self._req, self._resp, self._repeated = store, req, resp, repeated
        self._epoch_id = ""

    async def begin(
        self, read_position: Callable[[str], P | None] | None, *, derived: bool = False
    ) -> P | None:
        """The position in the cursor, after which the page begins; None at the start of the list.

        `read_position` returns None for an invalid position. Without this function the cursor is
        not read. If the list shows `derived` data, waits until all events are derived. Raises
        Invalid, EpochChanged if the cursor is of another epoch, and NotDerived.
        """
        epoch = await self._store.epochs.current()
        cursor = self.query.get("cursor")
        position: P | None = None
        if cursor is not None and read_position is not None:
            epoch_id, text = position_in(cursor)
            position = read_position(text)
            if position is None:
                raise Invalid("cursor", "It must be one that a Link header of this list gave.")
            if epoch_id != epoch.id:
                raise EpochChanged("cursor", format_instant(epoch.began_ms), "without it")
        self._epoch_id = epoch.id
        show_epoch(self._resp, epoch)
        if derived:
            await derive_first(self._store, self._req, self._resp, self.query)
        return position

    def finish(
        self,
        found: Sequence[T],
        position_of: Callable[[T], str],
        *,
        stop: str | None = None,
        follow: bool = False,
    ) -> Sequence[T]:
        """The rows of this page, with a link to the next page if more rows may follow: `found` has
        one row more than the page, or the search stopped at the position `stop`, or the client can
        `follow` the list, because new rows come at its end.
        """
        rows = found[: self.limit]
        if stop is not None and len(found) <= self.limit:
            self.link_next(stop, partial=True)
        elif len(found) > self.limit or (follow and rows):
            self.link_next(position_of(rows[-1]))
        return rows

    def link_next(self, position: str, *, partial: bool = False) -> None:
        """Adds a Link header that leads to the page after this position.

        `partial`: this page is shorter than asked for, or empty, although more may follow.
        """
        parameters: dict[str, str | list[str]] = {
            name: [*dict.fromkeys(value.split(","))] if name in self._repeated else value
            for name, value in self.query.items()
        }
        parameters["cursor"] = cursor_text(self._epoch_id, position)
        more = '; partial="true"' if partial else ""
        path = f"{_base_url(self._req)}{prefix_of(self._req)}{self._req.path}"
        target = f"{path}?{urlencode(parameters, doseq=True)}"
        self._resp.set_header("Link", f'<{target}>; rel="next"{more}')


def position_in(text: str) -> tuple[str, str]:
    """The epoch id and the position in a cursor; two empty texts if it is not one of ours."""
    try:
        cursor = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4)).decode("ascii")
    except (UnicodeError, ValueError):
        return "", ""
    epoch_id, _, position = cursor.rpartition("/")
    # The decoder skips unknown characters.
    is_ours = EPOCH_ID.fullmatch(epoch_id) and cursor_text(epoch_id, position) == text
    return (epoch_id, position) if is_ours else ("", "")


async def derive_first(
    store: Store, req: ApiRequest, resp: Response, query: Mapping[str, str] | None = None
) -> None:
    """Waits until all events are derived, unless the client accepts stale data.

    Raises NotDerived, and the errors of `takes_stale`.
    """
    partner = partner_of(req)
    if not await takes_stale(store, req, resp, query):
        head, derived = await store.derivations.progress(partner)
        if derived < head:
            await store.projector.catch_up(partner)


async def takes_stale(
    store: Store, req: ApiRequest, resp: Response, query: Mapping[str, str] | None = None
) -> bool:
    """Whether the client accepts stale data. Then a header has the last derived event.

    `query` has the parameters if they were read before. Raises Invalid.
    """
    if query is None:
        query = query_of(req, ("stale",))
    wanted = query.get("stale")
    if wanted is None:
        return False
    if wanted != "allowed":
        raise Invalid("stale", "It must be allowed, or left out.")
    # This is read before the data, which so contain at least the events up to this number.
    epoch = await store.epochs.current()
    seq = await store.projector.derived_to(partner_of(req))
    resp.set_header("Tether-Derived-To", cursor_text(epoch.id, str(seq)))
    return True


def show_epoch(resp: Response, epoch: Epoch) -> None:
    """Adds a header with the epoch, for clients that store positions."""
    if epoch.id:
        resp.set_header("Tether-Epoch", epoch.id)


def cursor_text(epoch_id: str, position: str) -> str:
    """The cursor of a position, as clients get it."""
    text = f"{epoch_id}/{position}" if epoch_id else position
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def prefix_of(req: Request) -> str:
    """The path under which a proxy serves Tether, such as /tether; empty without a valid one.

    Several proxies may have added a part, the outermost first.
    """
    text = req.get_header("X-Forwarded-Prefix")
    if text is None or len(text) > LONGEST_PREFIX:
        return ""
    prefix = "".join(part.strip().rstrip("/") for part in text.split(","))
    return prefix if _PREFIX.fullmatch(prefix) else ""


def _base_url(req: Request) -> str:
    """Scheme and authority that the client used; empty if its headers are invalid."""
    scheme, host = req.forwarded_scheme, req.get_header("Host") or ""
    odd = scheme not in ("http", "https") or not _HOST.fullmatch(host)
    return "" if odd else f"{scheme}://{host}"
