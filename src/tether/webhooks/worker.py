"""Sends the messages of one endpoint: in order, one request at a time.

A message that fails delays those behind it. After four tries the next message is tried, too. If
that succeeds, the fault is in the first message: it is parked, and tried apart from the queue.
Otherwise the fault is in the endpoint.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any, TypeAlias

import msgspec
import structlog

from tether.domain.errors import Unavailable
from tether.domain.webhooks import (
    MAX_BODY_BYTES,
    RETRY_AFTER_S,
    STOPS_AFTER_MS,
    TRIES_BEFORE_PARKING,
    Endpoint,
    Message,
    Outcome,
    Status,
    is_last_try,
    pause_s,
    warning_of,
)
from tether.storage.webhooks import MAX_PARKED, Parked
from tether.webhooks.messages import Messages, Step
from tether.webhooks.progress import LEASE_S, ProgressWriter

log = structlog.get_logger()

SLICE_S = 4.0  # for an endpoint, before another process may have it
REPORT_S = 0.5  # between two reports of the position
PARKED_AT_ONCE = 20
AFTER_BUG_MS = 60_000
_SLOW_DOWN = (429, 503)  # statuses by which an endpoint asks for fewer requests

Post: TypeAlias = Callable[[Endpoint, Sequence[Message]], Awaitable[Outcome]]
"""Sends these messages to the endpoint in one request."""


class LeaseLost(Exception):
    """Another process may deliver to the endpoint, or its owner has changed or deleted it."""


class EndpointWorker:
    """Sends to an endpoint under its lease, for a slice of time."""

    def __init__(
        self, messages: Messages, post: Post, progress: ProgressWriter, now_ms: Callable[[], int],
        *, claimed: Endpoint, claimed_at: float,
    ) -> None:  # fmt: skip
        """`claimed_at` is the time by `monotonic` just before the lease was claimed."""
        self._messages = messages
        self._post = post
        self._progress = progress
        self._now_ms = now_ms
        self._claimed = claimed
        self._claimed_at = claimed_at
        self._was_changed = False
        # It is changed after each request.
        self._endpoint = replace(claimed, due_ms=now_ms())
        self._next_at = 0.0
        self._reported_at = monotonic()
        self._ends_at = monotonic() + SLICE_S

    def compare(self, fence: int | None) -> None:
        """Takes the stored fence, None if there is no endpoint any more. If it is another one, this
        sends no more requests.
        """
        self._was_changed = fence != self._claimed.fence

    async def run(self) -> None:
        """Sends messages until there are no more, a request fails, or the slice is over."""
        try:
            # In random order, because one of them may use the whole slice each time.
            turns = [self._send_queue, self._send_parked]
            random.shuffle(turns)
            for turn in turns:
                if not self._endpoint.stopped and not self._is_over():
                    await turn()
        except (Unavailable, LeaseLost):
            pass
        except Exception as error:
            self._change(due_ms=self._now_ms() + AFTER_BUG_MS)
            log.error("webhook not delivered", webhook=self._endpoint.id, exc_info=error)
        finally:
            pause_ms = round(1000 * (self._next_at - monotonic()))  # until the next request
            self._change(due_ms=max(self._endpoint.due_ms, self._now_ms() + pause_ms))
            self._report(lease_ms=0)

    async def _send_queue(self) -> None:
        """Sends the messages of the queue, in order."""
        steps = deque[Step]()
        while steps or not self._is_over():
            if not steps:
                steps.extend(await self._messages.next_steps(self._endpoint))
                if not steps:
                    return
            if (message := steps[0].message) is None:
                self._advance(steps.popleft())
            elif not await self._send_first(steps, message) or self._is_over():
                return

    def _is_over(self) -> bool:
        """Whether the next request would come after the end of the slice."""
        return max(self._next_at, monotonic()) > self._ends_at

    async def _send_first(self, steps: deque[Step], first: Message) -> bool:
        """Sends the first message, or as many as fit into one request. Returns whether to continue
        with the next ones.
        """
        batch = self._batch(steps)
        outcome = await self._send([step.message for step in batch if step.message])
        if not outcome.error:
            for _ in batch:
                self._advance(steps.popleft())
            self._succeeded()
            return True
        self._failed(first.id, outcome)
        endpoint = self._endpoint
        if (
            endpoint.stopped
            or outcome.status in _SLOW_DOWN
            or endpoint.tries < TRIES_BEFORE_PARKING
        ):
            return False
        return await self._try_next(steps, first)

    def _batch(self, steps: Iterable[Step]) -> list[Step]:
        """The steps of one request. A message that has failed is sent alone."""
        batch: list[Step] = []
        most = 1 if self._endpoint.tries else self._endpoint.max_batch
        size, messages = 50, 0
        for step in steps:
            if step.message is not None:
                size += len(step.message.body) + 80
                messages += 1
                if batch and (messages > most or size > MAX_BODY_BYTES):
                    break
            batch.append(step)
        return batch

    async def _try_next(self, steps: deque[Step], failed: Message) -> bool:
        """Sends the message behind the failed one. If that succeeds, parks the failed one. Returns
        whether to continue.
        """
        following = next((step for step in [*steps][1:] if step.message), None)
        if following is None or self._endpoint.parked >= MAX_PARKED:
            return False
        assert following.message is not None
        outcome = await self._send([following.message])
        if outcome.error:
            return False
        endpoint, now_ms = self._endpoint, self._now_ms()
        self._progress.park(
            Parked(endpoint.partner, endpoint.id, failed.id, endpoint.tries,
                   now_ms + _wait_ms(endpoint.tries, outcome), now_ms)
        )  # fmt: skip
        self._change(parked=endpoint.parked + 1)
        while (step := steps.popleft()) is not following:
            self._advance(step)
        self._advance(following)
        self._succeeded()
        return True

    async def _send_parked(self) -> None:
        """Sends the parked messages that are due."""
        for parked in await self._messages.parked_due(self._endpoint, PARKED_AT_ONCE):
            message = await self._messages.of_id(self._endpoint, parked.id)
            if message is None:
                self._progress.unpark(parked)
                continue
            outcome = await self._send([message])
            if not outcome.error:
                self._progress.unpark(parked)
            else:
                tries = parked.tries + 1
                due_ms = None if is_last_try(tries) else self._now_ms() + _wait_ms(tries, outcome)
                self._progress.park(msgspec.structs.replace(parked, tries=tries, due_ms=due_ms))
                if outcome.status in _SLOW_DOWN or self._endpoint.stopped:
                    return
            if self._is_over():
                return

    async def _send(self, messages: list[Message]) -> Outcome:
        """Sends one request, at the rate that the endpoint allows. Raises LeaseLost."""
        wait_s = self._next_at - monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        if self._was_changed or not self._progress.has_lease(self._claimed_at):
            raise LeaseLost
        if self._endpoint.rate_mhz:
            self._next_at = monotonic() + 1000 / self._endpoint.rate_mhz
        outcome = await self._post(self._endpoint, messages)
        if outcome.status == 410:
            self._change(stopped=Status.GONE)
        return outcome

    def _succeeded(self) -> None:
        if self._endpoint.failing_since_ms is not None:
            log.info("webhook works again", webhook=self._endpoint.id)
        now_ms = self._now_ms()
        self._change(head="", tries=0, failing_since_ms=None, success_ms=now_ms, due_ms=now_ms)

    def _failed(self, message_id: str, outcome: Outcome) -> None:
        """Makes the queue wait, or stops the endpoint."""
        now_ms, tries = self._now_ms(), self._endpoint.tries + 1
        since_ms = self._endpoint.failing_since_ms or now_ms
        # Few tries in this time are of a server that was down, or of a clock that was wrong.
        stops_ms = since_ms + STOPS_AFTER_MS
        is_over = now_ms >= stops_ms and is_last_try(tries)
        stopped = self._endpoint.stopped or (Status.STOPPED if is_over else "")
        due_ms = now_ms + _wait_ms(tries, outcome)
        if now_ms < stops_ms:
            due_ms = min(due_ms, stops_ms)
        self._change(
            head=message_id, tries=tries, due_ms=due_ms, failing_since_ms=since_ms, stopped=stopped
        )
        about = {"webhook": self._endpoint.id, "reason": outcome.error}
        warning, before_ms = warning_of(since_ms, now_ms), self._claimed.due_ms
        if stopped:
            log.warning("webhook stopped", **about)
        elif warning != warning_of(since_ms, before_ms):
            log.warning("webhook fails", per_cent=warning, **about)

    def _change(self, **fields: Any) -> None:
        self._endpoint = replace(self._endpoint, **fields)

    def _advance(self, step: Step) -> None:
        self._change(position=step.advance(self._endpoint.position))
        if monotonic() - self._reported_at > REPORT_S:
            self._report(lease_ms=self._now_ms() + round(LEASE_S * 1000))

    def _report(self, *, lease_ms: int) -> None:
        self._reported_at = monotonic()
        self._progress.add(replace(self._endpoint, lease_ms=lease_ms))


def _wait_ms(tries: int, outcome: Outcome) -> int:
    """How long to wait after so many tries; `outcome` is the result of the last one."""
    wait_s = pause_s(tries, random.random())  # noqa: S311
    if outcome.status in _SLOW_DOWN and outcome.retry_after_s is not None:
        lowest, highest = RETRY_AFTER_S
        wait_s = min(max(outcome.retry_after_s, lowest), highest)
    return round(wait_s * 1000)
