"""Middleware of the console: authentication, rate limit, security headers, metrics and log line."""

from collections.abc import Callable
from random import getrandbits
from time import perf_counter
from typing import Any

from falcon.asgi import Request, Response

from tether.console.rate_limit import RateLimit
from tether.console.user_sessions import UserSessions
from tether.domain.errors import NotFound, TetherError
from tether.domain.keys import Rate
from tether.server import logging
from tether.server.metrics import Metrics

CONTENT_SECURITY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'{images}; "
    "connect-src 'self'; font-src 'self'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'"
)
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_READS = frozenset({"GET", "HEAD"})
PAGES = Rate(20, 1)  # for each partner, and for the operator
PAGES_BURST = 200


class NotSignedIn(TetherError):
    """The page needs a signed-in user."""

    def __init__(self) -> None:
        super().__init__("Sign in first.")


class CrossSiteRequest(TetherError):
    """Another site sent this change in the user's name (CSRF)."""

    def __init__(self) -> None:
        super().__init__("This did not come from a page of the console. Nothing was changed.")


class Middleware:
    """Admits signed-in users to pages that they may see, and changes only from our own pages."""

    def __init__(
        self,
        user_sessions: UserSessions,
        client_of: Callable[[Request], str | None],
        prefix_of: Callable[[Request], str],
        metrics: Metrics,
        route_of: Callable[[str], str | None],
        *,
        workers: int,
        images: str,
    ) -> None:
        """`client_of` returns the client's address, `prefix_of` the path under which a proxy serves
        us, and `route_of` the template of a path. Pages may show images from the origin `images`.
        """
        self._user_sessions = user_sessions
        self._client_of = client_of
        self._prefix_of = prefix_of
        self._metrics = metrics
        self._route_of = route_of
        self._headers = {
            **HEADERS,
            "Content-Security-Policy": CONTENT_SECURITY.format(images=images and f" {images}"),
        }
        self._limit = RateLimit(PAGES, workers, burst=PAGES_BURST)

    async def process_request(self, req: Request, resp: Response) -> None:
        context = req.context
        context.started = perf_counter()
        context.request_id = f"{getrandbits(64):016x}"
        context.client = self._client_of(req)
        context.base = self._prefix_of(req)
        context.user = context.partner = context.reason = None
        resp.set_header("X-Request-Id", context.request_id)
        resp.set_headers(self._headers)
        if req.method not in _READS and not _is_from_our_page(req):
            raise CrossSiteRequest
        context.user = user = await self._user_sessions.find(req)
        if user is not None:
            await self._limit.check("" if user.key is None else str(user.key.partner))

    async def process_resource(
        self, req: Request, resp: Response, resource: Any, params: dict[str, Any]
    ) -> None:
        if getattr(resource, "is_public", False):
            return
        user = req.context.user
        if user is None:
            raise NotSignedIn
        if getattr(resource, "of_operator", False) and not user.is_operator:
            raise NotFound  # others need not know that the page exists
        if "partner" in params:
            req.context.partner = await self._user_sessions.partner(user, params.pop("partner"))

    async def process_response(
        self, req: Request, resp: Response, resource: object, succeeded: bool
    ) -> None:
        context = req.context
        seconds = perf_counter() - context.started
        method = req.method if req.method in ("GET", "HEAD", "POST") else "other"
        route = req.uri_template or self._route_of(req.path) or "/console/…"
        self._metrics.request(method, route, resp.status_code, seconds)
        key = context.user and context.user.key
        line = logging.Answered(
            request_id=context.request_id,
            partner=key.partner_name if key else context.partner and context.partner.name,
            key=key.prefix if key else None,
            client=context.client,
            method=method,
            route=route,
            status=resp.status_code,
            ms=round(seconds * 1000, 3),
        )
        if context.reason is not None:
            line.reason = context.reason
        logging.answered(line)


def _is_from_our_page(req: Request) -> bool:
    """Whether a page of ours sent this. Browsers set these headers, and scripts cannot."""
    site = req.get_header("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    # Over plain HTTP, browsers send Sec-Fetch-Site only to their own machine, and Origin always.
    origin, host = req.get_header("Origin"), req.get_header("Host")
    return (
        origin is not None and host is not None and origin in (f"http://{host}", f"https://{host}")
    )
