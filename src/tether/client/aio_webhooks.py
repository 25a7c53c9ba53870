"""Webhooks: addresses that the server calls with what happens."""

from collections.abc import AsyncIterator
from typing import Literal, Unpack

from tether.client.aio_run import AsyncRunner
from tether.client.exchange import Patience
from tether.client.models import Instant
from tether.client.webhooks import WebhookCalls, WebhookChanges, WebhookMembers
from tether.domain.webhook_views import Webhook, WebhookAttempt, WebhookOutcome


class AsyncWebhooks:
    """The partner's webhooks."""

    def __init__(self, client: AsyncRunner, patience: Patience) -> None:
        self._client = client
        self._calls = WebhookCalls(patience)

    async def create(
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
        return await self._client._run(self._calls.create(url, signature, members))

    async def list(self) -> list[Webhook]:
        """All of them, the oldest first."""
        return await self._client._run(self._calls.list())

    async def get(self, id: str) -> Webhook:
        """The one of this id, with what it has not had yet. Raises NotFound."""
        return await self._client._run(self._calls.get(id))

    async def change(self, id: str, **changes: Unpack[WebhookChanges]) -> Webhook:
        """Changes some members; None gives one its default. Raises NotFound, Invalid."""
        return await self._client._run(self._calls.change(id, changes))

    async def delete(self, id: str) -> None:
        """Deletes it. Raises NotFound."""
        await self._client._run(self._calls.delete(id))

    async def test(self, id: str) -> WebhookOutcome:
        """Sends a test message now and says what came of it. If it succeeds, a webhook that has
        stopped goes on. Raises NotFound.
        """
        return await self._client._run(self._calls.test(id))

    def attempts(
        self, id: str, *, failed: bool = False, page_size: int = 100
    ) -> AsyncIterator[WebhookAttempt]:
        """The last requests that were made, or that `failed`, the newest first. Raises NotFound."""
        return self._client._iterate(self._calls.attempts(id, page_size, failed=failed))

    async def replay(
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
        return await self._client._run(self._calls.replay(id, message_id, failed_since, from_))

    async def rotate_secret(self, id: str, *, overlap: float | None = None) -> Webhook:
        """Gets a new secret, beside which the old one signs for `overlap` seconds: a day unless
        they are given. What this returns has the new one. Raises NotFound, Invalid.
        """
        return await self._client._run(self._calls.rotate_secret(id, overlap))
