"""Work that takes long, or much memory, takes turns, so that no partner's delays that of another.

Of each kind a few are under way at once, and of each partner fewer. Who comes later waits, and next
is the partner whose work has taken the least time. So nobody waits behind the queue of another.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, suppress
from time import perf_counter
from typing import TypeAlias, TypeVar

from tether.domain.errors import TooManyAtOnce, Unavailable
from tether.storage.fair_queue import FairQueue

MOST_WAITING = 200  # of a partner
PATIENCE_S = 20.0
LONGEST_S = 0.001  # that is computed without a pause

T = TypeVar("T")
Steps: TypeAlias = Generator[None, None, T]  # work that can be interrupted at each yield


class Turns:
    """Bounds how many of all partners, and how many of each, do something at the same time."""

    def __init__(
        self,
        at_once: int,
        of_each: int,
        refused: Callable[[str], None] = lambda _: None,
        *,
        most_waiting: int = MOST_WAITING,
        patience_s: float | None = PATIENCE_S,
    ) -> None:
        """`refused` is told the reason when one is not let wait, or has waited too long."""
        self._free = at_once
        self._of_each = of_each
        self._refused = refused
        self._most_waiting = most_waiting
        self._patience_s = patience_s
        self._present: Counter[int] = Counter()
        self._waiting: FairQueue[int, asyncio.Future[None]] = FairQueue()

    @asynccontextmanager
    async def of(self, partner: int) -> AsyncIterator[None]:
        """The partner does one of its works meanwhile.

        Raises TooManyAtOnce if too many of its wait, and Unavailable if it waits too long.
        """
        await self._enter(partner)
        began = perf_counter()
        try:
            yield
        finally:
            self._waiting.charge(partner, perf_counter() - began)
            self._leave(partner)

    async def run(self, partner: int, work: Callable[[], Awaitable[T]]) -> T:
        """Does this work in one of the partner's turns, in a task of its own.

        The turn ends with the work: not when whoever asked for it gets to go on, nor when nobody
        wants it any more.
        """
        return await asyncio.shield(asyncio.ensure_future(self._do(partner, work)))

    async def _do(self, partner: int, work: Callable[[], Awaitable[T]]) -> T:
        async with self.of(partner):
            return await work()

    async def _enter(self, partner: int) -> None:
        if self._free and self._may(partner) and not self._waiting.of(partner):
            self._free -= 1
            self._present[partner] += 1
            return
        if self._waiting.of(partner) >= self._most_waiting:
            self._refused("reads")
            raise TooManyAtOnce(1)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.put(partner, turn)
        try:
            async with asyncio.timeout(self._patience_s):
                await turn
        except BaseException as error:
            if turn.cancelled():
                with suppress(ValueError):  # it was passed over already
                    self._waiting.remove(partner, turn)
            else:
                self._leave(partner)
            if isinstance(error, TimeoutError):
                self._refused("reads")
                raise Unavailable from error
            raise

    def _leave(self, partner: int) -> None:
        self._free += 1
        self._present[partner] -= 1
        if not self._present[partner]:
            del self._present[partner]
        while self._free and (found := self._waiting.pop(self._may)) is not None:
            partner, turn = found
            if not turn.done():  # else it was given up
                self._free -= 1
                self._present[partner] += 1
                turn.set_result(None)

    def _may(self, partner: int) -> bool:
        return self._present[partner] < self._of_each


class Rest:
    """Lets others have the event loop when this has computed for a while."""

    def __init__(self) -> None:
        self._end = perf_counter() + LONGEST_S

    async def if_long(self) -> None:
        """Returns at once, or in the next round of the event loop."""
        if perf_counter() > self._end:
            await asyncio.sleep(0)
            self._end = perf_counter() + LONGEST_S


async def in_steps(work: Steps[T]) -> T:
    """Does the work, and lets others have their turn every millisecond.

    A thread would not do: beside one that computes the event loop waits five milliseconds for the
    interpreter whenever it has looked for news.
    """
    rest = Rest()
    while True:
        try:
            next(work)
        except StopIteration as done:
            result: T = done.value
            return result
        await rest.if_long()
