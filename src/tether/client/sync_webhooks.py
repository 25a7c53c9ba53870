# Made from aio_webhooks.py by scripts/unasync.py: change that, then `make unasync`.
"""Webhooks: addresses that the server calls with what happens."""

from collections.abc import Iterator
from typing import Literal, Unpack

from tether.client.exchange import Patience
from tether.client.models import Instant
from tether.client.sync_run import Runner
from tether.client.webhooks import WebhookCalls, WebhookChanges, WebhookMembers
from tether.domain.webhook_views import Webhook, WebhookAttempt, WebhookOutcome


class Webhooks:
    """The partner's webhooks."""

    def __init__(self, client: Runner, patience: Patience) -> None:
        self._client = client
        self._calls = WebhookCalls(patience)

    def create(
        self,
        url: str,
        *,
        signature: Literal["v1", "v1a"] = "v1",
        **members: Unpack[WebhookMembers],
    ) -> Webhook:
        """Has this address called with what happens from now on, or from where `from_` says.

        What this returns has the `secret`, or the `public_key`, for `verify_webhook`: it is shown
        only now. Raises Invalid, Conflict if there are too many. It is tried once: if the answer
        is lost, look at `list` first.
        """
        return self._client._run(self._calls.create(url, signature, members))

    def list(self) -> list[Webhook]:
        """All of them, the oldest first."""
        return self._client._run(self._calls.list())

    def get(self, id: str) -> Webhook:
        """The one of this id, with what it has not had yet. Raises NotFound."""
        return self._client._run(self._calls.get(id))

    def change(self, id: str, **changes: Unpack[WebhookChanges]) -> Webhook:
        """Changes some members; None gives one its default. Raises NotFound, Invalid."""
        return self._client._run(self._calls.change(id, changes))

    def delete(self, id: str) -> None:
        """Deletes it. Raises NotFound."""
        self._client._run(self._calls.delete(id))

    def test(self, id: str) -> WebhookOutcome:
        """Sends a test message now and says what came of it. If it succeeds, a webhook that has
        stopped goes on. Raises NotFound.
        """
        return self._client._run(self._calls.test(id))

    def attempts(
        self, id: str, *, failed: bool = False, page_size: int = 100
    ) -> Iterator[WebhookAttempt]:
        """The last requests that were made, or that `failed`, the newest first. Raises NotFound."""
        return self._client._iterate(self._calls.attempts(id, page_size, failed=failed))

    def replay(
        self,
        id: str,
        *,
        message_id: str | None = None,
        failed_since: Instant | None = None,
        from_: str | None = None,
    ) -> Webhook:
        """Has one message sent once more, or those which failed for good since an instant, or all
        from `from_` on: start, or a cursor of events or of the stream. Raises NotFound, Invalid.
        """
        return self._client._run(self._calls.replay(id, message_id, failed_since, from_))

    def rotate_secret(self, id: str, *, overlap: float | None = None) -> Webhook:
        """Gets a new secret, beside which the old one signs for `overlap` seconds: a day unless
        they are given. What this returns has the new one. Raises NotFound, Invalid.
        """
        return self._client._run(self._calls.rotate_secret(id, overlap))
