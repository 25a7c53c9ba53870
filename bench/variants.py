"""Tether with one part replaced, to measure the cost of that part. Never used in production.

    python -m bench.variants storage serve ...    POST /events is answered, nothing is stored
    python -m bench.variants constant serve ...   GET /chargers/{id} answers a constant
    python -m bench.variants derivation serve ... events are stored, and not derived

All other code is the product's: bootstrap, middleware, validation and server.
"""

import sys
from collections.abc import Callable
from typing import Any

from falcon.asgi import Response

from tether.__main__ import main as tether
from tether.domain.models import Event
from tether.http.handlers.entities import EntityResource
from tether.http.requests import ApiRequest
from tether.projections.projector import Projector
from tether.server import bootstrap
from tether.server.authenticator import Authenticator
from tether.server.metrics import Metrics
from tether.server.settings import Settings
from tether.server.store import Store
from tether.server.webhooks import WebhookService

ID = "01999999-9999-7999-9999-999999999999"
CHARGER = b'{"id":"C0001","chargePowers":[11,22],"latitude":62.268302,"longitude":17.448415}'


def replace_storage() -> None:
    """POST /events: the call into the store answers at once."""
    build = bootstrap.build_app

    async def add(partner: int, event: Event) -> str:
        return ID

    def build_without_storage(
        store: Store, keys: Authenticator, metrics: Metrics, settings: Settings,
        *, webhooks: WebhookService, tracer: Any = None,
    ) -> Callable[..., Any]:  # fmt: skip
        store.batcher.add = add  # type: ignore[method-assign]
        return build(store, keys, metrics, settings, webhooks=webhooks, tracer=tracer)

    bootstrap.build_app = build_without_storage


def replace_reads() -> None:
    """GET /chargers/{id}: the handler does nothing but answer, with the same headers."""

    async def on_get(
        self: EntityResource[Any], req: ApiRequest, resp: Response, id: str = ""
    ) -> None:
        resp.set_header("ETag", '"1"')
        resp.data = CHARGER

    EntityResource.on_get = on_get  # type: ignore[method-assign]


def replace_derivation() -> None:
    """POST /events: the projector does not learn that events wait."""

    def notice(self: Projector, partner: int) -> None:
        pass

    async def sweep(self: Projector) -> None:
        pass

    async def apply_backpressure(self: Projector, partner: int, stored: int) -> None:
        pass

    Projector.notice = notice  # type: ignore[method-assign]
    Projector.sweep = sweep  # type: ignore[method-assign]
    Projector.apply_backpressure = apply_backpressure  # type: ignore[method-assign]


VARIANTS: dict[str, Callable[[], None]] = {
    "storage": replace_storage,
    "constant": replace_reads,
    "derivation": replace_derivation,
}


if __name__ == "__main__":
    VARIANTS[sys.argv.pop(1)]()
    tether()
