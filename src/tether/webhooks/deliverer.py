"""Delivers to the endpoints of all partners.

Whoever delivers to an endpoint holds its lease, so of several processes one does, and if that one
is killed another goes on when the lease has run out. No request is made within a transaction: what
was reached is written behind, so that after a crash some messages are sent once more, with the ids
that they had.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from secrets import token_hex
from time import monotonic

import structlog

from tether.domain.errors import Unavailable
from tether.domain.webhooks import Endpoint, Message, Outcome, batch_of
from tether.server.metrics import Metrics
from tether.server.store import Store
from tether.server.webhooks import Sender, attempt_of
from tether.webhooks.messages import Messages
from tether.webhooks.progress import LEASE_S, ProgressWriter
from tether.webhooks.worker import EndpointWorker

log = structlog.get_logger()

TICK_S = 0.25
CLAIMED_AT_ONCE = 250
AT_ONCE = 1_000  # endpoints that this process delivers to; one that hangs takes 20 s
COUNTED_S = 10.0
STOP_S = 2.0  # for requests under way when the server stops


class Deliverer:
    """Delivers in this process what nobody else delivers."""

    def __init__(
        self,
        store: Store,
        sender: Sender,
        now_ms: Callable[[], int],
        metrics: Metrics,
        *,
        alone: bool,
    ) -> None:
        """`alone`: no other process delivers, so leases that there are belong to a dead one."""
        self._alone = alone
        self._stored = store.webhooks
        self._messages = Messages(store, now_ms)
        self._sender = sender
        self._now_ms = now_ms
        self._metrics = metrics
        self._progress = ProgressWriter(store.webhooks, token_hex(8))
        self._workers: dict[tuple[int, str], asyncio.Task[None]] = {}
        self._counted_at = 0.0

    async def run(self) -> None:
        """Delivers for ever. Cancelled, it lets the requests under way end, for a moment."""
        try:
            while True:
                try:
                    await self._tick()
                except Unavailable:
                    pass
                except Exception as error:  # must not end it for good
                    log.error("delivering webhooks failed", exc_info=error)
                await asyncio.sleep(TICK_S)
        finally:
            await self._end()

    async def _tick(self) -> None:
        if self._alone:
            await self._stored.release_all()
            self._alone = False
        await self._progress.write()
        if self._workers:
            await self._progress.renew_leases(list(self._workers), self._until_ms())
        if room := min(CLAIMED_AT_ONCE, AT_ONCE - len(self._workers)):
            await self._claim(room)
        if monotonic() - self._counted_at >= COUNTED_S:
            self._counted_at = monotonic()
            self._metrics.webhooks(await self._stored.counts())

    async def _claim(self, room: int) -> None:
        """Begins to deliver where there is something to deliver, and nobody does."""
        now_ms, began = self._now_ms(), monotonic()
        due = [one for one in await self._stored.due(now_ms, room) if one not in self._workers]
        if not due:
            return
        lease = self._progress.lease
        for claimed in await self._stored.claim(lease, due, now_ms, self._until_ms()):
            worker = EndpointWorker(
                self._messages, self._post, self._progress, self._now_ms,
                claimed=claimed, claimed_at=began,
            )  # fmt: skip
            key = claimed.webhook.partner, claimed.webhook.id
            task = self._workers[key] = asyncio.create_task(worker.run())
            task.add_done_callback(lambda _, key=key: self._workers.pop(key))  # type: ignore[misc]

    def _until_ms(self) -> int:
        return self._now_ms() + round(LEASE_S * 1000)

    async def _post(self, webhook: Endpoint, messages: Sequence[Message]) -> Outcome:
        message = messages[0] if len(messages) == 1 else batch_of(messages, self._now_ms())
        outcome = await self._sender.send(webhook, message)
        self._metrics.webhook_attempted(succeeded=not outcome.error)
        self._progress.add_attempt(attempt_of(webhook, message, outcome, len(messages)))
        return outcome

    async def _end(self) -> None:
        tasks = list(self._workers.values())
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(Unavailable):  # then the leases run out
            await self._progress.write()
