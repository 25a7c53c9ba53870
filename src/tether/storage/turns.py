"""Partners take turns, so that the work of one does not delay the work of another.

When work waits, the work of the partner that has used the least time goes first. This holds for
writes, for lists and other long work, and for steps of the event loop.
"""

import asyncio
from collections import Counter, deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Hashable,
    Iterable,
    Sequence,
)
from contextlib import asynccontextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from functools import partial
from time import perf_counter, thread_time
from typing import Any, Generic, TypeAlias, TypeVar
from weakref import WeakSet

from tether.domain.errors import Abandoned, TooManyAtOnce, Unavailable

MAX_PARTNERS = 1_000  # whose used time is kept
MAX_WAITING = 200  # of a partner
PATIENCE_S = 20.0
SLICE_S = 0.001  # of computing without a pause
ROUND_S = 0.002  # of steps in a round of the event loop
USUAL_STEP_S = 0.0002  # assumed until a step of the partner was measured
LEAD_S = 0.03  # the most time that a partner can save up by using less than others

P = TypeVar("P", bound=Hashable)  # identifies a partner
T = TypeVar("T")
Steps: TypeAlias = Generator[None, None, T]  # work that can be interrupted at each yield


def partner_in(parameters: Sequence[Any]) -> Hashable:
    """The partner of a statement with these parameters: $1 if that is a number, else None.

    None stands for all statements without a partner. A look-up of a key has the key as $1. If it
    counted as a partner, an invented key would have used no time yet and would go before real keys.
    """
    first = parameters[0] if parameters else None
    return first if isinstance(first, int) else None


class FairQueue(Generic[P, T]):
    """Items that wait, first in first out for each partner.

    The next item is from the partner that has used the fewest seconds. A partner that comes back
    has at most a small lead over the partner of the last item. So a partner that uses little does
    not wait when some of its work comes at once, and no partner can save up much time. All unknown
    partners count as one.
    """

    def __init__(self) -> None:
        self._waiting: dict[P, deque[T]] = {}
        self._count = 0
        self._used_s: dict[P, float] = {}
        self._level = 0.0

    def __len__(self) -> int:
        return self._count

    def of(self, partner: P) -> int:
        """How many items of this partner wait."""
        return len(self._waiting.get(partner, ()))

    def put(self, partner: P, item: T) -> None:
        """Adds an item that waits."""
        if partner not in self._waiting:
            self._waiting[partner] = deque()
            self._used_s[partner] = max(self._level - LEAD_S, self._used_s.get(partner, -LEAD_S))
        self._waiting[partner].append(item)
        self._count += 1

    def first(self, partner: P) -> T:
        """The next item of this partner, which must have one."""
        return self._waiting[partner][0]

    def pop(self, admits: Callable[[P], bool] | None = None) -> tuple[P, T] | None:
        """Takes out the next item of a partner, of those that `admits` accepts if it is given.

        Returns the partner and the item, or None.
        """
        partners = self._waiting if admits is None else [*filter(admits, self._waiting)]
        if not partners:
            return None
        partner = min(partners, key=self._used_s.__getitem__)
        self._level = max(self._level, self._used_s[partner])
        return partner, self._take_out(partner, self._waiting[partner][0])

    def remove(self, partner: P, item: T) -> None:
        """Takes out this item. Raises ValueError if it does not wait."""
        if partner not in self._waiting:
            raise ValueError
        self._take_out(partner, item)

    def charge(self, partner: P, seconds: float) -> None:
        """Adds to the time that the partner has used. A negative number reduces it."""
        self._used_s[partner] = self._used_s.get(partner, self._level - LEAD_S) + seconds
        if len(self._used_s) > MAX_PARTNERS:  # the others would start at that level anyway
            self._used_s = {
                other: used_s
                for other, used_s in self._used_s.items()
                if used_s > self._level - LEAD_S or other in self._waiting
            }

    def _take_out(self, partner: P, item: T) -> T:
        waiting = self._waiting[partner]
        if waiting[0] is item:
            waiting.popleft()
        else:
            waiting.remove(item)
        self._count -= 1
        if not waiting:
            del self._waiting[partner]
        return item


class Turns:
    """Limits how much work runs at the same time, in all and of each partner.

    Other work waits. Next is the partner whose work has used the least time.
    """

    def __init__(
        self,
        at_once: int,
        per_partner: int,
        refused: Callable[[str], None] = lambda _: None,
        *,
        max_waiting: int = MAX_WAITING,
        patience_s: float | None = PATIENCE_S,
    ) -> None:
        """`refused` gets the reason when work may not wait, or has waited too long."""
        self._free = at_once
        self._per_partner = per_partner
        self._refused = refused
        self._max_waiting = max_waiting
        self._patience_s = patience_s
        self._running: Counter[Hashable] = Counter()
        self._waiting: FairQueue[Hashable, asyncio.Future[None]] = FairQueue()

    @asynccontextmanager
    async def of(self, partner: Hashable) -> AsyncIterator[None]:
        """Waits for a turn of the partner, which lasts until the end of the block.

        Raises TooManyAtOnce if too much work of the partner waits, Unavailable after waiting too
        long, and Abandoned.
        """
        await self._enter(partner)
        began = perf_counter()
        try:
            check_wanted()
            yield
        finally:
            self._waiting.charge(partner, perf_counter() - began)
            self._leave(partner)

    async def run(self, partner: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """Does this work in one of the partner's turns, in a task of its own.

        The turn ends when the work ends, even if the caller is cancelled. Raises Abandoned before
        the work begins.
        """
        check_wanted()
        return await asyncio.shield(asyncio.ensure_future(self._do(partner, work)))

    async def _do(self, partner: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        async with self.of(partner):
            return await work()

    async def _enter(self, partner: Hashable) -> None:
        if self._free and self._has_room(partner) and not self._waiting.of(partner):
            self._free -= 1
            self._running[partner] += 1
            return
        if self._waiting.of(partner) >= self._max_waiting:
            self._refused("reads")
            raise TooManyAtOnce(1)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.put(partner, turn)
        try:
            async with asyncio.timeout(self._patience_s):
                await turn
        except BaseException as error:
            if turn.cancelled():
                with suppress(ValueError):  # it was taken out already
                    self._waiting.remove(partner, turn)
            else:
                self._leave(partner)
            if isinstance(error, TimeoutError):
                self._refused("reads")
                raise Unavailable from error
            raise

    def _leave(self, partner: Hashable) -> None:
        self._free += 1
        self._running[partner] -= 1
        if not self._running[partner]:
            del self._running[partner]
        while self._free and (next_turn := self._waiting.pop(self._has_room)) is not None:
            partner, turn = next_turn
            if not turn.done():  # its caller may have given up
                self._free -= 1
                self._running[partner] += 1
                turn.set_result(None)

    def _has_room(self, partner: Hashable) -> bool:
        return self._running[partner] < self._per_partner


# Reads that nobody waits for any more. They end before their next portion. They are not cancelled,
# because the driver of PostgreSQL would then open another connection.
_abandoned: WeakSet["asyncio.Task[Any]"] = WeakSet()


def abandon(task: "asyncio.Task[Any]") -> None:
    """Marks a read that nobody waits for any more."""
    _abandoned.add(task)


def check_wanted() -> None:
    """Raises Abandoned if nobody waits any more for the read of this task."""
    if _abandoned and asyncio.current_task() in _abandoned:
        raise Abandoned


@asynccontextmanager
async def throttled() -> AsyncIterator[None]:
    """Pauses after the block for as long as the block took, so that others can work."""
    began = perf_counter()
    yield
    await asyncio.sleep(perf_counter() - began)


async def wait_for_event(event: asyncio.Event, seconds: float) -> None:
    """Returns when the event is set, or when this time is over."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


class TimeSlice:
    """Lets other tasks use the event loop when this one has computed for SLICE_S."""

    def __init__(self) -> None:
        self._end = perf_counter() + SLICE_S

    async def yield_if_over(self) -> None:
        """Returns at once, or at the next turn of the partner. Raises Abandoned."""
        if perf_counter() > self._end:
            await next_turn()
            check_wanted()
            self._end = perf_counter() + SLICE_S


async def map_in_steps(function: Callable[..., T], *items: Iterable[Any]) -> list[T]:
    """The results of the function for all items, like `map`. Other tasks run every millisecond."""
    results, time_slice = [], TimeSlice()
    for values in zip(*items, strict=False):
        results.append(function(*values))
        await time_slice.yield_if_over()
    return results


async def in_steps(work: Steps[T]) -> T:
    """Does the work and lets other tasks run every millisecond.

    A thread would not help. While it computes, the event loop waits five milliseconds for the
    interpreter each time it has checked for input.
    """
    time_slice = TimeSlice()
    while True:
        try:
            next(work)
        except StopIteration as done:
            result: T = done.value
            return result
        await time_slice.yield_if_over()


# The event loop -----------------------------------------------------------------------------------


class LoopTurns:
    """Decides whose work takes the next step of the event loop.

    The event loop runs ready tasks in order. So a partner with a thousand requests under way would
    get a thousand turns for each turn of another. Here work waits with its partner before it
    begins, unless there is little to do, and whenever it has computed for SLICE_S. In each round of
    the loop some of it goes on. Steps of a partner that follow each other are measured together.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: FairQueue[Hashable, Callable[[], None]] = FairQueue()
        self._step_s: dict[Hashable, float] = {}  # the time of the last steps of each partner
        self._left_s = ROUND_S  # of the current round
        self._steps = 0  # admitted in the current round, of one partner and not measured yet
        self._partner: Hashable = None  # whose steps these are
        self._began_s = 0.0  # when the last steps ended, or the first ones of a round began
        self._is_scheduled = False  # a round of the loop

    def start(self, partner: Hashable, work: Coroutine[Any, Any, None]) -> None:
        """Starts a task for this work: at once while there is little to do, otherwise when it is
        the turn of the partner.
        """
        context = self.context_of(partner)

        def go_on() -> None:
            self._loop.create_task(work, context=context)

        if self._left_s > 0 and not self._waiting:
            self._schedule_round()
            self._admit(partner, go_on)
        else:
            self.wait(partner, go_on)

    def context_of(self, partner: Hashable) -> Context:
        """The context of a task whose long work takes turns of the partner: see `next_turn`."""
        context = copy_context()
        context.run(_works_for.set, (self, partner))
        return context

    def wait(self, partner: Hashable, go_on: Callable[[], None]) -> None:
        """Calls `go_on` when it is the turn of the partner. It makes a task ready for a step."""
        self._schedule_round()
        self._waiting.put(partner, go_on)

    def _schedule_round(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._begin_round)

    def _begin_round(self) -> None:
        if self._steps:  # of work that began at once: they are next
            self._begin_steps()
        else:  # other callbacks are next
            self._loop.call_soon(self._begin_steps)
        while self._left_s > 0 and (next_work := self._waiting.pop()) is not None:
            self._admit(*next_work)
        self._end_steps()
        self._left_s = ROUND_S  # until the end of the next one
        self._is_scheduled = len(self._waiting) > 0
        if self._is_scheduled:
            self._loop.call_soon(self._begin_round)

    def _admit(self, partner: Hashable, go_on: Callable[[], None]) -> None:
        """Lets the work take its step in this round."""
        if partner != self._partner:
            self._end_steps()
        self._partner = partner
        self._steps += 1
        self._left_s -= self._step_s.get(partner, USUAL_STEP_S)
        go_on()

    def _begin_steps(self) -> None:
        self._began_s = thread_time()

    def _end_steps(self) -> None:
        if self._steps:  # the loop calls it after them
            self._loop.call_soon(self._charge, self._partner, self._steps)
            self._steps = 0

    def _charge(self, partner: Hashable, steps: int) -> None:
        """Charges the partner for the time that its steps have computed."""
        now_s = thread_time()
        seconds, self._began_s = now_s - self._began_s, now_s
        self._waiting.charge(partner, seconds)
        if len(self._step_s) > MAX_PARTNERS:
            self._step_s.clear()
        self._step_s[partner] = seconds / steps


_works_for: ContextVar[tuple[LoopTurns, Hashable]] = ContextVar("works_for")


async def next_turn() -> None:
    """Lets other tasks run. Returns at the next turn of the partner that this task works for."""
    works_for = _works_for.get(None)
    if works_for is None:
        await asyncio.sleep(0)
        return
    turns, partner = works_for
    turn = asyncio.get_running_loop().create_future()
    turns.wait(partner, partial(_end_wait, turn))
    await turn


def _end_wait(turn: "asyncio.Future[None]") -> None:
    if not turn.done():  # its task may be cancelled
        turn.set_result(None)
