"""Puts the parts together. No other module knows all of them."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import cache, partial
from importlib import import_module
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import structlog

from tether.domain.errors import SetupError
from tether.domain.timestamps import now_ms
from tether.server.authenticator import Authenticator, ForwardClock, Limiter, TokenBuckets
from tether.server.databases import database_of
from tether.server.secret_box import SecretBox, key_file, keys_in, keys_in_file, no_keys
from tether.server.settings import Settings
from tether.server.store import Store
from tether.server.webhooks import WebhookService

if TYPE_CHECKING:
    from falcon.asgi import App, Request, Response
    from opentelemetry.trace import Tracer

    from tether.server.metrics import Metrics
    from tether.webhooks.deliverer import Deliverer
    from tether.webhooks.sender import Sender

log = structlog.get_logger()

# Adapters are imported on first use, so that servers start fast.


def import_the_rest(settings: Settings) -> None:
    """Imports what only some requests need, soon after the start.

    If these did it, an upgrade in between would mix the modules of two versions.
    """
    for name in ("cryptography.fernet", "tether.webhooks.http_client", "tether.http.guides"):
        import_module(name)
    if settings.console == "on":
        import_module("tether.console.app")
    log.debug("everything is imported")


def authenticator(store: Store) -> Authenticator:
    """The authenticator for the keys of this store."""
    return Authenticator(store.keys.find, ForwardClock())


def secret_box(settings: Settings) -> SecretBox:
    """Encrypts secrets before they are stored."""
    if settings.secret_key:
        return SecretBox(lambda: keys_in(settings.secret_key))
    file = database_of(settings.database).file
    if file is None:
        return SecretBox(no_keys)
    return SecretBox(lambda: keys_in_file(key_file(file)))


def webhook_sender(settings: Settings, box: SecretBox) -> "Sender":
    """Sends messages to the endpoints of partners."""
    from tether.webhooks.sender import Sender

    return Sender(
        box, now_ms, allowed=[ip_network(text, strict=False) for text in settings.webhooks_allow],
        allow_http=settings.webhooks_allow_http,
    )  # fmt: skip


def webhook_service(store: Store, box: SecretBox, sender: "Sender") -> WebhookService:
    """The operations of partners on their webhooks."""
    from tether.webhooks.messages import Messages

    return WebhookService(store.webhooks, Messages(store, now_ms).of_id, box, sender, now_ms)


def deliverer(
    store: Store, sender: "Sender", metrics: "Metrics", settings: Settings
) -> "Deliverer":
    """Delivers events and sessions to the endpoints of partners."""
    from tether.webhooks.deliverer import Deliverer

    alone = database_of(settings.database).file is not None
    # If the machine's clock is set back, deliveries are not late.
    clock = ForwardClock()
    return Deliverer(store, sender, clock, metrics, alone=alone)


def build_app(
    store: Store,
    keys: Authenticator,
    metrics: "Metrics",
    settings: Settings,
    *,
    webhooks: WebhookService,
    tracer: "Tracer | None",
) -> Callable[..., Any]:
    """The ASGI application on this store: the API, and the console unless that is off."""
    from tether.http.app import Dependencies, create_app

    return create_app(
        Dependencies(
            store=store,
            keys=keys,
            limiter=_limiter(settings, metrics),
            metrics=metrics,
            webhooks=webhooks,
            now_ms=now_ms,
            cors_origins=settings.cors_origins,
            trusted_proxies=settings.trusted_proxies,
            serve_metrics=settings.metrics == "on",
            demo_key=settings.demo_key,
            console=_on_demand(partial(_console, store, keys, metrics, webhooks, settings))
            if settings.console == "on"
            else None,
            takes_key_requests=settings.key_requests == "on",
            spans=_spans(tracer),
        )
    )


def _on_demand(
    create: "Callable[[], App[Request, Response]]",
) -> Callable[..., Coroutine[Any, Any, None]]:
    """The console, which `import_the_rest` imports, or its first request before that."""
    created = cache(create)

    async def console(scope: Any, receive: Any, send: Any) -> None:
        if not created.cache_info().currsize:
            await asyncio.to_thread(import_module, "tether.console.app")
        await created()(scope, receive, send)

    return console


def _console(
    store: Store,
    keys: Authenticator,
    metrics: "Metrics",
    webhooks: WebhookService,
    settings: Settings,
) -> "App[Request, Response]":
    from tether.console.app import Dependencies, create_console
    from tether.http.middleware import Clients
    from tether.http.requests import prefix_of

    return create_console(
        Dependencies(
            store=store,
            keys=keys,
            metrics=metrics,
            webhooks=webhooks,
            client_of=Clients(settings.trusted_proxies).of,
            prefix_of=prefix_of,
            now_ms=ForwardClock(),
            workers=settings.workers,
            takes_key_requests=settings.key_requests == "on",
            map_tiles=settings.map_tiles,
        )
    )


def _spans(tracer: "Tracer | None") -> Callable[[Callable[[str], str | None]], object] | None:
    if tracer is None:
        return None
    from tether.http.tracing import Spans

    return partial(Spans, tracer)


def check(settings: Settings) -> None:
    """Raises SetupError for settings with which every worker process would fail."""
    if settings.key_requests == "on" and settings.console == "off":
        raise SetupError(
            "Keys are requested at a page of the console: --key-requests on (TETHER_KEY_REQUESTS) "
            "needs --console on (TETHER_CONSOLE)."
        )
    if settings.secret_key:
        keys_in(settings.secret_key)
    if settings.redis:
        from tether.server.shared_limits import open_redis

        open_redis(settings.redis)


def _limiter(settings: Settings, metrics: "Metrics") -> Limiter:
    own = TokenBuckets(time.monotonic, settings.workers)
    if not settings.redis:
        return own
    from tether.server.shared_limits import SharedBuckets, open_redis

    return SharedBuckets(open_redis(settings.redis), own, metrics.redis_in_use.set)
