"""The event loop is shared between partners: while it is busy, who has had the least goes on first.

An event loop goes on with whatever can, in the order in which it became able to. So a partner that
has a thousand requests under way would have a thousand turns for each one of another. Here a task
takes its next step at once only while there is little to do. Else it waits by partner, and in each
round of the loop some go on.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator, Hashable
from time import perf_counter
from typing import Any, TypeVar

from tether.storage.fair_queue import MOST_REMEMBERED, FairQueue

ROUND_S = 0.002  # of steps in a round of the event loop
USUAL_STEP_S = 0.0002  # until it is known what the steps of a partner take

T = TypeVar("T")


class LoopTurns:
    """Whose tasks may take a step now."""

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
        """A step took so long."""
        self._left_s -= seconds
        if self._left_s < 0 and not self.busy:
            self.busy = True
            self._loop.call_soon(self._begin_round)

    def charge(self, who: Hashable, seconds: float, expected_s: float) -> None:
        """So long took a step for which the partner has been charged with what was expected."""
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
        began = perf_counter()
        try:
            return self._work.send(value)
        except BaseException:
            self._end()
            raise
        finally:
            self._took(perf_counter() - began)

    def throw(self, *error: Any) -> Any:
        self._turn = None
        began = perf_counter()
        try:
            return self._work.throw(*error)
        except BaseException:
            self._end()
            raise
        finally:
            del error  # it knows this frame
            self._took(perf_counter() - began)

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
