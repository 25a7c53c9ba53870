"""How long work shares the event loop with everybody else, and how much of it is done at once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import TypeAlias, TypeVar

from tether.domain.errors import TooManyAtOnce

TURN_S = 0.001
MOST_WAITING = 100  # of a partner: each may have what came with its head, up to 256 KiB

T = TypeVar("T")
Steps: TypeAlias = Generator[None, None, T]  # work that can be interrupted at each yield


async def in_turns(work: Steps[T]) -> T:
    """Does the work, and lets others have their turn every millisecond.

    A thread would not do: beside one that computes the event loop waits five milliseconds for the
    interpreter whenever it has looked for news.
    """
    end = perf_counter() + TURN_S
    while True:
        try:
            next(work)
        except StopIteration as done:
            result: T = done.value
            return result
        if perf_counter() > end:
            await asyncio.sleep(0)
            end = perf_counter() + TURN_S


class Places:
    """Bounds how many of all partners, and how many of each, do something at the same time.

    Whoever comes later waits. As of each partner no more wait for one of the places of all than it
    may have at once, nobody waits behind all the requests of another.
    """

    def __init__(self, of_all: int, of_each: int) -> None:
        self._of_all = asyncio.Semaphore(of_all)
        self._of_each = of_each
        self._of_partner: dict[int, asyncio.Semaphore] = {}
        self._present: Counter[int] = Counter()  # of each partner, those that wait included

    @asynccontextmanager
    async def one(self, partner: int) -> AsyncIterator[None]:
        """Has one of the places meanwhile. Raises RateLimited if too many of the partner wait."""
        if self._present[partner] >= self._of_each + MOST_WAITING:
            raise TooManyAtOnce(1)
        if partner not in self._of_partner:
            self._of_partner[partner] = asyncio.Semaphore(self._of_each)
        self._present[partner] += 1
        try:
            async with self._of_partner[partner], self._of_all:
                yield
        finally:
            self._present[partner] -= 1
            if not self._present[partner]:
                del self._present[partner], self._of_partner[partner]
