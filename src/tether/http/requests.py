"""Requests: their context, ids in the path, the body, and the address of the server."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from falcon.asgi import Request, Response

from tether.domain.audit import Actor
from tether.domain.errors import (
    Invalid,
    Malformed,
    NotFound,
    Refusal,
    TooLarge,
    UnsupportedEncoding,
)
from tether.domain.keys import Key, without_keys
from tether.domain.models import ENTITY_ID_RULE, entity_id_from_path
from tether.ingest.json_reader import decode_document, gunzip
from tether.storage.turns import Turns, in_steps, next_turn

UNIT = "unit"  # the code of a Tether-Warning
MAX_BODY_BYTES = 1024 * 1024
CHUNK_BYTES = 64 * 1024
MAX_WAITING = 100  # bodies of a partner; up to 256 KiB of each came with its head
LONGEST_PREFIX = 200
# No segment is empty or begins with a dot, so that a prefix cannot lead somewhere else.
_PREFIX = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
_HOST = re.compile(r"[A-Za-z0-9.\-_]+(:[0-9]+)?|\[[0-9A-Fa-f:.]+\](:[0-9]+)?")


class RequestContext:
    """Data of the middleware and the handlers about a request."""

    request_id: str
    client: str | None
    """The client's address, if it is known."""
    started: float
    """By `perf_counter`."""
    span: Any
    """The span of OpenTelemetry, if there are any."""
    key: Key | None = None
    """The key by which the request was admitted."""
    partner: int
    """The partner of the key."""
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

    def buffered_body(self) -> bytes | None:
        """The whole body if it came with the head, as nearly all do. It may be compressed."""
        event = self._first_event
        return None if event is None or event["more_body"] else event["body"]

    def beginning_of_body(self) -> bytes:
        """The part of the body that came with the head."""
        event = self._first_event
        return b"" if event is None else bytes(event["body"])

    async def receive_body(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises Malformed if the client disconnects before the end of the
        body, which Falcon's stream does not detect.
        """
        event = self._first_event
        while event is None or event["more_body"]:
            if event is not None:
                yield event["body"]
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise Malformed("The body broke off.")  # the client is gone
        yield event["body"]


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


def body_turns(at_once: int, per_partner: int) -> Turns:
    """Turns for large bodies: `at_once` in all, and `per_partner` of each partner."""
    return Turns(at_once, per_partner, max_waiting=MAX_WAITING, patience_s=None)


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
    _check_content_length(req, MAX_BODY_BYTES)
    body = req.buffered_body()
    if body is not None and len(body) <= CHUNK_BYTES and not is_gzip:
        return body
    parts, read = body_of(req, MAX_BODY_BYTES), bytearray()
    await _read_up_to(parts, read, CHUNK_BYTES)
    if len(read) <= CHUNK_BYTES and not is_gzip:
        return bytes(read)
    async with _large.of(req.context.partner):
        await _read_up_to(parts, read, MAX_BODY_BYTES)
        body = bytes(read)
        if is_gzip:
            body = await in_steps(gunzip(body, MAX_BODY_BYTES))
        if len(body) <= CHUNK_BYTES:
            return body
        # Decoding is a step of its own. A thread would hold the interpreter just as long.
        await next_turn()
        return decode_document(body)


async def _read_up_to(parts: AsyncIterator[bytes], read: bytearray, limit: int) -> None:
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
    """The body as it arrives. Raises TooLarge as soon as it is above the limit, or will be."""
    _check_content_length(req, limit)
    received = 0
    async for part in req.receive_body():
        received += len(part)
        if received > limit:
            raise TooLarge(limit)
        yield part


def _check_content_length(req: Request, limit: int) -> None:
    if (req.content_length or 0) > limit:
        raise TooLarge(limit)


# Addresses ----------------------------------------------------------------------------------------


def prefix_of(req: Request) -> str:
    """The path under which a proxy serves Tether, such as /tether; empty without a valid one.

    Several proxies may have added a part, the outermost first.
    """
    text = req.get_header("X-Forwarded-Prefix")
    if text is None or len(text) > LONGEST_PREFIX:
        return ""
    prefix = "".join(part.strip().rstrip("/") for part in text.split(","))
    return prefix if _PREFIX.fullmatch(prefix) else ""


def base_url(req: Request) -> str:
    """Scheme and authority that the client used; empty if its headers are invalid."""
    scheme, host = req.forwarded_scheme, req.get_header("Host") or ""
    odd = scheme not in ("http", "https") or not _HOST.fullmatch(host)
    return "" if odd else f"{scheme}://{host}"
