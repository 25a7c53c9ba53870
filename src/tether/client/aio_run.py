"""Runs the scripts of the SDK; the endless iterators of `follow`, `changes` and `stream`."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tether.client.awaiting import Stop, sleep, wait
from tether.client.exchange import Answer, NoAnswer, Request, RetryPolicy, Script, ask, with_query
from tether.client.following import Follower
from tether.client.forks import leave_to_parent, reset_after_fork
from tether.client.models import Event, Withdrawal
from tether.client.pagination import Pages
from tether.client.streaming import Interrupted, Message, Subscription
from tether.domain.views import Session

if TYPE_CHECKING:
    from tether.client.awaiting import Http

T = TypeVar("T")
M = TypeVar("M")
F = TypeVar("F", Event, Session, Withdrawal)


class AsyncRunner:
    """Runs scripts: sends their requests and waits."""

    _http: "Http"
    _policy: RetryPolicy

    async def _run(self, script: Script[T]) -> T:
        """Runs a script; its result."""
        self._http.check()
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
        """The body of the answer to one request."""
        request = Request(method, target, body)
        return await self._run(ask(kind, request, policy or self._policy, status))

    async def _get(self, kind: type[T], target: str, /, **query: Any) -> T:
        """The body of the answer to a GET with these parameters."""
        return await self._ask(kind, "GET", with_query(target, **query))

    def _list(self, kind: type[M], target: str, /, **query: Any) -> AsyncIterator[M]:
        """The entries of all pages of a list with these parameters."""
        return self._iterate(Pages(kind, self._policy, target, **query))

    async def _iterate(self, pages: Pages[M]) -> AsyncIterator[M]:
        """The entries of all pages."""
        while pages.more:
            for entry in await self._run(pages.next()):
                yield entry


class AsyncFollowing(AsyncIterator[F], Generic[F]):
    """An endless iterator. Its `cursor` is the position after the last entry that it gave."""

    def __init__(self, client: AsyncRunner, follower: Follower[F], stop: Stop) -> None:
        self._client = client
        self._follower: Follower[F] = follower
        self._stop = stop

    @property
    def cursor(self) -> str:
        """The cursor after the last entry, for `follow` or `changes`."""
        return self._follower.cursor

    async def __anext__(self) -> F:
        while not self._stop.is_set():
            entry = self._follower.take()
            if entry is not None:
                return entry
            if seconds := await self._client._run(self._follower.fetch()):
                await wait(self._stop, seconds)
        raise StopAsyncIteration


class AsyncStream(AsyncIterator[Message]):
    """An endless iterator of events and states. `cursor` is the position after the last one.

    It raises errors that waiting cannot mend, such as Forbidden for a revoked key. A task that
    waits for the next message may be cancelled: no message is lost.
    """

    def __init__(self, http: "Http", subscription: Subscription) -> None:
        self._http = http
        self._subscription = subscription
        self._messages: AsyncGenerator[Message | None] | None = None
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        """The connection belongs to the parent: the child makes its own, at the same cursor."""
        leave_to_parent(self._messages)
        self._messages = None

    @property
    def cursor(self) -> str | None:
        """The cursor after the last message, for `stream`; None before it is connected."""
        return self._subscription.cursor

    @property
    def interrupted(self) -> bool:
        """Whether it has no connection, and tries again by itself."""
        return self._subscription.in_outage

    async def __aenter__(self) -> "AsyncStream":
        await self._next()  # the server first sends the cursor
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def __anext__(self) -> Message:
        while True:
            message = await self._next()
            if message is not None:
                return message

    async def close(self) -> None:
        """Closes the connection. Reading on makes a new one."""
        if self._messages is not None:
            await self._messages.aclose()
            self._messages = None

    async def _next(self) -> Message | None:
        if self._messages is None:
            self._messages = self._run()
        try:
            return await anext(self._messages)
        except BaseException:  # the connection is gone, but not the cursor
            self._messages = None
            raise

    async def _run(self) -> AsyncGenerator[Message | None]:
        subscription = self._subscription
        while True:
            try:
                async with self._http.open(subscription.request()) as opened:
                    if isinstance(opened, Answer):
                        seconds = subscription.refused(opened)
                    else:
                        subscription.check(opened.headers)
                        async for data in opened.body:
                            for message in subscription.received(data):
                                yield message
                        seconds = subscription.ended()
            except Interrupted as error:
                seconds = subscription.interrupted(error.no_answer)
            await sleep(seconds)
