"""Answers that last until the client leaves: their number, and whether the client is there."""

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from falcon.asgi import Request

from tether.domain.errors import TooManyAtOnce, Unavailable
from tether.projections.change_feed import Listener
from tether.server.metrics import Metrics
from tether.server.store import Store

RETRY_AFTER_S = 15


async def wait_for_disconnect(req: Request, listener: Listener | None = None) -> None:
    """Returns when the client has disconnected. Then the listener gets news."""
    while (await req._receive())["type"] != "http.disconnect":
        pass
    if listener is not None:
        listener.news.set()


class EventStreams:
    """The streams of this process, with a limit for each partner."""

    def __init__(self, store: Store, limit: int, metrics: Metrics | None = None) -> None:
        self._store = store
        self._limit = limit
        self._metrics = metrics
        self._open: Counter[int] = Counter()

    def check_room(self, partner: int) -> None:
        """Raises TooManyAtOnce, and Unavailable if the server stops."""
        if self._store.feed.closed:
            raise Unavailable(why="The server is about to stop.")
        if self._open[partner] >= self._limit:
            raise TooManyAtOnce(RETRY_AFTER_S)

    def body(self, partner: int, parts: AsyncGenerator[str]) -> "StreamBody":
        """The body of a stream with these parts. It is counted while it is sent."""
        return StreamBody(self._counted(partner, parts))

    async def _counted(self, partner: int, parts: AsyncGenerator[str]) -> AsyncGenerator[bytes]:
        self._count(partner, +1)
        try:
            async with aclosing(parts):
                async for part in parts:
                    yield part.encode()
        finally:
            self._count(partner, -1)

    def _count(self, partner: int, change: int) -> None:
        self._open[partner] += change
        if not self._open[partner]:
            del self._open[partner]
        if self._metrics:
            self._metrics.open_streams.inc(change)


class StreamBody(AsyncIterator[bytes]):
    """The body for Falcon, which calls `close` at the end of the answer, also after an error."""

    def __init__(self, parts: AsyncGenerator[bytes]) -> None:
        self._parts = parts

    async def __anext__(self) -> bytes:
        return await anext(self._parts)

    async def close(self) -> None:
        await self._parts.aclose()
