"""Updates: a stream of Server-Sent Events that tells open pages to load themselves again."""

import asyncio
from collections.abc import AsyncGenerator
from time import monotonic

from falcon.asgi import Request, Response

from tether.console.request import partner_of
from tether.console.user_sessions import UserSessions
from tether.domain.errors import Unavailable
from tether.server.event_streams import EventStreams, wait_for_disconnect
from tether.server.store import Store

MAX_STREAMS = 32  # of one partner in one process
PAUSE_S = 2.0  # at least, between two updates
SESSION_CHECK_S = 1.0  # an ended session stops the stream within 2 s
HEARTBEAT_S = 15.0
RETRY_MS = 1_000
DISCONNECT_TIMEOUT_S = 5.0
ENDED = "event: ended\ndata: \n\n"
"""The session has ended: the page loads itself again and arrives at the sign-in page."""


class UpdatesResource:
    """`…/ticks`: sends `changed`, at most every two seconds, and `ended` after a sign-out."""

    def __init__(self, store: Store, user_sessions: UserSessions) -> None:
        self._store = store
        self._user_sessions = user_sessions
        self._streams = EventStreams(store, MAX_STREAMS)

    async def on_get(self, req: Request, resp: Response) -> None:
        partner = partner_of(req).id
        self._streams.check_room(partner)
        resp.content_type = "text/event-stream"
        resp.set_header("X-Accel-Buffering", "no")
        resp.stream = self._streams.body(partner, self._updates(req, partner))

    async def _updates(self, req: Request, partner: int) -> AsyncGenerator[str]:
        _, sent = await self._store.derivations.progress(partner)
        with self._store.feed.listening(partner) as listener:
            leaving = asyncio.create_task(wait_for_disconnect(req, listener))
            try:
                # Changes since the page was rendered, or before a reconnection, may be missing.
                yield f"retry: {RETRY_MS}\nevent: changed\ndata: {sent}\n\n"
                sent_at = checked_at = monotonic()
                while not leaving.done() and not self._store.feed.closed:
                    now = monotonic()
                    if now - checked_at >= SESSION_CHECK_S:
                        checked_at = now
                        if await self._has_ended(req):
                            yield ENDED
                            # The client disconnects first. Otherwise it would report an error.
                            await asyncio.wait([leaving], timeout=DISCONNECT_TIMEOUT_S)
                            return
                    if listener.derived > sent and now - sent_at >= PAUSE_S:
                        sent, sent_at = listener.derived, now
                        yield f"event: changed\ndata: {sent}\n\n"
                    elif now - sent_at >= HEARTBEAT_S:
                        sent_at = now
                        yield ": nothing new\n\n"
                    await listener.wait(SESSION_CHECK_S / 2)
            finally:
                leaving.cancel()

    async def _has_ended(self, req: Request) -> bool:
        try:
            return await self._user_sessions.find(req) is None
        except Unavailable:  # unknown while the database is away
            return False
