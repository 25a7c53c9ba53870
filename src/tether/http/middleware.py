"""Work before and after every request: API or console, id, key, rate limit, log and metrics."""

import asyncio
import math
import re
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from random import getrandbits
from time import perf_counter
from typing import Any, TypeAlias

from falcon import HTTPNotFound
from falcon.asgi import Request, Response
from msgspec import UNSET

from tether.domain.errors import Code, Forbidden, RateLimited
from tether.domain.keys import without_keys
from tether.domain.models import to_json
from tether.http.errors import wants_page
from tether.http.requests import ApiRequest, RequestContext, key_of
from tether.server import logging
from tether.server.authenticator import Authenticator, KeyUse, Limiter, Verdict
from tether.server.metrics import Metrics
from tether.server.request_recorder import RequestRecorder

LONGEST_FORWARDED = 2_000  # characters at the end of X-Forwarded-For that are read
MAX_HOPS = 10
MAX_SAMPLED = 10_000  # partners whose last sampled request is remembered
_REFUSED = 400  # and higher statuses
_REPORTS = ("/events", "/events/bulk")
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
METHODS = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "PATCH", "POST", "DELETE"})

Application: TypeAlias = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]
"""An ASGI application."""


def by_path(api: Application, console: Application, pages: tuple[str, ...]) -> Application:
    """An application that passes requests for these paths, and paths below, to the console."""
    below = tuple(f"{page}/" for page in pages)

    def app(scope: Any, receive: Any, send: Any) -> Coroutine[Any, Any, None]:
        path = scope["path"]
        is_page = path.startswith(pages) and (path in pages or path.startswith(below))
        return (console if is_page else api)(scope, receive, send)

    return app


class Clients:
    """Finds the IP address of a client.

    X-Forwarded-For is only a claim. Its addresses are read from the last one backwards, as long as
    the proxy that added them is in a trusted network.
    """

    def __init__(self, trusted: Sequence[str]) -> None:
        self._networks = [ip_network(network) for network in trusted]
        self._is_trusted = lru_cache(maxsize=1024)(self._is_in_trusted_network)

    def of(self, req: Request) -> str | None:
        """The address; None where the connection has none."""
        peer = req.scope["client"]
        if peer is None:
            return None
        client: str = peer[0].removeprefix("::ffff:")  # of IPv4, on a socket for both
        if self._networks and self._is_trusted(client):
            return self._forwarded(req, client)
        return client

    def _forwarded(self, req: Request, client: str) -> str:
        claimed = (req.get_header("X-Forwarded-For") or "")[-LONGEST_FORWARDED:]
        for hop in claimed.rsplit(",", MAX_HOPS)[: -MAX_HOPS - 1 : -1]:
            address = _address(hop)
            if address is None:
                return client
            client = str(address)
            if not self._is_trusted(client):
                break
        return client

    def _is_in_trusted_network(self, client: str) -> bool:
        address = _address(client)
        return address is not None and any(address in network for network in self._networks)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The address without a port. An IPv4 address that is mapped to IPv6 becomes IPv4."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    if "%" in text:  # the zone of an IPv6 address may be any text
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class Sample:
    """Selects the successful requests that are recorded: `a_minute` for each partner."""

    def __init__(self, a_minute: int) -> None:
        self._pause_s = 60 / a_minute if a_minute else math.inf
        self._first_s = 0.0 if a_minute else math.inf
        self._next_s: dict[int, float] = {}

    def selects(self, partner: int, at_s: float) -> bool:
        """Whether to record the partner's request of this instant."""
        if at_s < self._next_s.get(partner, self._first_s):
            return False
        if len(self._next_s) >= MAX_SAMPLED:
            self._next_s.clear()
        self._next_s[partner] = at_s + self._pause_s
        return True


@dataclass(kw_only=True, eq=False)
class ApiMiddleware:
    """Gives each request an id (or keeps the client's) and admits it if its key works, may do this,
    and has not used up its rate limit. Counts the request and logs it after the answer.
    """

    keys: Authenticator
    limiter: Limiter
    use: KeyUse
    recorder: RequestRecorder
    metrics: Metrics
    clients: Clients
    is_public: Callable[[str], bool]
    """Whether a path needs no key."""
    route_of: Callable[[str], str | None]
    """Finds the template of a path."""
    preflight: bool
    """Browsers may ask without a key what they may send (CORS)."""

    def __post_init__(self) -> None:
        self._sample = Sample(self.recorder.sample)

    async def process_request(self, req: ApiRequest, resp: Response) -> None:
        context = req.context
        context.started = perf_counter()
        context.client = self.clients.of(req)
        given = req.get_header("X-Request-Id")
        context.request_id = (
            given
            if given and _REQUEST_ID.fullmatch(given) and without_keys(given) == given
            else f"{getrandbits(64):016x}"
        )
        resp.set_header("X-Request-Id", context.request_id)
        if not (self.is_public(req.path) or (self.preflight and _is_preflight(req))):
            await self._admit(req, resp)
        if req.path.startswith("//"):  # the router would take //chargers for /chargers
            raise HTTPNotFound

    async def _admit(self, req: ApiRequest, resp: Response) -> None:
        secret = req.get_header("X-API-Key")
        if secret is None and wants_page(req) and not self.route_of(req.path):
            raise HTTPNotFound  # a person mistyped the address of a page
        try:
            key = req.context.key = await self.keys.authenticate(secret)
            req.context.partner = key.partner
        except Forbidden:
            req.context.key = self.keys.cached_key(secret or "")  # for the log
            raise
        verdict = await self.limiter.take(key)
        # Proxies know that Authorization makes an answer private, but not that x-api-key does.
        resp.set_header("Cache-Control", "private, no-cache")
        resp.set_header(
            "RateLimit-Policy", f'"default";q={key.rate.requests};w={key.rate.window_s}'
        )
        set_rate_limit(resp, verdict)
        if key.read_only and req.method not in _READS:
            raise Forbidden(read_only=True)
        if not verdict.allowed:
            raise RateLimited(verdict.retry_after_s)

    async def process_response(
        self, req: ApiRequest, resp: Response, resource: object, succeeded: bool
    ) -> None:
        context = req.context
        if resp.data and resp.content_type is None:
            resp.content_type = "application/json"
        seconds = perf_counter() - context.started
        # A request that was not admitted has not been routed.
        route = req.uri_template or self.route_of(req.path) or "other"
        status, key = resp.status_code, context.key
        if (
            key
            and context.is_kept
            and (
                status >= _REFUSED
                or context.rejections
                or self._sample.selects(key.partner, context.started)
            )
            and self.recorder.accepts(key.partner)
        ):
            self._record(req, resp, seconds)
        # This runs after the answer is sent.
        asyncio.get_running_loop().call_soon(
            self._report, context, req.method, route, status, seconds
        )

    def _record(self, req: ApiRequest, resp: Response, seconds: float) -> None:
        key = key_of(req)
        items = req.context.refused_items if resp.status_code < _REFUSED else ()
        body, cut_from = _recorded_body(req, self.recorder.max_body_bytes)
        self.recorder.record(
            key.partner,
            request_id=req.context.request_id,
            key_prefix=key.prefix,
            method=req.method,
            path=f"{req.path}?{req.query_string}" if req.query_string else req.path,
            status=resp.status_code,
            seconds=seconds,
            error=items[0][1].code if items else resp.get_header("Tether-Error") or "",
            answer=_refused_items(req.context) if items else resp.data or b"",
            body=body,
            cut_from=cut_from,
        )

    def _report(
        self, context: RequestContext, method: str, route: str, status: int, seconds: float
    ) -> None:
        """Counts the request, and logs it."""
        method = method if method in METHODS else "other"
        rejections = context.rejections
        self.metrics.request(method, route, status, seconds)
        for name in context.warned:
            self.metrics.unit_warning(name)
        key = context.key
        line = logging.Answered(
            request_id=context.request_id,
            partner=key.partner_name if key else None,
            key=key.prefix if key else None,
            client=context.client,
            method=method,
            route=route,
            status=status,
            ms=round(seconds * 1000, 3),
        )
        if status >= _REFUSED:
            line.reason = next(iter(rejections), UNSET)
        if method == "POST" and route in _REPORTS:
            for reason, count in rejections.items():
                self.metrics.rejected_events(reason, count)
        if context.in_bulk is not None:
            line.items = context.in_bulk
            line.stored = 0 if status >= _REFUSED else line.items - sum(rejections.values())
            if rejections:
                line.refused = rejections
        if key is not None:
            if Code.KEY_INVALID not in rejections:
                self.use.record(key.digest, context.client)
            self.metrics.count_partner(key.partner_name, rejections)
            limited = rejections.get(Code.RATE_LIMITED, 0)
            cost = max(context.in_bulk or 1, 1) - limited
            self.use.count(
                key, context.started, cost, refused=status >= _REFUSED, limited=limited > 0
            )
        logging.answered(line)


def _recorded_body(req: ApiRequest, most: int) -> tuple[bytes, int]:
    """At most `most` bytes of the body that came with the head, or a note that it is compressed.

    Also the length of the whole body if it is longer; -1 if its length is not known, otherwise 0.
    """
    if (req.get_header("Content-Encoding") or "identity").lower() != "identity":
        return b"(compressed)", 0
    begun, whole = req.beginning_of_body(), req.buffered_body()
    if whole is not None and len(whole) <= most:
        return begun, 0
    length = req.get_header("Content-Length") or ""
    if whole is None and not length.isdecimal():
        return begun[:most], -1 if req.get_header("Transfer-Encoding") else 0
    return begun[:most], int(length) if length.isdecimal() else len(begun)


def _refused_items(context: RequestContext) -> bytes:
    """For a bulk with refused items: the first of these, which are kept in place of the answer."""
    items = [
        {"item": number, "message": refusal.message[:150], "parameter": refusal.parameter}
        for number, refusal in context.refused_items
    ]
    count = f"{sum(context.rejections.values()):,} of {context.in_bulk:,}"
    return to_json({"message": f"{count} items were refused.", "items": items})


def set_rate_limit(resp: Response, verdict: Verdict) -> None:
    """Sets the header with the rest of the key's rate limit."""
    resp.set_header("RateLimit", f'"default";r={verdict.remaining};t={verdict.reset_s}')


def _is_preflight(req: Request) -> bool:
    """Whether this is a CORS preflight of a browser, which never has a key."""
    return req.method == "OPTIONS" and bool(req.get_header("Access-Control-Request-Method"))


def public_paths(paths: Collection[str], folders: tuple[str, ...]) -> Callable[[str], bool]:
    """A function that is true for paths that need no key: `paths`, and those below `folders`."""
    return lambda path: path in paths or path.startswith(folders)
