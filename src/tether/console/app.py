"""The console's application: every page on this page."""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeAlias
from urllib.parse import quote

import falcon
import falcon.asgi
import structlog
from falcon.asgi import Request, Response

from tether.console.audit import AuditFile, AuditPage
from tether.console.flexibility import CoursePage, FiguresPage, FlexibilityPage
from tether.console.key_requests import (
    REQUEST_KEY,
    KeyRequestsPage,
    RequestedKeyPage,
    RequestKeyPage,
)
from tether.console.keys import KeysPage
from tether.console.live import EntityPage, LivePage
from tether.console.map import PlacesResource, StatesResource
from tether.console.middleware import CrossSiteRequest, Middleware, SignedOut
from tether.console.pages import redirect
from tether.console.partners import PartnersPage
from tether.console.rendering import Renderer
from tether.console.requests import RequestPage, RequestsPage
from tether.console.session import SessionPage
from tether.console.sessions import SessionsPage, TotalsPage
from tether.console.sessions_file import SessionsFile
from tether.console.signing_in import (
    EnterPage,
    HomePage,
    RefusedSignIns,
    SignInLimit,
    SignInPage,
    SignOut,
)
from tether.console.start import StartPage
from tether.console.updates import ENDED, UpdatesResource
from tether.console.users import HOME, UserSessions, local_path, path_of
from tether.console.webhooks import WebhookPage, WebhooksPage
from tether.domain import errors
from tether.domain.models import Charger, Vehicle
from tether.server.authenticator import Authenticator
from tether.server.metrics import Metrics
from tether.server.settings import origin_of
from tether.server.store import Store
from tether.server.webhooks import WebhookService

log = structlog.get_logger()

Console: TypeAlias = "falcon.asgi.App[Request, Response]"


@dataclass(frozen=True, slots=True)
class Parts:
    """What the console is made of; bootstrap.py puts it together."""

    store: Store
    keys: Authenticator
    metrics: Metrics
    webhooks: WebhookService
    client_of: Callable[[Request], str | None]
    """The address of who asks."""
    prefix_of: Callable[[Request], str]
    """The path under which a proxy shows us."""
    now_ms: Callable[[], int]
    """A clock that does not go back."""
    workers: int
    takes_key_requests: bool
    """Whether `/request-key` is there."""
    map_tiles: str
    """Where maps get tiles, if the operator named a server."""


STATUS: dict[type[errors.TetherError], int] = {
    errors.Invalid: 400,
    errors.Conflict: 409,
    errors.SetupError: 400,
    errors.Forbidden: 403,
    CrossSiteRequest: 403,
    errors.NotFound: 404,
    errors.TooLarge: 413,
    errors.RateLimited: 429,
    errors.Unavailable: 503,
}


def create_console(parts: Parts) -> Console:
    """The ASGI application of these parts."""
    store, renderer = parts.store, Renderer(parts.now_ms, parts.takes_key_requests, parts.map_tiles)
    user_sessions = UserSessions(store, parts.now_ms)
    limit = SignInLimit(parts.workers)
    refused = RefusedSignIns(store, parts.now_ms)
    routes: dict[str, object] = {
        HOME: HomePage(store, renderer),
        "/console/sign-in": SignInPage(
            store, renderer, user_sessions, limit, refused, keys=parts.keys
        ),
        "/console/enter/{token}": EnterPage(store, renderer, user_sessions, limit, refused),
        "/console/sign-out": SignOut(user_sessions),
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
        "/console/p/{partner:int}/flexibility": FlexibilityPage(store, renderer),
        "/console/p/{partner:int}/flexibility/figures": FiguresPage(store, renderer),
        "/console/p/{partner:int}/flexibility/course": CoursePage(store, renderer),
        "/console/p/{partner:int}/start": StartPage(store, renderer),
        "/console/p/{partner:int}/keys": KeysPage(store, renderer),
        "/console/p/{partner:int}/webhooks": WebhooksPage(store, parts.webhooks, renderer),
        "/console/p/{partner:int}/webhooks/{id}": WebhookPage(store, parts.webhooks, renderer),
        "/console/p/{partner:int}/ticks": UpdatesResource(store, user_sessions),
    }
    if parts.takes_key_requests:
        routes[REQUEST_KEY] = RequestKeyPage(store, renderer, limit)
        routes[REQUEST_KEY + "/{token}"] = RequestedKeyPage(store, renderer, limit)
    router = falcon.routing.CompiledRouter()

    def route_of(path: str) -> str | None:
        found = router.find(path)
        return found[3] if found else None

    middleware = Middleware(
        user_sessions,
        parts.client_of,
        parts.prefix_of,
        parts.metrics,
        route_of,
        workers=parts.workers,
        images=origin_of(parts.map_tiles) if parts.map_tiles else "",
    )
    console: Console = falcon.asgi.App(middleware=[middleware], router=router)
    console.resp_options.default_media_type = None  # type: ignore[assignment]  # of what is empty
    console.req_options.strip_url_path_trailing_slash = True  # as people add it
    for template, resource in routes.items():
        console.add_route(template, resource)
    _answer_errors(console, renderer)
    return console


def _answer_errors(console: Console, renderer: Renderer) -> None:
    async def signed_out(req: Request, resp: Response, error: Any, params: Any) -> None:
        back = local_path(path_of(req)) if req.method in ("GET", "HEAD") else HOME
        if "text/event-stream" in (req.get_header("Accept") or ""):
            resp.content_type = "text/event-stream"
            resp.data = ENDED.encode()
        elif req.get_header("HX-Request") == "true":  # the page is to go there, not a part of it
            resp.status = 200
            resp.set_header("HX-Refresh", "true")
            resp.data = b""
        else:
            redirect(req, resp, f"{HOME}/sign-in?to={quote(back, safe='')}")

    async def show(req: Request, resp: Response, status: int, message: str) -> None:
        title = f"{status} {HTTPStatus(status).phrase}"
        await renderer.render(req, resp, "error.html", status=status, title=title, message=message)

    async def not_found(req: Request, resp: Response, error: Any, params: Any) -> None:
        if req.context.user is None:
            await signed_out(req, resp, error, params)
        else:
            req.context.reason = errors.Code.NOT_FOUND
            await show(req, resp, 404, "There is no such page, or it is not yours to see.")

    async def ours(req: Request, resp: Response, error: errors.TetherError, params: Any) -> None:
        status = next((STATUS[kind] for kind in type(error).mro() if kind in STATUS), 500)
        req.context.reason = error.code or type(error).__name__
        if isinstance(error, errors.Unavailable | errors.RateLimited):
            resp.set_header("Retry-After", str(error.retry_after_s))
        await show(req, resp, status, error.message)

    async def wrong_method(req: Request, resp: Response, error: Any, params: Any) -> None:
        req.context.reason = errors.Code.METHOD_NOT_ALLOWED
        await show(req, resp, 405, "This page cannot be asked for in that way.")

    async def unexpected(req: Request, resp: Response, error: Any, params: Any) -> None:
        log.error("failed", request_id=req.context.request_id, exc_info=error)
        req.context.reason = errors.Code.INTERNAL_ERROR
        await show(
            req, resp, 500, "Something failed here. The log of the server has more about it."
        )

    async def abandoned(req: Request, resp: Response, error: Any, params: Any) -> None:
        resp.status = 499  # nobody waits for it; as the API counts it

    async def exhausted(req: Request, resp: Response, error: Any, params: Any) -> None:
        await ours(req, resp, errors.Unavailable(cause=repr(error)), params)

    console.add_error_handler(Exception, unexpected)
    console.add_error_handler(falcon.HTTPError, unexpected)
    console.add_error_handler(falcon.HTTPBadRequest, wrong_method)
    console.add_error_handler(falcon.HTTPMethodNotAllowed, wrong_method)
    console.add_error_handler(falcon.HTTPNotFound, not_found)
    console.add_error_handler(errors.TetherError, ours)
    console.add_error_handler(errors.NotFound, not_found)
    console.add_error_handler(SignedOut, signed_out)
    console.add_error_handler(errors.Abandoned, abandoned)
    for kind in (OSError, MemoryError):
        console.add_error_handler(kind, exhausted)
