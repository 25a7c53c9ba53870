"""Reads that may take a while take turns, so that no partner's delay those of another.

Of each partner a few are under way at once, and of all partners together some more: whoever comes
then waits, and is let in by partner, one after the other. Who reads much passes its turn on between
its portions. So another partner waits for a portion or two, however much is asked for.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import perf_counter

from tether.domain.errors import RateLimited, Unavailable

MOST_WAITING = 100  # reads of a partner that wait in a process
PATIENCE_S = 20.0  # so long one waits
LONGEST_S = 0.002  # that is computed without a pause


class Turn:
    """The right of a partner to read now."""

    def __init__(self, turns: "Turns", partner: int) -> None:
        self._turns = turns
        self._partner = partner
        self._since = perf_counter()
        self.held = True

    def is_long(self) -> bool:
        """Whether others should be served before more is computed."""
        return perf_counter() - self._since > LONGEST_S

    async def pass_on(self, *, ahead: bool = False) -> None:
        """Lets others read who wait, and returns when it is this one's turn again.

        `ahead`: before the partner's reads that have not begun, as this one holds much memory.
        """
        if self._turns.anybody_waits:
            self.held = False
            await self._turns.pass_on(self._partner, ahead=ahead)
            self.held = True
            self._since = perf_counter()
        else:
            await asyncio.sleep(0)
            self._since = perf_counter()

    async def without(self, work: Awaitable[None]) -> None:
        """Others read while this one waits for something else."""
        self.held = False
        self._turns.leave(self._partner)
        await work
        await self._turns.wait(self._partner)
        self.held = True
        self._since = perf_counter()


class Turns:
    """Who may read now, and who waits."""

    def __init__(self, at_once: int, refused: Callable[[str], None] = lambda _: None) -> None:
        """`at_once` may read; `refused` is told the reason when one is not even let wait."""
        self._at_once = at_once
        self._of_partner = (at_once + 1) // 2
        self._refused = refused
        self._reading: Counter[int] = Counter()
        self._count = 0
        self._waiting: dict[int, deque[asyncio.Future[None]]] = {}  # partners in their order

    @asynccontextmanager
    async def of(
        self, partner: int, *, patience_s: float | None = PATIENCE_S
    ) -> AsyncIterator[Turn]:
        """The partner reads meanwhile.

        Raises RateLimited if too many of its reads wait already, and Unavailable if it waits too
        long, unless its patience has no end.
        """
        if self._is_free(partner):
            self._enter(partner)
        elif patience_s is None:
            await self.wait(partner)
        else:
            await self._wait_a_while(partner, patience_s)
        turn = Turn(self, partner)
        try:
            yield turn
            if turn.is_long():  # others are served before the next one is let in
                await asyncio.sleep(0)
        finally:
            if turn.held:
                self.leave(partner)

    @property
    def anybody_waits(self) -> bool:
        """Whether a turn can be passed on."""
        return bool(self._waiting)

    async def wait(self, partner: int) -> None:
        """Returns when the partner may read, behind those of its reads that wait already."""
        admitted = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(partner, deque()).append(admitted)
        self._let_in()
        await self._until(partner, admitted)

    async def pass_on(self, partner: int, *, ahead: bool) -> None:
        """The same after the partner has left, but `ahead` of those of its reads that wait."""
        admitted = asyncio.get_running_loop().create_future()
        queue = self._waiting.pop(partner, deque())
        queue.insert(0 if ahead else len(queue), admitted)
        self._waiting[partner] = queue  # behind the other partners
        self.leave(partner)
        await self._until(partner, admitted)

    async def _until(self, partner: int, admitted: "asyncio.Future[None]") -> None:
        try:
            await admitted
        except BaseException:
            if admitted.cancelled():  # and whoever finds it among those who wait passes over it
                self._let_in()
            else:
                self.leave(partner)
            raise

    def leave(self, partner: int) -> None:
        """The partner has read."""
        self._count -= 1
        self._reading[partner] -= 1
        if not self._reading[partner]:
            del self._reading[partner]
        self._let_in()

    async def _wait_a_while(self, partner: int, seconds: float) -> None:
        if len(self._waiting.get(partner, ())) >= MOST_WAITING:
            self._refused("reads")
            raise RateLimited(1)
        try:
            async with asyncio.timeout(seconds):
                await self.wait(partner)
        except TimeoutError as error:
            self._refused("reads")
            raise Unavailable from error

    def _is_free(self, partner: int) -> bool:
        return self._count < self._at_once and self._reading[partner] < self._of_partner

    def _enter(self, partner: int) -> None:
        self._count += 1
        self._reading[partner] += 1

    def _let_in(self) -> None:
        """Lets in who waits, by partner: whose partner was let in goes behind the others."""
        for partner in list(self._waiting):
            queue = self._waiting[partner]
            while queue and queue[0].done():  # it gave up
                queue.popleft()
            if queue and self._is_free(partner):
                self._enter(partner)
                queue.popleft().set_result(None)
                del self._waiting[partner]
                self._waiting[partner] = queue
            if not queue:
                del self._waiting[partner]
