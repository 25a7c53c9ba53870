"""Delivers to the endpoints of all partners.

A process delivers to an endpoint while it holds its lease. So only one of several processes does,
and if it is killed, another one continues when the lease has expired. No transaction is open during
a request: progress is written afterwards. So after a crash some messages are sent again, with the
same ids.
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
MAX_WORKERS = 1_000  # one worker for each endpoint; one whose endpoint hangs takes 20 s
COUNTED_S = 10.0
STOP_S = 2.0  # for requests under way when the server stops


class Deliverer:
    """Delivers to the endpoints whose leases this process can claim."""

    def __init__(
        self,
        store: Store,
        sender: Sender,
        now_ms: Callable[[], int],
        metrics: Metrics,
        *,
        alone: bool,
    ) -> None:
        """`alone`: no other process delivers. So all stored leases are of dead processes."""
        self._alone = alone
        self._stored = store.webhooks
        self._messages = Messages(store, now_ms)
        self._sender = sender
        self._now_ms = now_ms
        self._metrics = metrics
        self._progress = ProgressWriter(store.webhooks, token_hex(8))
        self._workers: dict[tuple[int, str], tuple[EndpointWorker, asyncio.Task[None]]] = {}
        self._counted_at = 0.0

    async def run(self) -> None:
        """Delivers for ever. When it is cancelled, it waits a moment for requests under way."""
        try:
            while True:
                try:
                    await self._tick()
                except Unavailable:
                    pass
                except Exception as error:  # it must not end the delivery for good
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
            await self._progress.renew_leases(list(self._workers), self._lease_end_ms())
            await self._compare_fences()
        if most := min(CLAIMED_AT_ONCE, MAX_WORKERS - len(self._workers)):
            await self._claim(most)
        if monotonic() - self._counted_at >= COUNTED_S:
            self._counted_at = monotonic()
            self._metrics.webhooks(await self._stored.counts())

    async def _compare_fences(self) -> None:
        """Tells the workers whose endpoints were changed or deleted."""
        workers = {key: worker for key, (worker, _) in self._workers.items()}
        fences = await self._stored.fences(self._progress.lease, workers)
        for key, worker in workers.items():
            worker.compare(fences.get(key))

    async def _claim(self, most: int) -> None:
        """Starts workers for endpoints that are due and free."""
        now_ms, began = self._now_ms(), monotonic()
        due = [
            key for key in await self._stored.due(now_ms, most)
            # A lease expires early if the clock is set forward, or the database is slow.
            if key not in self._workers and self._progress.is_written(key)
        ]  # fmt: skip
        if not due:
            return
        lease = self._progress.lease
        for claimed in await self._stored.claim(lease, due, now_ms, self._lease_end_ms()):
            worker = EndpointWorker(
                self._messages, self._post, self._progress, self._now_ms,
                claimed=claimed, claimed_at=began,
            )  # fmt: skip
            key = claimed.partner, claimed.id
            task = asyncio.create_task(worker.run())
            self._workers[key] = worker, task
            task.add_done_callback(lambda _, key=key: self._workers.pop(key))  # type: ignore[misc]

    def _lease_end_ms(self) -> int:
        return self._now_ms() + round(LEASE_S * 1000)

    async def _post(self, endpoint: Endpoint, messages: Sequence[Message]) -> Outcome:
        message = messages[0] if len(messages) == 1 else batch_of(messages, self._now_ms())
        outcome = await self._sender.send(endpoint, message)
        self._metrics.webhook_attempted(succeeded=not outcome.error)
        self._progress.add_attempt(attempt_of(endpoint, message, outcome, len(messages)))
        return outcome

    async def _end(self) -> None:
        tasks = [task for _, task in self._workers.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(Unavailable):  # the leases expire anyway
            await self._progress.write()
