"""The Python SDK for partners: `Client`, `AsyncClient`, `Outbox`. See docs/sdk.md.

Needs msgspec, httpx2 and aiohttp only, nothing of the server's.
"""

from tether.client.aio import AsyncClient
from tether.client.errors import (
    Conflict,
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
from tether.client.events import BulkResult
from tether.client.models import Charger, Event, EventType, Saved, Vehicle
from tether.client.outbox import Outbox
from tether.client.outbox_file import RefusedEvent
from tether.client.sync import Client

__all__ = [
    "AsyncClient",
    "BulkResult",
    "Charger",
    "Client",
    "Conflict",
    "Event",
    "EventType",
    "Forbidden",
    "Invalid",
    "NotFound",
    "Outbox",
    "OutboxError",
    "PreconditionFailed",
    "RateLimited",
    "RefusedEvent",
    "Saved",
    "TetherError",
    "TooLarge",
    "Unavailable",
    "UnexpectedAnswer",
    "Vehicle",
]
