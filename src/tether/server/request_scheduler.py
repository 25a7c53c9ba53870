"""Requests begin by partner in turn where more come than can begin at once.

An event loop serves what has arrived in the order in which it did. So a thousand requests that come
at once, also such with keys that are none, would all be served before the one that comes next.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from tether.server.request_cycle import RequestCycle

AT_ONCE = 8  # requests that begin in a turn of the event loop


class RequestScheduler:
    """Lets some requests begin in each turn of the event loop; the others wait, by partner.

    No more of them wait than there are connections.
    """

    def __init__(self, partner_of: Callable[[str], int | None]) -> None:
        """`partner_of` tells whose key it is, if that is known without asking anybody."""
        self._partner_of = partner_of
        self._loop = asyncio.get_running_loop()
        self._begun = 0
        self._waiting: dict[Hashable, deque[tuple[RequestCycle, Any]]] = {}

    def begin(self, cycle: RequestCycle, app: Any) -> None:
        """Lets the application have the request, now or when it is its turn."""
        if self._begun < AT_ONCE:
            self._begin(cycle, app)
        else:
            who = self._who_sent(cycle.scope["headers"])
            self._waiting.setdefault(who, deque()).append((cycle, app))

    def _begin(self, cycle: RequestCycle, app: Any) -> None:
        self._begun += 1
        if self._begun == AT_ONCE:
            self._loop.call_soon(self._begin_more)
        cycle.task = self._loop.create_task(cycle.run_asgi(app))
        cycle.tasks.add(cycle.task)  # and it takes itself out: a callback costs more

    def _who_sent(self, headers: Iterable[tuple[bytes, bytes]]) -> Hashable:
        """The partner, or one for all with strange keys, and another for all without a key."""
        for name, value in headers:
            if name == b"x-api-key":
                return self._partner_of(value.decode("latin-1")) or "strange key"
        return "no key"

    def _begin_more(self) -> None:
        self._begun = 0
        while self._waiting and self._begun < AT_ONCE:
            who, queue = next(iter(self._waiting.items()))
            cycle, app = queue.popleft()
            del self._waiting[who]
            if queue:
                self._waiting[who] = queue  # behind the others
            if not cycle.disconnected:  # else nobody waits for it any more
                self._begin(cycle, app)
