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
from tether.http.handlers.public import (
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
from tether.http.middleware import ApiMiddleware, Application, Clients, by_path, public_paths
from tether.http.requests import ApiRequest
from tether.server.authenticator import Authenticator, Limiter
from tether.server.metrics import Metrics
from tether.server.store import Store
from tether.server.webhooks import WebhookService


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What the handlers use. bootstrap.py creates it."""

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
    """The file with the key of a demo."""
    console: "Application | None" = None
    """The application of the web console."""
    takes_key_requests: bool = False
    """Whether anybody can request a key at `/request-key`, a page of the console."""
    spans: "Callable[[Callable[[str], str | None]], object] | None" = None
    """Creates the middleware for traces. It gets a function that finds the route of a path."""


def routes(deps: Dependencies) -> dict[str, object]:
    """The routes that need a key. The first six are those of the reference and their lists."""
    store, now_ms = deps.store, deps.now_ms
    states = CurrentStates(store, now_ms)
    bulk = Bulk(deps.limiter)
    webhooks = store, deps.webhooks, now_ms
    return {
        "/chargers": EntityListResource(Charger, store, states.of_chargers),
        "/chargers/{id}": EntityResource(Charger, store, now_ms),
        "/vehicles": EntityListResource(Vehicle, store, states.of_vehicles),
        "/vehicles/{id}": EntityResource(Vehicle, store, now_ms),
        "/events": EventListResource(store, now_ms),
        "/events/{id}": EventResource(store, now_ms),
        "/events/bulk": EventBulkResource(bulk, store, now_ms),
        "/events/withdraw": WithdrawResource(bulk, store, now_ms),
        "/events/withdrawn": WithdrawalListResource(store),
        "/chargers/bulk": EntityBulkResource(Charger, bulk, store, now_ms),
        "/vehicles/bulk": EntityBulkResource(Vehicle, bulk, store, now_ms),
        "/chargers/{id}/state": StateResource(store, states.of_charger),
        "/vehicles/{id}/state": StateResource(store, states.of_vehicle),
        "/sessions": SessionListResource(store),
        "/sessions/{id}": SessionResource(store),
        "/sessions/summary": SessionSummaryResource(store),
        "/energy": EnergyResource(store),
        "/stream": StreamResource(store, deps.keys, deps.metrics, now_ms),
        "/audit": AuditResource(store),
        "/capacity": CapacityResource(store, now_ms),
        "/webhooks": WebhookListResource(*webhooks),
        "/webhooks/{id}": WebhookResource(*webhooks),
        "/webhooks/{id}/test": WebhookTestResource(*webhooks),
        "/webhooks/{id}/attempts": WebhookAttemptsResource(*webhooks),
        "/webhooks/{id}/replay": WebhookReplayResource(*webhooks),
        "/webhooks/{id}/rotate-secret": WebhookSecretResource(*webhooks),
    }


def public_routes(deps: Dependencies) -> dict[str, object]:
    """The routes that need no key."""
    pages: dict[str, object] = {
        "/": PageResource(
            landing_page(
                deps.demo_key,
                console=deps.console is not None,
                asks=deps.takes_key_requests,
            )
        ),
        "/docs": PageResource(reference_page()),
        "/guides": GuideResource(),
        "/openapi.json": OpenApiResource(),
        "/health": HealthResource(),
        "/ready": ReadyResource(deps.store),
    }
    return {**pages, "/metrics": MetricsResource(deps.metrics)} if deps.serve_metrics else pages


CONSOLE, KEY_REQUEST = "/console", "/request-key"
STATIC = "/static/"
FAVICON = "/favicon.ico"  # browsers request it
GUIDES = "/guides/"
OTHER_PUBLIC_PATHS = (FAVICON, "/docs/")


def create_app(deps: Dependencies) -> Application:
    """The ASGI application of the API and the console."""
    api, console = _create_api(deps), deps.console
    if console is None:
        return api
    pages = (CONSOLE, *([KEY_REQUEST] if deps.takes_key_requests else ()))
    return by_path(api, console, pages)


def _create_api(deps: Dependencies) -> Application:
    with_key, public = routes(deps), public_routes(deps)
    router = CompiledRouter()

    def route_of(path: str) -> str | None:
        found = None if path.startswith("//") else router.find(path)
        return found[3] if found else None

    api_middleware = ApiMiddleware(
        keys=deps.keys,
        limiter=deps.limiter,
        use=deps.store.key_use,
        recorder=deps.store.request_recorder,
        metrics=deps.metrics,
        clients=Clients(deps.trusted_proxies),
        is_public=public_paths({*public, *OTHER_PUBLIC_PATHS}, (STATIC, GUIDES)),
        route_of=route_of,
        preflight=bool(deps.cors_origins),
    )
    middleware: list[Any] = [api_middleware]
    if deps.spans:
        middleware.insert(0, deps.spans(route_of))
    if deps.cors_origins:
        middleware.insert(0, _cors(deps.cors_origins))
    app: falcon.asgi.App[ApiRequest, Response] = falcon.asgi.App(
        middleware=middleware, request_type=ApiRequest, router=router
    )
    # An answer without a body has no content type. The middleware sets that of JSON.
    app.resp_options.default_media_type = None  # type: ignore[assignment]
    methods = {}
    below = {
        STATIC + "{name}": AssetResource(),
        FAVICON: AssetResource("favicon.svg"),
        GUIDES + "{name}": public["/guides"],
        GUIDES + "{name}/{below}": public["/guides"],
    }
    for template, resource in {**with_key, **public, **below}.items():
        if hasattr(resource, "on_get") and not hasattr(resource, "on_head"):
            resource.on_head = resource.on_get  # type: ignore[attr-defined]
        app.add_route(template, resource)
        methods[template] = [m for m in HTTP_METHODS if hasattr(resource, f"on_{m.lower()}")]
    errors.install(app, methods, route_of)
    return app


class _Cors(falcon.CORSMiddleware[Request, Response]):
    """Falcon's middleware, and a Vary header: caches must keep the answers of origins apart."""

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
