"""Reads that may take a while take turns, so that no partner's delay those of another.

Only a few are under way at once. Of those that wait the partner's is let in next whose reads have
taken the least time; who reads much passes its turn on between its portions, and one place is kept
for reads that begin. So another partner waits for a portion or two, however much is asked for.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import perf_counter

from tether.domain.errors import TooManyAtOnce, Unavailable

MOST_WAITING = 200  # reads in a process: the next one is one too many for whoever has the most
PATIENCE_S = 20.0  # so long one waits
LONGEST_S = 0.002  # that is computed without a pause
MOST_REMEMBERED = 1_000  # partners of which it is known what they took


class Turn:
    """The right of a partner to read now."""

    def __init__(self, turns: "Turns", partner: int) -> None:
        self._turns = turns
        self._partner = partner
        self._goes_on = False
        self._begin()

    def _begin(self) -> None:
        self._since = perf_counter()
        self.held = True

    def is_long(self) -> bool:
        """Whether others should be served before more is computed."""
        return perf_counter() - self._since > LONGEST_S

    def end(self) -> None:
        """The next one is let in."""
        self.held = False
        self._turns.leave(self._partner, perf_counter() - self._since, goes_on=self._goes_on)

    async def pass_on(self, *, ahead: bool = False) -> None:
        """Lets others read who wait, and returns when it is this one's turn again.

        `ahead`: before the partner's reads that have not begun, as this one holds much memory.
        """
        waiting = self._turns.queue(self._partner, ahead=ahead, goes_on=True)
        self.end()
        self._goes_on = True
        at_once = waiting.admitted.done()
        await self._turns.until(waiting)
        self._begin()
        if at_once:
            await asyncio.sleep(0)
            self._since = perf_counter()

    async def without(self, work: Awaitable[None]) -> None:
        """Others read while this one waits for something else."""
        self.end()
        await work
        waiting = self._turns.queue(self._partner, goes_on=self._goes_on, stays=True)
        await self._turns.until(waiting)
        self._begin()


class _Waiting:
    """A read that waits, and whether it goes on with what it has begun."""

    __slots__ = ("admitted", "goes_on", "partner", "stays")

    def __init__(self, partner: int, *, goes_on: bool, stays: bool) -> None:
        self.partner = partner
        self.goes_on = goes_on
        self.stays = stays  # it cannot be refused any more
        self.admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Turns:
    """Who may read now, and who waits."""

    def __init__(self, at_once: int, refused: Callable[[str], None] = lambda _: None) -> None:
        """`at_once` may read; `refused` is told the reason when one is not even let wait."""
        self._at_once = at_once
        self._of_partner = (at_once + 1) // 2
        self._going_on = max(1, at_once - 1)  # of those that have begun before
        self._refused = refused
        self._reading: Counter[int] = Counter()
        self._count = 0
        self._count_going_on = 0
        self._waiting: dict[int, deque[_Waiting]] = {}
        self._count_waiting = 0
        # What the reads of each partner took, in seconds. A partner that comes back is put level
        # with the one that was let in last, so that nobody can save up turns.
        self._taken: dict[int, float] = {}
        self._level = 0.0

    @asynccontextmanager
    async def of(
        self, partner: int, *, patience_s: float | None = PATIENCE_S
    ) -> AsyncIterator[Turn]:
        """The partner reads meanwhile.

        If too many reads wait, those of the partner of which the most do are refused. Raises
        RateLimited then, and Unavailable if it waits too long, unless its patience has no end.
        """
        waiting = self.queue(partner, stays=patience_s is None)
        if waiting.admitted.done():
            waiting.admitted.result()
        else:
            await self._a_while(waiting, patience_s)
        turn = Turn(self, partner)
        try:
            yield turn
            if turn.is_long():  # others are served before the next one is let in
                await asyncio.sleep(0)
        finally:
            if turn.held:
                turn.end()

    async def _a_while(self, waiting: _Waiting, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.until(waiting)
        except TimeoutError as error:
            self._refused("reads")
            raise Unavailable from error

    def queue(
        self, partner: int, *, ahead: bool = False, goes_on: bool = False, stays: bool = False
    ) -> _Waiting:
        """A read of the partner waits from now on, `ahead` of those of its that do already."""
        waiting = _Waiting(partner, goes_on=goes_on, stays=stays or goes_on)
        if partner not in self._waiting:
            self._waiting[partner] = deque()
            if not self._reading[partner]:
                self._taken[partner] = max(self._level, self._taken.get(partner, 0.0))
        queue = self._waiting[partner]
        queue.insert(0 if ahead else len(queue), waiting)
        self._count_waiting += 1
        self._let_in()
        if self._count_waiting > MOST_WAITING:
            self._refuse_one()
        return waiting

    async def until(self, waiting: _Waiting) -> None:
        """Returns when it may read. Raises RateLimited if it is refused."""
        try:
            await waiting.admitted
        except BaseException:
            admitted = waiting.admitted
            if admitted.cancelled():
                self._forget(waiting)
            elif admitted.exception() is None:
                self.leave(waiting.partner, 0.0, goes_on=waiting.goes_on)
            raise

    def leave(self, partner: int, seconds: float, *, goes_on: bool) -> None:
        """The partner has read for so long."""
        self._taken[partner] += seconds
        self._count -= 1
        self._count_going_on -= goes_on
        self._reading[partner] -= 1
        if not self._reading[partner]:
            del self._reading[partner]
        self._let_in()

    def _let_in(self) -> None:
        while self._count < self._at_once and (waiting := self._next()) is not None:
            self._forget(waiting)
            partner = waiting.partner
            self._level = max(self._level, self._taken[partner])
            self._count += 1
            self._count_going_on += waiting.goes_on
            self._reading[partner] += 1
            waiting.admitted.set_result(None)

    def _next(self) -> _Waiting | None:
        """The first that may read of the partner whose reads took the least."""
        found: _Waiting | None = None
        for partner, queue in self._waiting.items():
            if self._reading[partner] >= self._of_partner:
                continue
            if found is not None and self._taken[partner] >= self._taken[found.partner]:
                continue
            may_go_on = self._count_going_on < self._going_on
            eligible = (one for one in queue if may_go_on or not one.goes_on)
            # Who gave up is passed over, and takes itself out.
            found = next((one for one in eligible if not one.admitted.done()), found)
        return found

    def _refuse_one(self) -> None:
        """The last one that has not begun of the partner of which the most wait."""
        for queue in sorted(self._waiting.values(), key=len, reverse=True):
            for waiting in reversed(queue):
                if not waiting.stays and not waiting.admitted.done():
                    self._forget(waiting)
                    self._refused("reads")
                    waiting.admitted.set_exception(TooManyAtOnce(1))
                    return

    def _forget(self, waiting: _Waiting) -> None:
        queue = self._waiting[waiting.partner]
        queue.remove(waiting)
        self._count_waiting -= 1
        if not queue:
            del self._waiting[waiting.partner]
            if len(self._taken) > MOST_REMEMBERED:
                active = {*self._waiting, *self._reading, waiting.partner}
                self._taken = {one: self._taken[one] for one in active}
