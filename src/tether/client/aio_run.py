"""Runs the scripts of the SDK; has the endless iterators of `follow`, `changes` and `stream`."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Generic, TypeVar

from tether.client.async_http import Http, Stop, sleep, wait
from tether.client.conversion import query_of
from tether.client.exchange import (
    Answer,
    NoAnswer,
    Request,
    RetryPolicy,
    Script,
    exchange,
    read,
    with_query,
)
from tether.client.following import Follower
from tether.client.forks import leave_to_parent, reset_after_fork
from tether.client.models import Event, Withdrawal
from tether.client.pagination import Pages
from tether.client.streaming import Interrupted, Message, Subscription
from tether.domain.views import Session

T = TypeVar("T")
M = TypeVar("M")
F = TypeVar("F", Event, Session, Withdrawal)


class AsyncRunner:
    """Runs scripts: sends their requests and waits. The client and its parts are runners."""

    def __init__(self, http: Http, policy: RetryPolicy) -> None:
        self._http = http
        self._policy = policy

    async def _run(self, script: Script[T]) -> T:
        """Runs a script and returns its result."""
        outcome: Answer | NoAnswer | None = None
        while True:
            try:
                step = script.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(step, Request):
                outcome = await self._http.send(step)
            else:
                outcome = None
                await sleep(step.seconds)

    async def _ask(
        self,
        kind: type[T],
        method: str,
        target: str,
        body: bytes | None = None,
        *,
        status: int = 200,
        policy: RetryPolicy | None = None,
    ) -> T:
        """Sends one request and returns the body of the answer."""
        request = Request(method, target, body)
        answer = await self._run(exchange(request, policy or self._policy, status))
        return read(kind, answer, request)

    async def _get(self, kind: type[T], target: str, /, **members: Any) -> T:
        """The body of the answer to a GET with these parameters. Raises Invalid."""
        return await self._ask(kind, "GET", with_query(target, **query_of(members)))

    def _list(self, kind: type[M], target: str, /, **members: Any) -> AsyncIterator[M]:
        """The entries of all pages of a list with these parameters. Raises Invalid."""
        return self._iterate(Pages(kind, self._policy, target, **query_of(members)))

    async def _iterate(self, pages: Pages[M]) -> AsyncIterator[M]:
        """The entries of all pages."""
        while pages.more:
            for entry in await self._run(pages.next()):
                yield entry


class AsyncFollowing(AsyncIterator[F], Generic[F]):
    """An endless iterator. Its `cursor` is the position after the last entry."""

    def __init__(self, runner: AsyncRunner, follower: Follower[F], stop: Stop | None) -> None:
        self._runner = runner
        self._follower: Follower[F] = follower
        self._stop = stop or Stop()

    @property
    def cursor(self) -> str:
        """The cursor after the last entry, for `follow` or `changes`."""
        return self._follower.cursor

    async def __anext__(self) -> F:
        while not self._stop.is_set():
            entry = self._follower.take()
            if entry is not None:
                return entry
            if seconds := await self._runner._run(self._follower.fetch()):
                await wait(self._stop, seconds)
        raise StopAsyncIteration


class AsyncStream(AsyncIterator[Message]):
    """An endless iterator of events and states. `cursor` is the position after the last one.

    It raises errors that do not pass, such as Forbidden for a revoked key. A task that waits for
    the next message may be cancelled: no message is lost.
    """

    def __init__(self, http: Http, subscription: Subscription) -> None:
        self._http = http
        self._subscription = subscription
        self._messages: AsyncGenerator[Message | None] | None = None
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        """The parent keeps the connection. The child opens its own, at the same cursor."""
        leave_to_parent(self._messages)
        self._messages = None

    @property
    def cursor(self) -> str | None:
        """The cursor after the last message, for `stream`; None before it is connected."""
        return self._subscription.cursor

    @property
    def interrupted(self) -> bool:
        """Whether it has no connection and is trying to connect again."""
        return self._subscription.in_outage

    async def __aenter__(self) -> "AsyncStream":
        await self._next()  # the server sends the cursor first
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def __anext__(self) -> Message:
        while True:
            message = await self._next()
            if message is not None:
                return message

    async def close(self) -> None:
        """Closes the connection. The next read opens a new one."""
        if self._messages is not None:
            await self._messages.aclose()
            self._messages = None

    async def _next(self) -> Message | None:
        if self._messages is None:
            self._messages = self._run()
        try:
            return await anext(self._messages)
        except BaseException:  # the connection is lost; the cursor is kept
            self._messages = None
            raise

    async def _run(self) -> AsyncGenerator[Message | None]:
        subscription = self._subscription
        while True:
            try:
                async with self._http.open(subscription.request()) as (answer, body):
                    if answer.status != 200:
                        seconds = subscription.refused(answer)
                    else:
                        subscription.check(answer.headers)
                        async for data in body:
                            for message in subscription.received(data):
                                yield message
                        seconds = subscription.ended()
            except Interrupted as error:
                seconds = subscription.interrupted(error.no_answer)
            await sleep(seconds)
