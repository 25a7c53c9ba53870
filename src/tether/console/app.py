"""The application of the console: its routes and its error pages."""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeAlias
from urllib.parse import quote

import falcon
import falcon.asgi
import structlog
from falcon.asgi import Request, Response

from tether.console.audit import AuditFile, AuditPage
from tether.console.capacity import CapacityPage, FiguresPage, HistoryPage
from tether.console.downloads import SessionsFile
from tether.console.key_requests import (
    REQUEST_KEY,
    KeyRequestsPage,
    RequestedKeyPage,
    RequestKeyPage,
)
from tether.console.keys import KeysPage
from tether.console.live import EntityPage, LivePage, PlacesResource, StatesResource
from tether.console.middleware import CrossSiteRequest, Middleware, NotSignedIn
from tether.console.pages import redirect
from tether.console.partners import PartnersPage
from tether.console.rate_limit import RateLimit
from tether.console.refused_requests import RequestPage, RequestsPage
from tether.console.rendering import Renderer
from tether.console.request import HOME, local_path, path_of
from tether.console.sessions import SessionPage, SessionsPage, TotalsPage
from tether.console.sign_in import ATTEMPTS, HomePage, SignInLinkPage, SignInPage, SignOut
from tether.console.start import StartPage
from tether.console.updates import ENDED, UpdatesResource
from tether.console.user_sessions import UserSessions
from tether.console.webhooks import WebhookPage, WebhooksPage
from tether.domain import errors
from tether.domain.models import Charger, Vehicle
from tether.server.authenticator import Authenticator
from tether.server.metrics import Metrics
from tether.server.settings import origin_of
from tether.server.status_codes import STATUS
from tether.server.store import Store
from tether.server.webhooks import WebhookService

log = structlog.get_logger()
SIGN_OUT = f"{HOME}/sign-out"

Console: TypeAlias = "falcon.asgi.App[Request, Response]"


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The dependencies of the console; server/bootstrap.py provides them."""

    store: Store
    keys: Authenticator
    metrics: Metrics
    webhooks: WebhookService
    client_of: Callable[[Request], str | None]
    """The client's address."""
    prefix_of: Callable[[Request], str]
    """The path under which a proxy serves us."""
    now_ms: Callable[[], int]
    """A clock in ms since 1970 that does not go back."""
    workers: int
    takes_key_requests: bool
    """Whether anybody may request a key at `/request-key`."""
    map_tiles: str
    """The URL of map tiles, if the operator set one."""


def create_console(dependencies: Dependencies) -> Console:
    """The ASGI application of the console."""
    store, webhooks = dependencies.store, dependencies.webhooks
    renderer = Renderer(
        dependencies.now_ms, dependencies.takes_key_requests, dependencies.map_tiles
    )
    user_sessions = UserSessions(store, dependencies.now_ms)
    limit = RateLimit(ATTEMPTS, dependencies.workers)
    routes: dict[str, object] = {
        HOME: HomePage(store, renderer),
        "/console/sign-in": SignInPage(store, renderer, limit, user_sessions, dependencies.keys),
        "/console/enter/{token}": SignInLinkPage(store, renderer, limit, user_sessions),
        SIGN_OUT: SignOut(user_sessions),
        "/console/partners": PartnersPage(store, renderer),
        "/console/key-requests": KeyRequestsPage(store, renderer),
        "/console/audit": AuditPage(store, renderer),
        "/console/audit.{form}": AuditFile(store, user_sessions),
        "/console/p/{partner:int}/audit": AuditPage(store, renderer),
        "/console/p/{partner:int}/audit.{form}": AuditFile(store, user_sessions),
        "/console/p/{partner:int}/live": LivePage(Charger, store, renderer),
        "/console/p/{partner:int}/live/vehicles": LivePage(Vehicle, store, renderer),
        "/console/p/{partner:int}/map/places": PlacesResource(store),
        "/console/p/{partner:int}/map/states": StatesResource(store),
        "/console/p/{partner:int}/chargers/{id}": EntityPage(Charger, store, renderer),
        "/console/p/{partner:int}/vehicles/{id}": EntityPage(Vehicle, store, renderer),
        "/console/p/{partner:int}/sessions": SessionsPage(store, renderer),
        "/console/p/{partner:int}/sessions/totals": TotalsPage(store, renderer),
        "/console/p/{partner:int}/sessions/{id}": SessionPage(store, renderer),
        "/console/p/{partner:int}/sessions.{form}": SessionsFile(store, user_sessions),
        "/console/p/{partner:int}/requests": RequestsPage(store, renderer),
        "/console/p/{partner:int}/requests/one": RequestPage(store, renderer),
        "/console/p/{partner:int}/flexibility": CapacityPage(store, renderer),
        "/console/p/{partner:int}/flexibility/figures": FiguresPage(store, renderer),
        "/console/p/{partner:int}/flexibility/course": HistoryPage(store, renderer),
        "/console/p/{partner:int}/start": StartPage(store, renderer),
        "/console/p/{partner:int}/keys": KeysPage(store, renderer),
        "/console/p/{partner:int}/webhooks": WebhooksPage(store, webhooks, renderer),
        "/console/p/{partner:int}/webhooks/{id}": WebhookPage(store, webhooks, renderer),
        "/console/p/{partner:int}/ticks": UpdatesResource(store, user_sessions),
    }
    if dependencies.takes_key_requests:
        routes[REQUEST_KEY] = RequestKeyPage(store, renderer, limit)
        routes[REQUEST_KEY + "/{token}"] = RequestedKeyPage(store, renderer, limit)
    router = falcon.routing.CompiledRouter()

    def route_of(path: str) -> str | None:
        found = router.find(path)
        return found[3] if found else None

    middleware = Middleware(
        user_sessions,
        dependencies.client_of,
        dependencies.prefix_of,
        dependencies.metrics,
        route_of,
        workers=dependencies.workers,
        images=origin_of(dependencies.map_tiles) if dependencies.map_tiles else "",
    )
    console: Console = falcon.asgi.App(middleware=[middleware], router=router)
    console.resp_options.default_media_type = None  # type: ignore[assignment]  # of empty answers
    console.req_options.strip_url_path_trailing_slash = True
    for template, resource in routes.items():
        console.add_route(template, resource)

    async def on_error(req: Request, resp: Response, error: Exception, _: object) -> None:
        await _answer(renderer, req, resp, error)

    for kind in (Exception, falcon.HTTPError):  # Falcon has its own handler for HTTPError
        console.add_error_handler(kind, on_error)
    return console


async def _answer(renderer: Renderer, req: Request, resp: Response, error: Exception) -> None:
    """The response to an error: a page with its message, or the way to the sign-in page."""
    if isinstance(error, OSError | MemoryError):
        error = errors.Unavailable(cause=repr(error))
    is_missing = isinstance(error, falcon.HTTPNotFound | errors.NotFound)
    if isinstance(error, errors.Abandoned):
        resp.status = 499  # the client is gone; the API counts it like this, too
        return
    if isinstance(error, NotSignedIn) or (is_missing and req.context.user is None):
        _lead_to_sign_in(req, resp)
        return
    reason: str
    if is_missing:
        status, reason = 404, errors.Code.NOT_FOUND
        message = "There is no such page, or you may not see it."
    elif isinstance(error, errors.TetherError):
        status = _status_of(error)
        reason, message = error.code or type(error).__name__, error.message
        if isinstance(error, errors.Unavailable | errors.RateLimited):
            resp.retry_after = error.retry_after_s
    elif isinstance(error, falcon.HTTPBadRequest | falcon.HTTPMethodNotAllowed):
        status, reason = 405, errors.Code.METHOD_NOT_ALLOWED
        message = "This page does not take such a request."
    else:
        log.error("failed", request_id=req.context.request_id, exc_info=error)
        status, reason = 500, errors.Code.INTERNAL_ERROR
        message = "Something failed here. The log of the server says more."
    req.context.reason = reason
    title = f"{status} {HTTPStatus(status).phrase}"
    await renderer.render(
        req, resp, "error.html", status=status, title=title, message=message,
        is_passing=status in (429, 503),
    )  # fmt: skip


def _status_of(error: errors.TetherError) -> int:
    if error.code is not None:
        return STATUS[errors.Code(error.code)]
    if isinstance(error, CrossSiteRequest):
        return 403
    return 400 if isinstance(error, errors.SetupError) else 500


def _lead_to_sign_in(req: Request, resp: Response) -> None:
    if "text/event-stream" in (req.get_header("Accept") or ""):
        resp.content_type = "text/event-stream"
        resp.data = ENDED.encode()
    elif req.get_header("HX-Request") == "true":  # reload the page, not a part of it
        resp.status = 200
        resp.set_header("HX-Refresh", "true")
        resp.data = b""
    else:
        # A form's page has the same address.
        back = HOME if req.path == SIGN_OUT else local_path(path_of(req))
        unsent = "&unsent=1" if req.method == "POST" and req.path != SIGN_OUT else ""
        redirect(req, resp, f"{HOME}/sign-in?to={quote(back, safe='')}{unsent}")
