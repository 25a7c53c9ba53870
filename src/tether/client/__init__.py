"""The Python SDK for partners: `Client`, `AsyncClient`, `Outbox`. See docs/sdk.md.

Imports domain, and the libraries msgspec, httpx2 and aiohttp; nothing of the server.
"""

from typing import TYPE_CHECKING, Any

from tether.client.dataframes import to_arrow, to_pandas, to_polars
from tether.client.errors import (
    Conflict,
    EpochChanged,
    Forbidden,
    Invalid,
    NotFound,
    OutboxError,
    PreconditionFailed,
    RateLimited,
    TetherError,
    TooLarge,
    Unavailable,
    UnexpectedAnswer,
    UnitWarning,
)
from tether.client.models import (
    BulkResult,
    Charger,
    Doubt,
    Event,
    EventType,
    PutResult,
    Saved,
    Vehicle,
    Withdrawal,
    WithdrawResult,
)
from tether.client.outbox import Outbox
from tether.client.outbox_file import DamagedEvent, RefusedEvent
from tether.client.sync import Client
from tether.client.sync_run import Following, Stream
from tether.client.webhooks import verify_webhook
from tether.domain.audit import AuditEntry
from tether.domain.views import (
    Capacity,
    ChargePeriod,
    ChargerState,
    EnergySource,
    EnergyStep,
    Flag,
    Session,
    SessionStatus,
    SessionSummary,
    UnknownCapacity,
    VehicleState,
)
from tether.domain.webhook_views import Webhook, WebhookAttempt, WebhookBacklog, WebhookOutcome

if TYPE_CHECKING:
    from tether.client.aio import AsyncClient
    from tether.client.aio_run import AsyncFollowing, AsyncStream
else:

    def __getattr__(name: str) -> Any:
        """Imports the async names on first use, because loading aiohttp takes a while."""
        if name in ("AsyncClient", "AsyncFollowing", "AsyncStream"):
            from tether.client import aio, aio_run

            return getattr(aio if name == "AsyncClient" else aio_run, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = [
    "AsyncClient",
    "AsyncFollowing",
    "AsyncStream",
    "AuditEntry",
    "BulkResult",
    "Capacity",
    "ChargePeriod",
    "Charger",
    "ChargerState",
    "Client",
    "Conflict",
    "DamagedEvent",
    "Doubt",
    "EnergySource",
    "EnergyStep",
    "EpochChanged",
    "Event",
    "EventType",
    "Flag",
    "Following",
    "Forbidden",
    "Invalid",
    "NotFound",
    "Outbox",
    "OutboxError",
    "PreconditionFailed",
    "PutResult",
    "RateLimited",
    "RefusedEvent",
    "Saved",
    "Session",
    "SessionStatus",
    "SessionSummary",
    "Stream",
    "TetherError",
    "TooLarge",
    "Unavailable",
    "UnexpectedAnswer",
    "UnitWarning",
    "UnknownCapacity",
    "Vehicle",
    "VehicleState",
    "Webhook",
    "WebhookAttempt",
    "WebhookBacklog",
    "WebhookOutcome",
    "WithdrawResult",
    "Withdrawal",
    "to_arrow",
    "to_pandas",
    "to_polars",
    "verify_webhook",
]
