"""Partners take turns, so that the work of none delays that of another.

Of all that waits, what belongs to the partner that has had the least goes on first: writes, lists
and other work that takes long, and steps of the event loop.
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
    Sequence,
)
from contextlib import asynccontextmanager, suppress
from time import perf_counter, thread_time
from typing import Any, Generic, TypeAlias, TypeVar
from weakref import WeakSet

from tether.domain.errors import Abandoned, TooManyAtOnce, Unavailable

MOST_REMEMBERED = 1_000  # partners of which it is known what they took
MOST_WAITING = 200  # of a partner
PATIENCE_S = 20.0
LONGEST_S = 0.001  # that is computed without a pause
ROUND_S = 0.002  # of steps in a round of the event loop
USUAL_STEP_S = 0.0002  # until it is known what the steps of a partner take
LEAD_S = 0.03  # so much a partner can save up that takes less than others

P = TypeVar("P", bound=Hashable)  # what tells a partner from others
T = TypeVar("T")
Steps: TypeAlias = Generator[None, None, T]  # work that can be interrupted at each yield


def whose(parameters: Sequence[Any]) -> Hashable:
    """Whom what runs with these parameters belongs to: $1 is the partner, if it is a number.

    All else belongs to nobody in particular. Were a key that somebody made up one of its own, it
    would have taken nothing yet, and go before the keys that there are.
    """
    first = parameters[0] if parameters else None
    return first if isinstance(first, int) else None


class FairQueue(Generic[P, T]):
    """What waits, of each partner in its order.

    Whose comes next is decided by how many seconds the partners took. One that comes back has a
    small lead at most before the one that was let in last: so who takes less than others does not
    wait when some of its work comes at once, and nobody can save up much. All who are not known
    count as one.
    """

    def __init__(self) -> None:
        self._waiting: dict[P, deque[T]] = {}
        self._count = 0
        self._taken: dict[P, float] = {}
        self._level = 0.0

    def __len__(self) -> int:
        return self._count

    def of(self, partner: P) -> int:
        """How many wait of this partner."""
        return len(self._waiting.get(partner, ()))

    def put(self, partner: P, item: T) -> None:
        """It waits from now on."""
        if partner not in self._waiting:
            self._waiting[partner] = deque()
            self._taken[partner] = max(self._level - LEAD_S, self._taken.get(partner, -LEAD_S))
        self._waiting[partner].append(item)
        self._count += 1

    def first(self, partner: P) -> T:
        """What is next of this partner, of which some wait."""
        return self._waiting[partner][0]

    def pop(self, may: Callable[[P], bool] = lambda partner: True) -> tuple[P, T] | None:
        """The next one, and whose it is, of the partners that may; None if there is none."""
        those = [*filter(may, self._waiting)]
        if not those:
            return None
        partner = min(those, key=self._taken.__getitem__)
        self._level = max(self._level, self._taken[partner])
        return partner, self._take_out(partner, self._waiting[partner][0])

    def remove(self, partner: P, item: T) -> None:
        """It waits no more. Raises ValueError if it does not wait."""
        if partner not in self._waiting:
            raise ValueError
        self._take_out(partner, item)

    def charge(self, partner: P, seconds: float) -> None:
        """The partner took so long; less than nothing gives back."""
        self._taken[partner] = self._taken.get(partner, self._level - LEAD_S) + seconds
        if len(self._taken) > MOST_REMEMBERED:  # those without a lead would be put there anyway
            self._taken = {
                one: taken
                for one, taken in self._taken.items()
                if taken > self._level - LEAD_S or one in self._waiting
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
    """Bounds how many of all partners, and how many of each, do something at the same time.

    Who comes later waits; next is the partner whose work has taken the least time.
    """

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
        self._present: Counter[Hashable] = Counter()
        self._waiting: FairQueue[Hashable, asyncio.Future[None]] = FairQueue()

    @asynccontextmanager
    async def of(self, partner: Hashable) -> AsyncIterator[None]:
        """The partner does one of its works meanwhile.

        Raises TooManyAtOnce if too many of its wait, Unavailable if it waits too long, Abandoned.
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

        The turn ends with the work: not when whoever asked for it gets to go on, nor when nobody
        wants it any more. Raises Abandoned, before it begins.
        """
        check_wanted()
        return await asyncio.shield(asyncio.ensure_future(self._do(partner, work)))

    async def _do(self, partner: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        async with self.of(partner):
            return await work()

    async def _enter(self, partner: Hashable) -> None:
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

    def _leave(self, partner: Hashable) -> None:
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

    def _may(self, partner: Hashable) -> bool:
        return self._present[partner] < self._of_each


# Reads that nobody waits for any more. They are not cancelled, which the driver of PostgreSQL takes
# for a reason to open another connection, but end before their next portion.
_abandoned: WeakSet["asyncio.Task[Any]"] = WeakSet()


def abandon(task: "asyncio.Task[Any]") -> None:
    """Nobody waits any more for what this task reads."""
    _abandoned.add(task)


def check_wanted() -> None:
    """Raises Abandoned if nobody waits any more for what this task reads."""
    if _abandoned and asyncio.current_task() in _abandoned:
        raise Abandoned


@asynccontextmanager
async def giving_way() -> AsyncIterator[None]:
    """Lets others work, after what is done here, for as long as that took."""
    began = perf_counter()
    yield
    await asyncio.sleep(perf_counter() - began)


class Rest:
    """Lets others have the event loop when this has computed for a while."""

    def __init__(self) -> None:
        self._end = perf_counter() + LONGEST_S

    async def if_long(self) -> None:
        """Returns at once, or in the next round of the event loop. Raises Abandoned."""
        if perf_counter() > self._end:
            await asyncio.sleep(0)
            check_wanted()
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


# The event loop -----------------------------------------------------------------------------------


class LoopTurns:
    """Whose tasks may take a step of the event loop now.

    The loop goes on with whatever can, in the order in which it became able to. So a partner that
    has a thousand requests under way would have a thousand turns for each one of another. Here a
    task takes its next step at once only while there is little to do. Else it waits by partner, and
    in each round of the loop some go on. What counts is the processor's time: on a full machine a
    step may stand still for longer than it works.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: FairQueue[Hashable, Shared[Any]] = FairQueue()
        self._step_s: dict[Hashable, float] = {}  # what the last step of a partner took
        self._left_s = ROUND_S
        self.busy = False  # nobody may take a step without waiting

    def share(self, work: Coroutine[Any, Any, T], who: Callable[[], Hashable]) -> "Shared[T]":
        """The same work, in steps that take turns; `who` tells whose it is, when it has to wait."""
        return Shared(self, work, who)

    def wait(self, one: "Shared[Any]", who: Hashable) -> "asyncio.Future[None]":
        """Is done when it is its turn."""
        self._waiting.put(who, one)
        return self._loop.create_future()

    def took(self, seconds: float) -> None:
        """A step computed for so long."""
        self._left_s -= seconds
        if self._left_s < 0 and not self.busy:
            self.busy = True
            self._loop.call_soon(self._begin_round)

    def charge(self, who: Hashable, seconds: float, expected_s: float) -> None:
        """So long computed a step for which the partner has been charged with what was expected."""
        self._waiting.charge(who, seconds - expected_s)
        if len(self._step_s) > MOST_REMEMBERED:
            self._step_s.clear()
        self._step_s[who] = seconds

    def _begin_round(self) -> None:
        self._left_s, left_s = ROUND_S, ROUND_S
        while left_s > 0 and (found := self._waiting.pop()) is not None:
            who, one = found
            expected_s = self._step_s.get(who, USUAL_STEP_S)
            if one.admit(expected_s):
                self._waiting.charge(who, expected_s)
                left_s -= expected_s
        self.busy = len(self._waiting) > 0
        if self.busy:
            self._loop.call_soon(self._begin_round)


class Shared(Coroutine[Any, Any, T]):
    """Work whose steps take turns. What ends it, such as that it is cancelled, does not wait."""

    __slots__ = ("_charged", "_expected_s", "_turn", "_turns", "_who", "_work")

    def __init__(
        self, turns: LoopTurns, work: Coroutine[Any, Any, T], who: Callable[[], Hashable]
    ) -> None:
        self._turns = turns
        self._work = work
        self._who: Callable[[], Hashable] | None = who
        self._charged: Hashable = None  # whose it is, as soon as it had to wait
        self._turn: asyncio.Future[None] | None = None
        self._expected_s = 0.0

    def admit(self, expected_s: float) -> bool:
        """It may take a step, of which so much is expected; whether it still wants to."""
        if self._turn is None or self._turn.done():
            return False
        self._turn.set_result(None)
        self._expected_s = expected_s
        return True

    def send(self, value: Any, /) -> Any:
        turns = self._turns
        if turns.busy and self._turn is None:
            if self._who is not None:
                self._charged, self._who = self._who(), None
            self._turn = turns.wait(self, self._charged)
            return next(self._turn.__await__())
        self._turn = None
        began = thread_time()
        try:
            return self._work.send(value)
        except BaseException:
            self._end()
            raise
        finally:
            self._took(thread_time() - began)

    def throw(self, *error: Any) -> Any:
        self._turn = None
        began = thread_time()
        try:
            return self._work.throw(*error)
        except BaseException:
            self._end()
            raise
        finally:
            del error  # it knows this frame
            self._took(thread_time() - began)

    def _end(self) -> None:
        """Forgets whose it was, which knows the request, which knows its task, which knows this:
        else all of it would stay until the collector of cycles comes.
        """
        self._who = None

    def _took(self, seconds: float) -> None:
        self._turns.took(seconds)
        if self._charged is not None:
            self._turns.charge(self._charged, seconds, self._expected_s)
            self._expected_s = 0.0

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._work.__await__()
