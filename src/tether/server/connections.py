"""Bounds for all connections together, and the error that the server sends before it closes one.

There is no bound for each client address, because many clients use the same proxy.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from tether.domain.errors import Code
from tether.domain.models import to_json
from tether.server.status_codes import STATUS
from tether.storage.turns import ROUND_S, FairQueue


class Bounds:
    """How many connections there may be, and how many bytes may wait for clients.

    These bytes are responses that clients do not read, and incomplete requests. If there are too
    many, the connections end that made no progress for the longest time. A buffer that is sent to
    several connections counts once.
    """

    def __init__(
        self, connections: int, unread_bytes: int, refused: Callable[[str], None] = lambda _: None
    ) -> None:
        """`refused` is called with the reason when a connection is refused or ended."""
        self.connections = connections
        self.unread_bytes = unread_bytes
        self.refused = refused
        self._waiting: dict[Hashable, tuple[Hashable, int, Callable[[], None], str]] = {}
        self._users: Counter[Hashable] = Counter()
        self._total = 0

    def hold(
        self,
        client: Hashable,
        size: int,
        end: Callable[[], None],
        buffer: Hashable = None,
        *,
        reason: str = "unread",
    ) -> None:
        """Counts `size` bytes that wait for this client. `end` ends its connection.

        `buffer` is the same for all clients that wait for the same bytes. A new call for a client
        replaces the last one, and counts as progress.
        """
        self.release(client)
        buffer = client if buffer is None else buffer
        self._waiting[client] = buffer, size, end, reason
        self._users[buffer] += 1
        if self._users[buffer] == 1:
            self._total += size
        while self._total > self.unread_bytes:
            slowest = next(iter(self._waiting))
            _, _, end, reason = self._waiting[slowest]
            self.release(slowest)
            self.refused(reason)
            end()

    def release(self, client: Hashable) -> None:
        """Counts no bytes for this client any more."""
        buffer, size, *_ = self._waiting.pop(client, (None, 0))
        if buffer is None:
            return
        self._users[buffer] -= 1
        if not self._users[buffer]:
            del self._users[buffer]
            self._total -= size


class BodyTurns:
    """Decides which connection may read on in a long body.

    Otherwise a few clients that send as fast as they can would take all time of the event loop. The
    next one is of the partner whose bodies took the least time. All of them take at most half of
    the time.
    """

    def __init__(self) -> None:
        self._waiting: FairQueue[Hashable, Callable[[], None]] = FairQueue()
        self._usual_s = 0.0  # of a step; quickly up, slowly down
        self._spent_s = 0.0  # since the last round
        self._is_scheduled = False

    def wait(self, partner: Hashable, read_on: Callable[[], None], spent_s: float) -> None:
        """Calls `read_on` when it is the turn of this body, whose last step took this time."""
        spent_s = max(spent_s, ROUND_S / 4)  # to read from the socket takes time, too
        self._waiting.charge(partner, spent_s)
        self._waiting.put(partner, read_on)
        self._usual_s = max(spent_s, 0.9 * self._usual_s)
        self._spent_s += spent_s
        if not self._is_scheduled:
            self._schedule()

    def _schedule(self) -> None:
        self._is_scheduled = True
        pause_s, self._spent_s = self._spent_s, 0.0
        loop = asyncio.get_running_loop()
        if pause_s >= ROUND_S:
            loop.call_later(pause_s, self._begin_round)
        else:
            loop.call_soon(self._begin_round)

    def _begin_round(self) -> None:
        left_s = ROUND_S
        while left_s > 0 and (found := self._waiting.pop()) is not None:
            _, read_on = found
            left_s -= self._usual_s
            read_on()
        self._is_scheduled = False
        if len(self._waiting):
            self._schedule()


def error_response(code: Code, message: str, request_id: str) -> bytes:
    """The last response of a connection, for an error outside the application."""
    status, body = STATUS[code], to_json({"message": message})
    retry = "retry-after: 1\r\n" if status == 503 else ""
    head = (
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        f"x-request-id: {request_id}\r\ntether-error: {code}\r\n{retry}connection: close\r\n\r\n"
    )
    return STATUS_LINE[status] + head.encode() + body
