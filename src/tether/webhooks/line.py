"""An endpoint while messages are sent to it: in order, one request at a time.

A message that fails holds up those behind it. After four tries the next one is tried, too: if that
passes, the message itself is at fault and goes beside the line; if not, the endpoint is.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from time import monotonic
from typing import NamedTuple, TypeAlias

import structlog

from tether.domain.errors import Unavailable
from tether.domain.webhooks import (
    MOST_BODY_BYTES,
    RETRY_AFTER_S,
    STOPS_AFTER_MS,
    TRIES_BEFORE_PARKING,
    Endpoint,
    Message,
    Place,
    Status,
    is_last_try,
    pause_s,
    warning_of,
)
from tether.server.webhooks import Outcome
from tether.storage.webhook_rows import Parked
from tether.storage.webhooks import MOST_PARKED, Claimed, Progress
from tether.webhooks.ledger import LEASE_S, Ledger
from tether.webhooks.messages import Entry, Messages

log = structlog.get_logger()

SLICE_S = 4.0  # for an endpoint, before another process may have it
TOLD_S = 0.5  # between two notes of how far it is
PARKED_AT_ONCE = 20
AFTER_MISTAKE_MS = 60_000
_SLOWED = (429, 503)  # answers of an endpoint that wants less

Post: TypeAlias = Callable[[Endpoint, Sequence[Message]], Awaitable[Outcome]]
"""Sends these messages to the endpoint as one request."""


class _Step(NamedTuple):
    """One message of an entry, or none, and how the place moves on behind it."""

    message: Message | None
    behind: Callable[[Place], Place]


class Line:
    """An endpoint while messages are sent to it, one request at a time."""

    def __init__(
        self, messages: Messages, post: Post, ledger: Ledger, now_ms: Callable[[], int],
        *, claimed: Claimed, since: float,
    ) -> None:  # fmt: skip
        self._messages = messages
        self._post = post
        self._ledger = ledger
        self._now_ms = now_ms
        self._webhook = claimed.webhook
        self._fence = claimed.fence
        self._since = since
        webhook = claimed.webhook
        self._place, self._parked = webhook.place, webhook.parked
        self._head, self._tries = webhook.head, webhook.tries
        self._due_ms = now_ms()
        self._failing_since_ms = webhook.failing_since_ms
        self._stopped = webhook.stopped
        self._success_ms = webhook.success_ms
        self._next_at = 0.0
        self._told_at = monotonic()

    async def run(self) -> None:
        """Sends what follows, until there is no more, something fails or others want to."""
        try:
            until = monotonic() + SLICE_S
            # By lot, as one that takes the whole time must not keep the other from its turn.
            turns = [self._send_line, self._send_parked]
            random.shuffle(turns)
            for turn in turns:
                if not self._stopped and not self._is_over(until):
                    await turn(until)
        except Unavailable:
            pass
        except Exception as error:
            self._due_ms = self._now_ms() + AFTER_MISTAKE_MS
            log.error("webhook not delivered", webhook=self._webhook.id, exc_info=error)
        finally:
            pause_ms = round(1000 * (self._next_at - monotonic()))  # what is left of it
            self._due_ms = max(self._due_ms, self._now_ms() + pause_ms)
            self._tell(lease_ms=0)

    async def _send_line(self, until: float) -> None:
        while not self._is_over(until) and await self._portion(until):
            pass

    async def _portion(self, until: float) -> bool:
        """Sends the next portion; whether there may be more, and it is to be sent now."""
        entries = await self._messages.following(self._webhook, self._place)
        steps = deque(_steps(entries))
        while steps:
            if (message := steps[0].message) is None:
                self._pass(steps.popleft())
            elif not await self._send_first(steps, message) or self._is_over(until):
                return False
        return bool(entries)

    def _is_over(self, until: float) -> bool:
        """Whether the next request would come after the end of the turn."""
        return max(self._next_at, monotonic()) > until

    async def _send_first(self, steps: deque[_Step], first: Message) -> bool:
        """Sends the first message, or as many as one request takes; whether it goes on."""
        if not self._ledger.holds(self._since):
            return False
        sent = self._batch(steps)
        outcome = await self._send([step.message for step in sent if step.message])
        if not outcome.error:
            for _ in sent:
                self._pass(steps.popleft())
            self._succeeded()
            return True
        self._failed(first.id, outcome)
        if self._stopped or outcome.status in _SLOWED or self._tries < TRIES_BEFORE_PARKING:
            return False
        return await self._try_next(steps, first)

    def _batch(self, steps: Iterable[_Step]) -> list[_Step]:
        """The steps of one request: of what has failed there is one."""
        sent: list[_Step] = []
        size, messages = 50, 0
        for step in steps:
            if step.message is not None:
                size += len(step.message.body) + 80
                messages += 1
                too_many = messages > (1 if self._tries else self._webhook.max_batch)
                if sent and (too_many or size > MOST_BODY_BYTES):
                    break
            sent.append(step)
        return sent

    async def _try_next(self, steps: deque[_Step], failed: Message) -> bool:
        """Whether another message passes: then the one that failed goes beside the line."""
        beyond = [step for step in [*steps][1:] if step.message]
        if not beyond or self._parked >= MOST_PARKED:
            return False
        following = beyond[0].message
        assert following is not None
        outcome = await self._send([following])
        if outcome.error:
            return False
        now_ms = self._now_ms()
        due_ms = now_ms + _wait_ms(self._tries, outcome)
        self._parked += 1
        self._ledger.park(Parked(
            self._webhook.partner, self._webhook.id, failed.id, self._tries, due_ms, now_ms,
        ))  # fmt: skip
        while True:
            step = steps.popleft()
            self._pass(step)
            if step is beyond[0]:
                break
        self._succeeded()
        return True

    async def _send_parked(self, until: float) -> None:
        """Sends the messages beside the line whose turn it is."""
        webhook = self._webhook
        due = await self._messages.parked_due(webhook, PARKED_AT_ONCE)
        for parked in due:
            if not self._ledger.holds(self._since):
                return
            message = await self._messages.of_id(webhook, parked.id)
            if message is None:  # it is gone, or there is a newer one in the line
                self._ledger.unpark(parked)
                continue
            outcome = await self._send([message])
            if not outcome.error:
                self._ledger.unpark(parked)
            else:
                tries = parked.tries + 1
                due_ms = None if is_last_try(tries) else self._now_ms() + _wait_ms(tries, outcome)
                self._ledger.park(Parked(
                    parked.partner, parked.webhook, parked.id, tries, due_ms, parked.since_ms
                ))  # fmt: skip
                if outcome.status == 410:
                    self._stopped = Status.GONE
                if outcome.status in _SLOWED or self._stopped:
                    return
            if self._is_over(until):
                return

    async def _send(self, messages: list[Message]) -> Outcome:
        """One request, not sooner than the endpoint wants it."""
        wait_s = self._next_at - monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        if self._webhook.rate_mhz:
            self._next_at = monotonic() + 1000 / self._webhook.rate_mhz
        return await self._post(self._webhook, messages)

    def _pass(self, step: _Step) -> None:
        self._place = step.behind(self._place)
        if monotonic() - self._told_at > TOLD_S:
            self._tell(lease_ms=self._now_ms() + round(LEASE_S * 1000))

    def _succeeded(self) -> None:
        if self._failing_since_ms is not None:
            log.info("webhook works again", webhook=self._webhook.id)
        self._head, self._tries, self._failing_since_ms = "", 0, None
        self._success_ms = self._due_ms = self._now_ms()

    def _failed(self, message_id: str, outcome: Outcome) -> None:
        """The line waits, or ends."""
        now_ms = self._now_ms()
        self._head, self._tries = message_id, self._tries + 1
        since_ms = self._failing_since_ms = self._failing_since_ms or now_ms
        wait_ms = _wait_ms(self._tries, outcome)
        self._due_ms = min(now_ms + wait_ms, since_ms + STOPS_AFTER_MS)
        if outcome.status == 410:
            self._stopped = Status.GONE
        elif now_ms >= since_ms + STOPS_AFTER_MS:
            self._stopped = Status.STOPPED
        told = {"webhook": self._webhook.id, "reason": outcome.error}
        if self._stopped:
            log.warning("webhook stopped", **told)
        elif (share := warning_of(since_ms, now_ms)) != warning_of(since_ms, self._webhook.due_ms):
            log.warning("webhook fails", per_cent=share, **told)

    def _tell(self, *, lease_ms: int) -> None:
        self._told_at = monotonic()
        webhook, place = self._webhook, self._place
        self._ledger.reached(Progress(
            webhook.partner, webhook.id, self._fence, place.seq, place.session_ms,
            place.session_id, " ".join(place.passed), place.told_ms, self._head, self._tries,
            self._due_ms, self._failing_since_ms, self._stopped, self._success_ms, lease_ms,
        ))  # fmt: skip


def _wait_ms(tries: int, outcome: Outcome) -> int:
    """How long to wait after so many tries, the last of which came to this."""
    wait_s = pause_s(tries, random.random())  # noqa: S311
    if outcome.status in _SLOWED and outcome.retry_after_s is not None:
        lowest, highest = RETRY_AFTER_S
        wait_s = min(max(outcome.retry_after_s, lowest), highest)
    return round(wait_s * 1000)


def _steps(entries: Iterable[Entry]) -> Iterable[_Step]:
    """The messages of the entries, one after the other. Only behind the last of an entry is the
    place behind it; until then it remembers those that were sent.
    """
    for messages, behind in entries:
        for message in messages[:-1]:
            yield _Step(message, _remembering(message.id))
        yield _Step(messages[-1] if messages else None, behind)


def _remembering(id: str) -> Callable[[Place], Place]:
    return lambda place: place._replace(passed=(*place.passed, id))
