"""Tells of each request that begins whose it is, and lets its steps take turns with all others."""

import asyncio
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

from tether.server.loop_turns import LoopTurns
from tether.server.request_cycle import RequestCycle


class RequestScheduler:
    """Lets requests begin, and go on, by partner in turn."""

    def __init__(self, turns: LoopTurns, partner_of: Callable[[str], int | None]) -> None:
        """`partner_of` tells whose key it is, if that is known without asking anybody."""
        self._turns = turns
        self._partner_of = partner_of
        self._loop = asyncio.get_running_loop()

    def begin(self, cycle: RequestCycle, app: Any) -> None:
        """Lets the application have the request, as soon as it is its turn."""
        work = self._turns.share(cycle.run_asgi(app), partial(self._who_sent, cycle))
        cycle.task = self._loop.create_task(work)
        cycle.tasks.add(cycle.task)  # and it takes itself out: a callback costs more

    def _who_sent(self, cycle: RequestCycle) -> Hashable:
        """The partner, or one for all with strange keys, and another for all without a key."""
        for name, value in cycle.scope["headers"]:
            if name == b"x-api-key":
                return self._partner_of(value.decode("latin-1")) or "strange key"
        return "no key"
