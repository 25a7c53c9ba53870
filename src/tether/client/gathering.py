"""Events that many tasks report at once share requests.

A request costs a Python client, and the server, several times what an event costs. So, as the
server does with commits: while some requests are under way the next events gather, and when one has
ended they go together to `/events/bulk`. A lone event is sent at once, by itself, and nobody waits
for others to come.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from tether import model
from tether.client.events import EventCalls
from tether.client.exchange import Script
from tether.model import to_json

UNDER_WAY = 4  # requests: enough that the server has one while others are on their way
LARGE = 4096  # bytes of an event that goes by itself
MOST = 1000  # events in a request
NO_SUCH_PLACE = (404, 405)  # says a server, or what stands before it, that takes no bulk

Run = Callable[[Script[Any]], Awaitable[Any]]


class _Waiting(NamedTuple):
    event: model.Event
    line: bytes
    stored: "asyncio.Future[str]"


class Gathering:
    """The way of single events to the server."""

    def __init__(self, run: Run, calls: EventCalls) -> None:
        self._run = run
        self._calls = calls
        self._under_way = 0
        self._waiting: list[_Waiting] = []
        self._senders: set[asyncio.Task[None]] = set()
        self._takes_bulk = True

    async def post(self, event: model.Event) -> str:
        """The id of the event. Raises what it means that it is not stored."""
        event = self._calls.ready(event)
        if self._takes_bulk and self._under_way >= UNDER_WAY:
            line = to_json(event)
            if len(line) < LARGE:
                waiting = _Waiting(event, line, asyncio.get_running_loop().create_future())
                self._waiting.append(waiting)
                return await waiting.stored
        self._under_way += 1
        try:
            stored: str = await self._run(self._calls.post(event))
        finally:
            self._end_one()
        return stored

    def _end_one(self) -> None:
        """A request has ended: sends what has gathered."""
        self._under_way -= 1
        if self._waiting and self._under_way < UNDER_WAY:
            together, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            self._under_way += 1
            sender = asyncio.create_task(self._send(together))
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)

    async def _send(self, together: list[_Waiting]) -> None:
        fates: list[Any]
        try:
            fates = await self._fates(together)
        except Exception as error:  # a mistake of ours must not leave anybody waiting
            fates = [error] * len(together)
        finally:
            self._end_one()
        for waiting, fate in zip(together, fates, strict=True):
            if waiting.stored.done():  # whoever asked does not wait any more
                continue
            if isinstance(fate, str):
                waiting.stored.set_result(fate)
            else:
                waiting.stored.set_exception(fate)

    async def _fates(self, together: list[_Waiting]) -> list[Any]:
        """Of each event the id, or what it means that it is not stored."""
        if len(together) > 1 and self._takes_bulk:
            lines = [(waiting.event, waiting.line) for waiting in together]
            fates: list[Any] = await self._run(self._calls.together(lines))
            if getattr(fates[0], "status", None) not in NO_SUCH_PLACE:
                return fates
            self._takes_bulk = False
        alone = (self._run(self._calls.post(waiting.event)) for waiting in together)
        return await asyncio.gather(*alone, return_exceptions=True)
