"""Tells open pages that there is something new: they ask again for what they show."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import monotonic

from falcon.asgi import Request, Response

from tether.console.users import UserSessions, partner_of
from tether.domain.errors import Abandoned, Unavailable
from tether.server.event_streams import EventStreams
from tether.server.store import Store

MOST_STREAMS = 32  # of one partner in one process
PAUSE_S = 2.0  # between two messages, however much happens
LOOK_S = 1.0  # how often the session is looked at: one that has ended stops within 2 s
HEARTBEAT_S = 15.0
RETRY_MS = 1_000
LEAVE_S = 5.0
ENDED = "event: ended\ndata: \n\n"
"""Nobody is signed in any more: the page asks for itself again, and finds the sign-in."""


class UpdatesResource:
    """`…/ticks`: `changed`, every two seconds at most; `ended` when signed out."""

    def __init__(self, store: Store, user_sessions: UserSessions) -> None:
        self._store = store
        self._user_sessions = user_sessions
        self._streams = EventStreams(store, MOST_STREAMS)

    async def on_get(self, req: Request, resp: Response) -> None:
        partner = partner_of(req).id
        self._streams.check_room(partner)
        resp.content_type = "text/event-stream"
        resp.set_header("X-Accel-Buffering", "no")
        resp.stream = self._streams.body(partner, self._updates(req, partner))

    async def _updates(self, req: Request, partner: int) -> AsyncGenerator[str]:
        _, shown = await self._store.feed.ends(partner)
        with self._store.feed.listening(partner) as listener:
            leaving = asyncio.create_task(until_gone(req))
            leaving.add_done_callback(lambda _: listener.news.set())
            try:
                # Something may have happened since the page was made, or the connection was lost.
                yield f"retry: {RETRY_MS}\nevent: changed\ndata: {shown}\n\n"
                spoke = looked = monotonic()
                while not leaving.done() and not self._store.feed.closed:
                    now = monotonic()
                    if now - looked >= LOOK_S:
                        looked = now
                        if await self._is_over(req):
                            yield ENDED
                            # Whoever leaves has not lost the connection, and complains of nothing.
                            await asyncio.wait([leaving], timeout=LEAVE_S)
                            return
                    if listener.derived > shown and now - spoke >= PAUSE_S:
                        shown, spoke = listener.derived, now
                        yield f"event: changed\ndata: {shown}\n\n"
                    elif now - spoke >= HEARTBEAT_S:
                        spoke = now
                        yield ": nothing new\n\n"
                    await listener.wait(LOOK_S / 2)
            finally:
                leaving.cancel()

    async def _is_over(self, req: Request) -> bool:
        try:
            return await self._user_sessions.of(req) is None
        except Unavailable:  # it cannot be told now, and nothing can be read either
            return False


async def until_gone(req: Request) -> None:
    """Returns when the client has hung up."""
    while (await req._receive())["type"] != "http.disconnect":
        pass


async def while_wanted(
    req: Request, user_sessions: UserSessions, parts: AsyncGenerator[bytes]
) -> AsyncGenerator[bytes]:
    """The parts of a file, while the client is there to read them and its session lasts."""
    leaving = asyncio.create_task(until_gone(req))
    try:
        async with aclosing(parts):
            async for some in parts:
                if leaving.done() or await user_sessions.of(req) is None:
                    raise Abandoned  # so that nobody takes it for the whole
                yield some
    finally:
        leaving.cancel()
