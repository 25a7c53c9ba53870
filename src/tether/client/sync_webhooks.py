# Made from aio_webhooks.py by scripts/unasync.py: change that, then `make unasync`.
"""Webhooks: URLs that the server calls with messages."""

from collections.abc import Iterator
from typing import Literal, Unpack

from tether.client.exchange import Request, exchange, path
from tether.client.models import Instant
from tether.client.sync_run import Runner
from tether.client.values import instant_or_none
from tether.client.webhooks import ONCE, WebhookChanges, WebhookMembers, webhook_body
from tether.domain.models import to_json
from tether.domain.webhook_views import Webhook, WebhookAttempt, WebhookOutcome


class Webhooks:
    """The partner's webhooks."""

    def __init__(self, client: Runner) -> None:
        self._client = client

    def create(
        self,
        url: str,
        *,
        signature: Literal["v1", "v1a"] = "v1",
        **members: Unpack[WebhookMembers],
    ) -> Webhook:
        """Creates a webhook: this URL is called with messages from now on, or from `from_` on.

        The result has the `secret`, or the `public_key`, for `verify_webhook`: no other call shows
        it. Raises Invalid, Conflict if there are too many. It is tried once: if the answer is lost,
        look at `list` first.
        """
        body = webhook_body({"url": url, "signature": signature, **members})
        return self._client._ask(Webhook, "POST", "/webhooks", body, status=201, policy=ONCE)

    def list(self) -> list[Webhook]:
        """All of them, the oldest first."""
        return self._client._get(list[Webhook], "/webhooks")

    def get(self, id: str) -> Webhook:
        """The webhook with this id, and its backlog. Raises NotFound."""
        return self._client._get(Webhook, path("webhooks", id))

    def change(self, id: str, **changes: Unpack[WebhookChanges]) -> Webhook:
        """Changes some members; None sets the default. Raises NotFound, Invalid."""
        body = webhook_body(changes)
        return self._client._ask(Webhook, "PATCH", path("webhooks", id), body)

    def delete(self, id: str) -> None:
        """Deletes it. Raises NotFound."""
        request = Request("DELETE", path("webhooks", id))
        self._client._run(exchange(request, self._client._policy, 204))

    def test(self, id: str) -> WebhookOutcome:
        """Sends a test message now; its outcome. If it succeeds, a stopped webhook goes on. Raises
        NotFound.
        """
        target = path("webhooks", id, "test")
        return self._client._ask(WebhookOutcome, "POST", target, b"{}")

    def attempts(
        self, id: str, *, failed: bool = False, page_size: int = 100
    ) -> Iterator[WebhookAttempt]:
        """The last requests, or only those that `failed`, the newest first. Raises NotFound."""
        target, only = path("webhooks", id, "attempts"), "true" if failed else None
        return self._client._list(WebhookAttempt, target, limit=page_size, failed=only)

    def replay(
        self,
        id: str,
        *,
        message_id: str | None = None,
        failed_since: Instant | None = None,
        from_: str | None = None,
    ) -> Webhook:
        """Sends one message again, or all that finally failed since an instant, or all from `from_`
        on: start, or a cursor of events or of the stream. Raises NotFound, Invalid.
        """
        since = instant_or_none("failed_since", failed_since)
        wanted = {"messageId": message_id, "failedSince": since, "from": from_}
        body = to_json({name: value for name, value in wanted.items() if value is not None})
        target = path("webhooks", id, "replay")
        return self._client._ask(Webhook, "POST", target, body, status=202)

    def rotate_secret(self, id: str, *, overlap: float | None = None) -> Webhook:
        """Makes a new secret, which the result has. The old one also signs for `overlap` seconds,
        by default a day. Raises NotFound, Invalid.
        """
        body = to_json({} if overlap is None else {"overlap": overlap})
        target = path("webhooks", id, "rotate-secret")
        return self._client._ask(Webhook, "POST", target, body, policy=ONCE)
