"""Request coalescing: events that many tasks post at the same time share requests.

A request costs the client and the server several times as much as an event. So while MAX_IN_FLIGHT
requests are in flight, the next events wait. When a request ends, the waiting events are sent
together to `/events/bulk`. With fewer requests in flight, an event is sent at once.

Only single tries are shared. Each task gets its own answer and decides about its retries, as if its
event had been sent alone.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeAlias

import msgspec

from tether.client.bulk import bulk_request
from tether.client.exchange import DECODE_ERRORS, RETRY_STATUSES, Answer, NoAnswer, Request

MAX_IN_FLIGHT = 4  # requests: enough to keep the server busy
MAX_SHARED_BYTES = 4096  # larger events are sent alone
MAX_EVENTS = 1000  # in a request
NO_SUCH_ROUTE = (404, 405)  # from a server or proxy without the bulk call

Send = Callable[[Request], Awaitable[Answer | NoAnswer]]
Outcomes: TypeAlias = "Sequence[Answer | NoAnswer | None]"  # None: the event must be sent alone
Sender: TypeAlias = "asyncio.Task[Outcomes]"


class _Waiting(NamedTuple):
    request: Request
    outcome: "asyncio.Future[Answer | NoAnswer | None]"


class _Item(msgspec.Struct):
    status: int


class RequestCoalescer:
    """Sends each `POST /events` alone, or several of them as one bulk request."""

    def __init__(self, send: Send) -> None:
        self._send_one = send
        self._takes_bulk = True
        self._in_flight = 0
        self._waiting: list[_Waiting] = []
        self._senders: set[Sender] = set()

    async def send(self, request: Request) -> Answer | NoAnswer:
        """Sends a request once."""
        if (
            self._in_flight >= MAX_IN_FLIGHT
            and self._takes_bulk
            and len(request.body or b"") < MAX_SHARED_BYTES
        ):
            waiting = _Waiting(request, asyncio.get_running_loop().create_future())
            self._waiting.append(waiting)
            return await waiting.outcome or await self._send_one(request)
        self._in_flight += 1
        try:
            return await self._send_one(request)
        finally:
            self._request_ended()

    def _request_ended(self) -> None:
        """Sends the waiting events whose tasks are not cancelled, after a request has ended."""
        self._in_flight -= 1
        if self._in_flight >= MAX_IN_FLIGHT:
            return
        waiting = [event for event in self._waiting if not event.outcome.done()]
        together, self._waiting = waiting[:MAX_EVENTS], waiting[MAX_EVENTS:]
        if together:
            sender = asyncio.create_task(self._outcomes([event.request for event in together]))
            self._in_flight += 1
            self._senders.add(sender)
            sender.add_done_callback(partial(self._settle, together))

    def _settle(self, together: list[_Waiting], sender: Sender) -> None:
        """Gives each task its outcome. It is a callback because the sender may be cancelled."""
        self._senders.discard(sender)
        outcomes: Outcomes = [None] * len(together)  # after an error each event is sent alone
        if not sender.cancelled() and not sender.exception():
            outcomes = sender.result()
        for waiting, outcome in zip(together, outcomes, strict=True):
            if not waiting.outcome.done():
                waiting.outcome.set_result(outcome)
        self._request_ended()

    async def _outcomes(self, requests: list[Request]) -> Outcomes:
        """Sends these in one request. Returns the outcome of each."""
        if len(requests) == 1:
            return [await self._send_one(requests[0])]
        bulk = bulk_request("/events/bulk", (request.body or b"" for request in requests))
        answer = await self._send_one(bulk)
        if isinstance(answer, NoAnswer):
            return [replace(answer, request_id=bulk.id)] * len(requests)
        headers = {"x-request-id": bulk.id, **answer.headers}
        if answer.status in RETRY_STATUSES:
            return [replace(answer, headers=headers)] * len(requests)
        if answer.status in NO_SUCH_ROUTE:
            self._takes_bulk = False
        bodies = _items(answer)
        if len(bodies) != len(requests):  # not an answer about these events
            return [None] * len(requests)
        return [Answer(status, headers, body) for status, body in bodies]


def _items(answer: Answer) -> list[tuple[int, bytes]]:
    """The status and body of each event, as of a `POST /events`; empty if unreadable."""
    if answer.status != 200:
        return []
    try:
        items = msgspec.json.decode(answer.body, type=list[msgspec.Raw])
        return [(msgspec.json.decode(item, type=_Item).status, bytes(item)) for item in items]
    except DECODE_ERRORS:
        return []
