"""The Python SDK for partners: `Client`, `AsyncClient`, `Outbox`. See docs/sdk.md.

Imports domain, and the libraries msgspec, httpx2 and aiohttp; nothing of the server.
"""

from tether.client.aio import AsyncClient
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
)
from tether.client.frames import to_arrow, to_pandas, to_polars
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
from tether.client.signatures import verify_webhook
from tether.client.sync import Client
from tether.client.units import UnitWarning
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

__all__ = [
    "AsyncClient",
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
