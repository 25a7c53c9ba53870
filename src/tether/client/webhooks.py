"""What can be asked about webhooks."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypedDict

from tether.client.entities import Pages
from tether.client.errors import invalid
from tether.client.exchange import Patience, Request, Script, ask, exchange, path
from tether.client.models import Instant, Number
from tether.client.values import instant_or_none
from tether.domain.models import to_json
from tether.domain.webhook_views import Webhook, WebhookAttempt, WebhookOutcome

# A try whose answer was lost may have made one: another would be one too many, and a secret that
# nobody has seen.
ONCE = Patience(0)


class WebhookMembers(TypedDict, total=False):
    """What a webhook may have: which messages, about which charger or vehicle, from where in the
    log (now, start, or a cursor of events or of the stream); whether it is on, how many messages
    a request may have, and how many requests a second.
    """

    types: Iterable[str] | None
    charger_id: str | None
    vehicle_id: str | None
    from_: str
    enabled: bool | None
    max_batch: int | None
    rate_per_second: Number | None
    description: str | None


class WebhookChanges(WebhookMembers, total=False):
    """What can be changed of a webhook; None gives a member its default."""

    url: str


class WebhookCalls:
    """Scripts for webhooks; `AsyncWebhooks` says what they do."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience

    def create(
        self, url: str, signature: Literal["v1", "v1a"], members: WebhookMembers
    ) -> Script[Webhook]:
        body = _body({"url": url, "signature": signature, **members})
        return ask(Webhook, Request("POST", "/webhooks", body), ONCE, 201)

    def list(self) -> Script[list[Webhook]]:
        return ask(list[Webhook], Request("GET", "/webhooks"), self._patience)

    def get(self, id: str) -> Script[Webhook]:
        return ask(Webhook, Request("GET", path("webhooks", id)), self._patience)

    def change(self, id: str, changes: WebhookChanges) -> Script[Webhook]:
        request = Request("PATCH", path("webhooks", id), _body(changes))
        return ask(Webhook, request, self._patience)

    def delete(self, id: str) -> Script[None]:
        yield from exchange(Request("DELETE", path("webhooks", id)), self._patience, 204)

    def test(self, id: str) -> Script[WebhookOutcome]:
        request = Request("POST", path("webhooks", id, "test"), b"{}")
        return ask(WebhookOutcome, request, self._patience)

    def attempts(self, id: str, page_size: int, *, failed: bool) -> Pages[WebhookAttempt]:
        return Pages(
            WebhookAttempt,
            self._patience,
            path("webhooks", id, "attempts"),
            limit=page_size,
            failed="true" if failed else None,
        )

    def replay(
        self, id: str, message_id: str | None, failed_since: Instant | None, start: str | None
    ) -> Script[Webhook]:
        since = instant_or_none("failed_since", failed_since)
        wanted = {"messageId": message_id, "failedSince": since, "from": start}
        body = to_json({name: value for name, value in wanted.items() if value is not None})
        request = Request("POST", path("webhooks", id, "replay"), body)
        return ask(Webhook, request, self._patience, 202)

    def rotate_secret(self, id: str, overlap_s: float | None) -> Script[Webhook]:
        body = to_json({} if overlap_s is None else {"overlap": overlap_s})
        request = Request("POST", path("webhooks", id, "rotate-secret"), body)
        return ask(Webhook, request, ONCE)


_NAMES = {
    "url": "url", "signature": "signature", "types": "types", "charger_id": "chargerId",
    "vehicle_id": "vehicleId", "from_": "from", "enabled": "enabled", "max_batch": "maxBatch",
    "rate_per_second": "ratePerSecond", "description": "description",
}  # fmt: skip


def _body(members: Mapping[str, Any]) -> bytes:
    """The members as JSON. Raises TypeError for one that there is not."""
    if unknown := members.keys() - _NAMES.keys():
        raise TypeError(f"A webhook has no {', '.join(sorted(unknown))}.")
    body = {_NAMES[name]: value for name, value in members.items()}
    types = body.get("types")
    if isinstance(types, str):
        raise invalid("types", "It must be several types, such as ['session.ended'].")
    if types is not None:
        body["types"] = list(types)
    return to_json(body)
