"""What surrounds every request: its id, its log line, its metrics, its key and its rate limit."""

import re
from collections.abc import Callable, Collection
from random import getrandbits
from time import perf_counter

from falcon.asgi import Request, Response

from tether.domain.errors import Forbidden, RateLimited
from tether.domain.keys import without_keys
from tether.domain.rate_limits import Limiter
from tether.http import requests
from tether.server import logging
from tether.server.authenticator import Authenticator
from tether.server.metrics import Metrics

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "PATCH", "POST", "DELETE"})


class Observer:
    """Gives each request an id (or keeps the client's), counts it and writes one line about it."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def process_request(self, req: Request, resp: Response) -> None:
        context = req.context
        context.started = perf_counter()
        context.key = None
        context.events = 1  # in a request that reports some
        context.rejections = {}  # how many of them, by reason
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
        route, status = req.uri_template or "other", resp.status_code
        method = req.method if req.method in _METHODS else "other"
        self._metrics.request(method, route, status, seconds)
        if method == "POST" and req.path.startswith("/events"):
            for reason, count in context.rejections.items():
                self._metrics.rejected_events(reason, count)
        key = context.key
        logging.answered(
            logging.Answered(
                request_id=context.request_id,
                partner=key.partner_name if key else None,
                key=key.prefix if key else None,
                method=method,
                route=route,
                status=status,
                ms=round(seconds * 1000, 3),
            )
        )


class Gate:
    """Lets a request in whose key works, may do this, and has not used up its rate."""

    def __init__(
        self,
        keys: Authenticator,
        limiter: Limiter,
        is_open: Callable[[str], bool],
        *,
        preflight: bool,
    ) -> None:
        self._keys = keys
        self._limiter = limiter
        self._is_open = is_open
        self._preflight = preflight

    async def process_request(self, req: Request, resp: Response) -> None:
        if self._is_open(req.path) or (self._preflight and _is_preflight(req)):
            return
        key = req.context.key = await self._keys.recognise(req.get_header("X-API-Key"))
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
