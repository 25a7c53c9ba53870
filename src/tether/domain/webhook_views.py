"""Webhooks as the API shows them. Durations in seconds; unknown values are left out."""

from decimal import Decimal

import msgspec

from tether.domain.timestamps import format_instant, format_optional_instant
from tether.domain.webhooks import (
    STOPS_AFTER_MS,
    Attempt,
    Endpoint,
    MessageType,
    Outcome,
    SignatureKind,
    Status,
    warning_of,
)


class WebhookBacklog(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a webhook has not received yet, before its filters: events, and changes of sessions,
    counted up to 1,000.
    """

    events: int
    sessions: int


class Webhook(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A webhook: an address that receives messages.

    `status` is `failing` while the message `waits_for` is tried again, after `failures` so far, and
    `stopped` after 120 hours; `warning` tells how many per cent of that time have passed. `parked`
    messages failed while others succeeded. The `secret` or the `public_key` is there only in the
    answer to the request that made it.
    """

    id: str
    url: str
    types: tuple[MessageType, ...]
    charger_id: str | None = None
    vehicle_id: str | None = None
    description: str
    enabled: bool
    max_batch: int
    rate_per_second: Decimal | None = None
    signature: SignatureKind
    status: Status
    created_at: str
    last_success_at: str | None = None
    failing_since: str | None = None
    failures: int | None = None
    waits_for: str | None = None
    next_try_at: str | None = None
    stops_at: str | None = None
    warning: int | None = None
    old_secret_until: str | None = None
    parked: int
    replayed: int | None = None
    backlog: WebhookBacklog | None = None
    secret: str | None = None
    public_key: str | None = None


class WebhookOutcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """The result of a request to a webhook: `status` and the beginning of the `answer`, if there
    was one, and the `error`.
    """

    at: str
    succeeded: bool
    status: int | None = None
    duration: Decimal
    error: str | None = None
    answer: str | None = None


class WebhookAttempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A request to a webhook, with the number of its messages, and its result."""

    id: str
    message_id: str
    type: str
    messages: int
    at: str
    succeeded: bool
    status: int | None = None
    duration: Decimal
    error: str | None = None
    answer: str | None = None


def webhook_view(endpoint: Endpoint, now_ms: int, backlog: WebhookBacklog | None = None) -> Webhook:
    """The view of the endpoint, without its secret."""
    failing_ms = None if endpoint.stopped else endpoint.failing_since_ms
    stops_ms = None if failing_ms is None else failing_ms + STOPS_AFTER_MS
    rotating = endpoint.old_secret and endpoint.old_until_ms > now_ms
    return Webhook(
        id=endpoint.id,
        url=endpoint.url,
        types=endpoint.types,
        charger_id=endpoint.charger_id,
        vehicle_id=endpoint.vehicle_id,
        description=endpoint.description,
        enabled=endpoint.enabled,
        max_batch=endpoint.max_batch,
        rate_per_second=None if endpoint.rate_mhz is None else Decimal(endpoint.rate_mhz) / 1000,
        signature=endpoint.signature,
        status=endpoint.status,
        created_at=format_instant(endpoint.created_ms),
        last_success_at=format_optional_instant(endpoint.success_ms),
        failing_since=format_optional_instant(endpoint.failing_since_ms),
        failures=endpoint.tries or None,
        waits_for=endpoint.head or None,
        next_try_at=None if failing_ms is None else format_instant(endpoint.due_ms),
        stops_at=format_optional_instant(stops_ms),
        warning=warning_of(failing_ms, now_ms),
        old_secret_until=format_instant(endpoint.old_until_ms) if rotating else None,
        parked=endpoint.parked,
        backlog=backlog,
    )


def outcome_view(outcome: Outcome | Attempt) -> WebhookOutcome:
    """The view of the result of a request."""
    return WebhookOutcome(
        at=format_instant(outcome.at_ms),
        succeeded=not outcome.error,
        status=outcome.status,
        duration=Decimal(outcome.taken_ms) / 1000,
        error=outcome.error or None,
        answer=outcome.answer or None,
    )


def attempt_view(attempt: Attempt) -> WebhookAttempt:
    """The view of a request."""
    outcome = msgspec.structs.asdict(outcome_view(attempt))
    return WebhookAttempt(
        id=attempt.id,
        message_id=attempt.message_id,
        type=attempt.type,
        messages=attempt.messages,
        **outcome,
    )
