"""The HTTP application: every route on this page."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import falcon
import falcon.asgi
from falcon.asgi import Request, Response
from falcon.constants import HTTP_METHODS
from falcon.routing import CompiledRouter

from tether.domain.models import Charger, Vehicle
from tether.http import errors
from tether.http.handlers.audit import AuditResource
from tether.http.handlers.bulk import Bulk, EntityBulkResource, EventBulkResource, WithdrawResource
from tether.http.handlers.capacity import CapacityResource
from tether.http.handlers.entities import EntityListResource, EntityResource
from tether.http.handlers.events import EventListResource, EventResource, WithdrawalListResource
from tether.http.handlers.pages import (
    AssetResource,
    GuideResource,
    HealthResource,
    MetricsResource,
    OpenApiResource,
    PageResource,
    ReadyResource,
    landing_page,
    reference_page,
)
from tether.http.handlers.sessions import SessionListResource, SessionResource
from tether.http.handlers.states import CurrentStates, StateResource
from tether.http.handlers.stream import StreamResource
from tether.http.handlers.summaries import EnergyResource, SessionSummaryResource
from tether.http.handlers.webhooks import (
    WebhookAttemptsResource,
    WebhookListResource,
    WebhookReplayResource,
    WebhookResource,
    WebhookSecretResource,
    WebhookTestResource,
)
from tether.http.middleware import ApiMiddleware, Application, Clients, by_path, open_paths
from tether.http.requests import ApiRequest
from tether.server.authenticator import Authenticator, Limiter
from tether.server.metrics import Metrics
from tether.server.store import Store
from tether.server.webhooks import WebhookService


@dataclass(frozen=True, slots=True)
class Parts:
    """What the application is made of; bootstrap.py puts it together."""

    store: Store
    keys: Authenticator
    limiter: Limiter
    metrics: Metrics
    webhooks: WebhookService
    now_ms: Callable[[], int]
    cors_origins: Sequence[str] = ()
    trusted_proxies: Sequence[str] = ()
    serve_metrics: bool = True
    demo_key: str = ""
    """The file that has the key of a demo."""
    console: "Application | None" = None
    """The application of the pages for people, to which the landing page leads."""
    takes_key_requests: bool = False
    """Whether strangers may ask for a key at `/request-key`, a page of the console."""
    spans: "Callable[[Callable[[str], str | None]], object] | None" = None
    """Makes the middleware that traces requests; it is told how to find the route of a path."""


def routes(parts: Parts) -> dict[str, object]:
    """What needs a key. The first six are the reference's, the lists included."""
    states = CurrentStates(parts.store, parts.now_ms)
    bulk = Bulk(parts.limiter)
    webhooks = parts.store, parts.webhooks, parts.now_ms
    return {
        "/chargers": EntityListResource(Charger, parts.store, states.of_chargers),
        "/chargers/{id}": EntityResource(Charger, parts.store, parts.now_ms),
        "/vehicles": EntityListResource(Vehicle, parts.store, states.of_vehicles),
        "/vehicles/{id}": EntityResource(Vehicle, parts.store, parts.now_ms),
        "/events": EventListResource(parts.store, parts.now_ms),
        "/events/{id}": EventResource(parts.store, parts.now_ms),
        "/events/bulk": EventBulkResource(bulk, parts.store, parts.now_ms),
        "/events/withdraw": WithdrawResource(bulk, parts.store, parts.now_ms),
        "/events/withdrawn": WithdrawalListResource(parts.store),
        "/chargers/bulk": EntityBulkResource(Charger, bulk, parts.store, parts.now_ms),
        "/vehicles/bulk": EntityBulkResource(Vehicle, bulk, parts.store, parts.now_ms),
        "/chargers/{id}/state": StateResource(parts.store, states.of_charger),
        "/vehicles/{id}/state": StateResource(parts.store, states.of_vehicle),
        "/sessions": SessionListResource(parts.store),
        "/sessions/{id}": SessionResource(parts.store),
        "/sessions/summary": SessionSummaryResource(parts.store),
        "/energy": EnergyResource(parts.store),
        "/stream": StreamResource(parts.store, parts.keys, parts.metrics, parts.now_ms),
        "/audit": AuditResource(parts.store),
        "/capacity": CapacityResource(parts.store, parts.now_ms),
        "/webhooks": WebhookListResource(*webhooks),
        "/webhooks/{id}": WebhookResource(*webhooks),
        "/webhooks/{id}/test": WebhookTestResource(*webhooks),
        "/webhooks/{id}/attempts": WebhookAttemptsResource(*webhooks),
        "/webhooks/{id}/replay": WebhookReplayResource(*webhooks),
        "/webhooks/{id}/rotate-secret": WebhookSecretResource(*webhooks),
    }


def open_routes(parts: Parts) -> dict[str, object]:
    """What needs no key."""
    pages: dict[str, object] = {
        "/": PageResource(
            landing_page(
                parts.demo_key,
                console=parts.console is not None,
                asks=parts.takes_key_requests,
            )
        ),
        "/docs": PageResource(reference_page()),
        "/guides": GuideResource(),
        "/openapi.json": OpenApiResource(),
        "/health": HealthResource(),
        "/ready": ReadyResource(parts.store),
    }
    return {**pages, "/metrics": MetricsResource(parts.metrics)} if parts.serve_metrics else pages


CONSOLE, KEY_REQUEST = "/console", "/request-key"
STATIC = "/static/"
FAVICON = "/favicon.ico"  # for which browsers ask by themselves
GUIDES = "/guides/"
STRAYS = (FAVICON, "/docs/")


def create_app(parts: Parts) -> Application:
    """The ASGI application of these parts, the console's included."""
    api, console = _create_api(parts), parts.console
    if console is None:
        return api
    pages = (CONSOLE, *([KEY_REQUEST] if parts.takes_key_requests else ()))
    return by_path(api, console, pages)


def _create_api(parts: Parts) -> Application:
    guarded, unguarded = routes(parts), open_routes(parts)
    router = CompiledRouter()

    def route_of(path: str) -> str | None:
        found = None if path.startswith("//") else router.find(path)
        return found[3] if found else None

    api_middleware = ApiMiddleware(
        keys=parts.keys,
        limiter=parts.limiter,
        use=parts.store.key_use,
        refusals=parts.store.refusals,
        metrics=parts.metrics,
        clients=Clients(parts.trusted_proxies),
        is_open=open_paths({*unguarded, *STRAYS}, (STATIC, GUIDES)),
        route_of=route_of,
        preflight=bool(parts.cors_origins),
    )
    middleware: list[Any] = [api_middleware]
    if parts.spans:
        middleware.insert(0, parts.spans(route_of))
    if parts.cors_origins:
        middleware.insert(0, _cors(parts.cors_origins))
    app: falcon.asgi.App[Request, Response] = falcon.asgi.App(
        middleware=middleware, request_type=ApiRequest, router=router
    )
    # What has no body has no type either; the middleware gives JSON its own.
    app.resp_options.default_media_type = None  # type: ignore[assignment]
    methods = {}
    below = {
        STATIC + "{name}": AssetResource(),
        FAVICON: AssetResource("favicon.svg"),
        GUIDES + "{name}": unguarded["/guides"],
        GUIDES + "{name}/{below}": unguarded["/guides"],
    }
    for template, resource in {**guarded, **unguarded, **below}.items():
        app.add_route(template, resource)
        methods[template] = [m for m in HTTP_METHODS if hasattr(resource, f"on_{m.lower()}")]
    errors.install(app, methods, route_of)
    return app


class _Cors(falcon.CORSMiddleware[Request, Response]):
    """Falcon's, which does not tell caches that another origin gets another answer."""

    def process_response(self, req: Any, resp: Any, resource: object, req_succeeded: bool) -> None:
        super().process_response(req, resp, resource, req_succeeded)
        if self.allow_origins != "*":
            resp.append_header("Vary", "Origin")


def _cors(origins: Sequence[str]) -> _Cors:
    return _Cors(
        allow_origins="*" if "*" in origins else list(origins),
        expose_headers=["ETag", "Link", "RateLimit", "RateLimit-Policy", "Retry-After",
                        "Tether-Derived-To", "Tether-Epoch", "Tether-Error",
                        "Tether-Warning", "X-Request-Id"],
    )  # fmt: skip
