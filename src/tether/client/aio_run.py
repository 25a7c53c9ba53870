"""What runs the scripts of the SDK, and what follows a list without end."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Generic, TypeVar

from tether.client.awaiting import Stop, sleep, wait
from tether.client.entities import Pages
from tether.client.exchange import Answer, Lost, Patience, Request, Script, ask
from tether.client.following import Follower
from tether.client.models import Event, Withdrawal
from tether.domain.views import Session

if TYPE_CHECKING:
    from tether.client.awaiting import Http

T = TypeVar("T")
M = TypeVar("M")
F = TypeVar("F", Event, Session, Withdrawal)


class AsyncRunner:
    """Does what the scripts of the SDK say."""

    _http: "Http"
    _patience: Patience

    async def _run(self, script: Script[T]) -> T:
        """Does what a script of the SDK says."""
        self._http.check()
        outcome: Answer | Lost | None = None
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
        patience: Patience | None = None,
    ) -> T:
        """The body of the answer to one request."""
        request = Request(method, target, body)
        return await self._run(ask(kind, request, patience or self._patience, status))

    async def _iterate(self, pages: Pages[M]) -> AsyncIterator[M]:
        """The entries of all pages."""
        while pages.more:
            for entry in await self._run(pages.next()):
                yield entry


class AsyncFollowing(AsyncIterator[F], Generic[F]):
    """An endless iterator. Its `cursor` is the place after the last entry that it gave."""

    def __init__(self, client: AsyncRunner, follower: Follower[F], stop: Stop) -> None:
        self._client = client
        self._follower: Follower[F] = follower
        self._stop = stop

    @property
    def cursor(self) -> str:
        """The place after the last entry, for `follow` or `changes`."""
        return self._follower.cursor

    async def __anext__(self) -> F:
        while not self._stop.is_set():
            entry = self._follower.take()
            if entry is not None:
                return entry
            if seconds := await self._client._run(self._follower.fetch()):
                await wait(self._stop, seconds)
        raise StopAsyncIteration
