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

    def pop(self, admits: Callable[[P], bool] = lambda partner: True) -> tuple[P, T] | None:
        """Takes out the next item of a partner that `admits` accepts.

        Returns the partner and the item, or None.
        """
        partners = [*filter(admits, self._waiting)]
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
        """Returns at once, or in the next round of the event loop. Raises Abandoned."""
        if perf_counter() > self._end:
            await asyncio.sleep(0)
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
    """Decides which tasks may take a step of the event loop now.

    The event loop runs ready tasks in order. So a partner with a thousand requests under way would
    get a thousand turns for each turn of another. Here a task takes its next step at once only
    while there is little to do. Otherwise it waits with its partner, and some tasks go on in each
    round of the loop. Processor time is counted, because on a full machine a step can stand still
    for longer than it computes.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: FairQueue[Hashable, ScheduledWork[Any]] = FairQueue()
        self._step_s: dict[Hashable, float] = {}  # the time of the last step of each partner
        self._left_s = ROUND_S
        self.busy = False  # no task may take a step without waiting

    def schedule(
        self, work: Coroutine[Any, Any, T], find_partner: Callable[[], Hashable]
    ) -> "ScheduledWork[T]":
        """The same work in steps that take turns. `find_partner` is called if it has to wait."""
        return ScheduledWork(self, work, find_partner)

    def wait(self, work: "ScheduledWork[Any]", partner: Hashable) -> "asyncio.Future[None]":
        """A future that is done when it is the turn of this work."""
        self._waiting.put(partner, work)
        return self._loop.create_future()

    def count(self, seconds: float) -> None:
        """Counts the time of a step."""
        self._left_s -= seconds
        if self._left_s < 0 and not self.busy:
            self.busy = True
            self._loop.call_soon(self._begin_round)

    def charge(self, partner: Hashable, seconds: float, expected_s: float) -> None:
        """Charges the time of a step to its partner, which was charged the expected time before."""
        self._waiting.charge(partner, seconds - expected_s)
        if len(self._step_s) > MAX_PARTNERS:
            self._step_s.clear()
        self._step_s[partner] = seconds

    def _begin_round(self) -> None:
        self._left_s, left_s = ROUND_S, ROUND_S
        while left_s > 0 and (next_work := self._waiting.pop()) is not None:
            partner, work = next_work
            expected_s = self._step_s.get(partner, USUAL_STEP_S)
            if work.admit(expected_s):
                self._waiting.charge(partner, expected_s)
                left_s -= expected_s
        self.busy = len(self._waiting) > 0
        if self.busy:
            self._loop.call_soon(self._begin_round)


class ScheduledWork(Coroutine[Any, Any, T]):
    """Work whose steps take turns. An exception, such as a cancellation, does not wait."""

    __slots__ = ("_charged", "_expected_s", "_find_partner", "_turn", "_turns", "_work")

    def __init__(
        self, turns: LoopTurns, work: Coroutine[Any, Any, T], find_partner: Callable[[], Hashable]
    ) -> None:
        self._turns = turns
        self._work = work
        self._find_partner: Callable[[], Hashable] | None = find_partner
        self._charged: Hashable = None  # its partner, once it had to wait
        self._turn: asyncio.Future[None] | None = None
        self._expected_s = 0.0

    def admit(self, expected_s: float) -> bool:
        """Lets it take a step of about this length; returns False if it does not wait any more."""
        if self._turn is None or self._turn.done():
            return False
        self._turn.set_result(None)
        self._expected_s = expected_s
        return True

    def send(self, value: Any, /) -> Any:
        turns = self._turns
        if turns.busy and self._turn is None:
            if self._find_partner is not None:
                self._charged, self._find_partner = self._find_partner(), None
            self._turn = turns.wait(self, self._charged)
            return next(self._turn.__await__())
        return self._step(self._work.send, value)

    def throw(self, *error: Any) -> Any:
        try:
            return self._step(self._work.throw, *error)
        finally:
            del error  # it refers to this frame

    def _step(self, step: Callable[..., Any], *values: Any) -> Any:
        self._turn = None
        began = thread_time()
        try:
            return step(*values)
        except BaseException:
            # Breaks a cycle of references: `_find_partner`, the request, its task, this. Otherwise
            # the memory would stay until the garbage collector runs.
            self._find_partner = None
            raise
        finally:
            del values  # they may be an error, which refers to this frame
            seconds = thread_time() - began
            self._turns.count(seconds)
            if self._charged is not None:
                self._turns.charge(self._charged, seconds, self._expected_s)
                self._expected_s = 0.0

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._work.__await__()
