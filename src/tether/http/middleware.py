"""What surrounds every request: its id, its log line, its metrics, its key and its rate limit."""

import re
from collections.abc import Callable, Collection
from random import getrandbits
from time import perf_counter

from falcon import HTTPNotFound
from falcon.asgi import Request, Response
from msgspec import UNSET

from tether.domain.errors import Forbidden, RateLimited
from tether.domain.keys import without_keys
from tether.domain.rate_limits import Limiter
from tether.http import requests
from tether.http.clients import Clients
from tether.http.errors import wants_page
from tether.server import logging
from tether.server.authenticator import Authenticator
from tether.server.key_use import KeyUse
from tether.server.metrics import Metrics

_REFUSED = 400  # and higher statuses
_REPORTS = ("/events", "/events/bulk")
_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "PATCH", "POST", "DELETE"})


class Observer:
    """Gives each request an id (or keeps the client's), counts it and writes one line about it."""

    def __init__(
        self, metrics: Metrics, clients: Clients, route_of: Callable[[str], str | None]
    ) -> None:
        """`route_of` finds the template of a path."""
        self._metrics = metrics
        self._clients = clients
        self._route_of = route_of

    async def process_request(self, req: Request, resp: Response) -> None:
        context = req.context
        context.started = perf_counter()
        context.key = None
        context.client = self._clients.of(req)
        context.in_bulk = None  # how many items there are in a bulk
        context.doubted = ()  # members whose unit is, of each event or entity
        context.rejections = {}  # why it was refused; of a bulk also how many items, by reason
        given = req.get_header("X-Request-Id")
        context.request_id = (
            given
            if given and _REQUEST_ID.fullmatch(given) and without_keys(given) == given
            else f"{getrandbits(64):016x}"
        )
        resp.set_header("X-Request-Id", context.request_id)

    async def process_response(
        self, req: Request, resp: Response, resource: object, succeeded: bool
    ) -> None:
        context = req.context
        if resp.data and resp.content_type is None:
            resp.content_type = "application/json"
        seconds = perf_counter() - context.started
        # What the gate refuses has not been routed.
        route = req.uri_template or self._route_of(req.path) or "other"
        status, rejections = resp.status_code, context.rejections
        method = req.method if req.method in _METHODS else "other"
        self._metrics.request(method, route, status, seconds)
        for name in context.doubted:
            self._metrics.doubted_unit(name)
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
                self._metrics.rejected_events(reason, count)
        if context.in_bulk is not None:
            line.items = context.in_bulk
            line.stored = 0 if status >= _REFUSED else line.items - sum(rejections.values())
            if rejections:
                line.refused = rejections
        if key is not None:
            self._metrics.of_partner(key.partner_name, rejections)
        logging.answered(line)


class Gate:
    """Lets a request in whose key works, may do this, and has not used up its rate."""

    def __init__(
        self,
        keys: Authenticator,
        use: KeyUse,
        limiter: Limiter,
        is_open: Callable[[str], bool],
        route_of: Callable[[str], str | None],
        *,
        preflight: bool,
    ) -> None:
        self._keys = keys
        self._use = use
        self._limiter = limiter
        self._is_open = is_open
        self._route_of = route_of
        self._preflight = preflight

    async def process_request(self, req: Request, resp: Response) -> None:
        if self._is_open(req.path) or (self._preflight and _is_preflight(req)):
            return
        secret = req.get_header("X-API-Key")
        if secret is None and wants_page(req) and not self._route_of(req.path):
            raise HTTPNotFound  # somebody mistyped the address of a page
        try:
            key = req.context.key = await self._keys.recognise(secret)
        except Forbidden:
            req.context.key = self._keys.remembered(secret or "")  # for the log: it works no more
            raise
        self._use.note(key.digest, req.context.client)
        verdict = await self._limiter.take(key)
        # Proxies know that Authorization makes an answer private, but not that x-api-key does.
        resp.set_header("Cache-Control", "private, no-cache")
        resp.set_header(
            "RateLimit-Policy", f'"default";q={key.rate.requests};w={key.rate.window_s}'
        )
        requests.show_standing(resp, verdict)
        if key.read_only and req.method not in _READS:
            raise Forbidden(read_only=True)
        if not verdict.allowed:
            raise RateLimited(verdict.retry_after_s)


def _is_preflight(req: Request) -> bool:
    """A browser's question, which by its nature carries no key (CORS)."""
    return req.method == "OPTIONS" and bool(req.get_header("Access-Control-Request-Method"))


def open_paths(paths: Collection[str], folder: str) -> Callable[[str], bool]:
    """Tells whether a path needs no key: it is one of `paths` or lies below `folder`."""
    return lambda path: path in paths or path.startswith(folder)
