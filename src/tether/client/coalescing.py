"""Events that many tasks report at once share requests.

A request costs a Python client, and the server, several times what an event costs. So, as the
server does with commits: while some requests are under way the next events wait, and when one has
ended they go together to `/events/bulk`. A lone event is sent at once, by itself, and nobody waits
for others to come.

Only single tries are shared. What an answer means, when to try again and when to give up is each
task's own affair, as if its event had gone alone; and what waits for a better time holds up nobody.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeAlias

import msgspec

from tether.client.bulk import bulk_request
from tether.client.exchange import AGAIN_LATER, UNREADABLE, Answer, Lost, Request
from tether.client.forks import anew_in_children

UNDER_WAY = 4  # requests: enough that the server has one while others are on their way
LARGE = 4096  # bytes of an event that goes by itself
MOST = 1000  # events in a request
NO_SUCH_PLACE = (404, 405)  # says a server, or what stands before it, that takes no bulk

Send = Callable[[Request], Awaitable[Answer | Lost]]
Outcomes: TypeAlias = "Sequence[Answer | Lost | None]"  # None for what has to go by itself
Sender: TypeAlias = "asyncio.Task[Outcomes]"


class _Waiting(NamedTuple):
    request: Request
    outcome: "asyncio.Future[Answer | Lost | None]"


class _Item(msgspec.Struct):
    status: int


class RequestCoalescer:
    """The way of single events to the server: sends a `POST /events`, or several as one."""

    def __init__(self, send: Send) -> None:
        self._send_alone = send
        self._takes_bulk = True
        self.forked()
        anew_in_children(self)

    def forked(self) -> None:
        """Nothing is under way in a new process, and nobody waits."""
        self._under_way = 0
        self._waiting: list[_Waiting] = []
        self._senders: set[Sender] = set()

    async def send(self, request: Request) -> Answer | Lost:
        """Sends it once; what came of it."""
        if self._under_way >= UNDER_WAY and self._takes_bulk and len(request.body or b"") < LARGE:
            waiting = _Waiting(request, asyncio.get_running_loop().create_future())
            self._waiting.append(waiting)
            return await waiting.outcome or await self._send_alone(request)
        self._under_way += 1
        try:
            return await self._send_alone(request)
        finally:
            self._end_one()

    def _end_one(self) -> None:
        """A request has ended: sends what waits, but for what nobody wants any more."""
        self._under_way -= 1
        if self._under_way >= UNDER_WAY:
            return
        wanted = [waiting for waiting in self._waiting if not waiting.outcome.done()]
        together, self._waiting = wanted[:MOST], wanted[MOST:]
        if together:
            requests = [waiting.request for waiting in together]
            sender = asyncio.create_task(self._outcomes(requests))
            self._under_way += 1
            self._senders.add(sender)
            sender.add_done_callback(partial(self._settle, together))

    def _settle(self, together: list[_Waiting], sender: Sender) -> None:
        """Tells each what came of it. Not a part of the task, which may be cancelled any time."""
        self._senders.discard(sender)
        outcomes: Outcomes = [None] * len(together)
        if not sender.cancelled() and not sender.exception():  # else, each will see by itself
            outcomes = sender.result()
        for waiting, outcome in zip(together, outcomes, strict=True):
            if not waiting.outcome.done():
                waiting.outcome.set_result(outcome)
        self._end_one()

    async def _outcomes(self, requests: list[Request]) -> Outcomes:
        """Sends them, as one request if they are several; what came of each."""
        if len(requests) == 1:
            return [await self._send_alone(requests[0])]
        bulk = bulk_request("/events/bulk", (request.body or b"" for request in requests))
        answer = await self._send_alone(bulk)
        if isinstance(answer, Lost):
            return [replace(answer, request_id=bulk.id)] * len(requests)
        headers = {"x-request-id": bulk.id, **answer.headers}
        if answer.status in AGAIN_LATER:
            return [replace(answer, headers=headers)] * len(requests)
        if answer.status in NO_SUCH_PLACE:
            self._takes_bulk = False
        bodies = _items(answer)
        if len(bodies) != len(requests):  # it may be no answer to what each of them asked
            return [None] * len(requests)
        return [Answer(status, headers, body) for status, body in bodies]


def _items(answer: Answer) -> list[tuple[int, bytes]]:
    """What it says of each event: the status and body of what a `POST /events` would be told."""
    if answer.status != 200:
        return []
    try:
        items = msgspec.json.decode(answer.body, type=list[msgspec.Raw])
        return [(msgspec.json.decode(item, type=_Item).status, bytes(item)) for item in items]
    except UNREADABLE:
        return []
