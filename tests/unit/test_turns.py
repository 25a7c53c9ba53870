"""Partners take turns: who has used the least is next, whatever waits of the others."""

import asyncio
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from time import thread_time
from typing import Any, TypeVar

import pytest

from tether.domain.errors import TooManyAtOnce, Unavailable
from tether.storage.engine import Statement
from tether.storage.sqlite.writer import LARGE, Write, WriteQueue
from tether.storage.turns import FairQueue, LoopTurns, Turns, next_turn

T = TypeVar("T")
GOOD, BAD, WORSE = 1, 2, 3
BUSY_S = 0.002
LONG_S = 60.0


def popped(queue: FairQueue[int | None, str], cost: float) -> str:
    """The next step, and its partner pays for it."""
    found = queue.pop()
    assert found is not None
    queue.charge(found[0], cost)
    return found[1]


def test_who_took_the_least_is_next_and_of_each_the_first() -> None:
    queue = FairQueue[int | None, str]()
    for number in range(4):
        queue.put(BAD, f"bad {number}")
    assert popped(queue, 5.0) == "bad 0"
    assert popped(queue, 5.0) == "bad 1"
    queue.put(GOOD, "good 0")
    queue.put(GOOD, "good 1")
    assert [popped(queue, 1.0) for _ in range(4)] == ["good 0", "good 1", "bad 2", "bad 3"]
    assert queue.pop() is None
    assert not queue


def test_nobody_saves_up_turns() -> None:
    queue = FairQueue[int | None, str]()
    queue.put(GOOD, "good")
    popped(queue, 1.0)
    for number in range(100):
        queue.put(BAD, f"bad {number}")
    for _ in range(50):
        popped(queue, 1.0)
    for number in range(10):
        queue.put(GOOD, f"good {number}")
    order = [popped(queue, 1.0) for _ in range(10)]
    assert 4 <= sum(one.startswith("good") for one in order) <= 6


def test_who_takes_less_than_others_goes_first_when_some_of_its_work_comes_at_once() -> None:
    queue = FairQueue[int | None, str]()
    queue.put(GOOD, "good")
    popped(queue, 0.001)
    for number in range(200):
        queue.put((BAD, WORSE)[number % 2], f"bad {number}")
    for _ in range(100):
        popped(queue, 0.01)
    for number in range(10):
        queue.put(GOOD, f"good {number}")
    assert [popped(queue, 0.002)[:4] for _ in range(10)] == ["good"] * 10
    for number in range(10):  # it has used up its lead
        queue.put(GOOD, f"good {number}")
    order = [popped(queue, 0.01)[:4] for _ in range(20)]
    assert order.count("good") < 10


def test_what_belongs_to_no_partner_has_turns_too() -> None:
    queue = FairQueue[int | None, str]()
    queue.put(None, "one")
    queue.put(GOOD, "two")
    assert {popped(queue, 1.0), popped(queue, 1.0)} == {"one", "two"}
    with pytest.raises(ValueError):  # noqa: PT011
        queue.remove(None, "one")


def test_a_partner_waits_for_one_of_its_own_and_not_for_the_queue_of_another() -> None:
    async def scenario() -> None:
        turns, order, ends = Turns(at_once=2, per_partner=1), list[str](), asyncio.Event()

        async def work(partner: int, name: str) -> None:
            async with turns.of(partner):
                order.append(name)
                await ends.wait()

        tasks = [asyncio.create_task(work(BAD, f"bad {n}")) for n in range(50)]
        tasks += [asyncio.create_task(work(WORSE, f"worse {n}")) for n in range(50)]
        await asyncio.sleep(0)
        assert order == ["bad 0", "worse 0"]
        tasks.append(asyncio.create_task(work(GOOD, "good")))
        await asyncio.sleep(0)
        ends.set()
        await asyncio.gather(*tasks)
        assert order[2] == "good"
        assert order[1:].index("bad 1") < order[1:].index("bad 2")

    asyncio.run(scenario())


def test_only_who_waits_too_much_is_refused() -> None:
    async def scenario() -> None:
        refused: list[str] = []
        turns = Turns(1, 1, refused.append, max_waiting=3)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(turns.of(BAD))
            waiting = [
                asyncio.create_task(stack.enter_async_context(turns.of(BAD))) for _ in range(3)
            ]
            await asyncio.sleep(0)
            with pytest.raises(TooManyAtOnce):
                async with turns.of(BAD):
                    pass
            good = asyncio.create_task(stack.enter_async_context(turns.of(GOOD)))
            await asyncio.sleep(0)
            assert not good.done()
            for task in (*waiting, good):  # they give up, and leave nothing behind
                task.cancel()
            await asyncio.gather(*waiting, good, return_exceptions=True)
        assert refused == ["reads"]
        async with asyncio.timeout(LONG_S), turns.of(GOOD):
            pass

    asyncio.run(scenario())


def test_who_waits_too_long_is_told_and_takes_no_turn() -> None:
    async def scenario() -> None:
        turns = Turns(1, 1, patience_s=0.01)
        async with turns.of(BAD):
            with pytest.raises(Unavailable):
                async with turns.of(GOOD):
                    pass
        async with turns.of(GOOD):
            pass

    asyncio.run(scenario())


def test_a_turn_lasts_as_long_as_the_work_also_when_nobody_wants_it_any_more() -> None:
    async def scenario() -> None:
        turns, ends, begun = Turns(1, 1), asyncio.Event(), list[int]()

        async def begin() -> None:
            begun.append(GOOD)

        asked = asyncio.create_task(turns.run(BAD, ends.wait))
        await asyncio.sleep(0)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        other = asyncio.create_task(turns.run(GOOD, begin))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not begun
        ends.set()
        await other
        assert begun == [GOOD]

    asyncio.run(scenario())


def compute(seconds: float = BUSY_S) -> None:
    """Keeps this thread busy for this processor time."""
    until = thread_time() + seconds
    while thread_time() < until:
        pass


def task(turns: LoopTurns, partner: int, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task whose work takes turns of the partner."""
    return asyncio.create_task(work, context=turns.context_of(partner))


def test_the_event_loop_is_shared_by_what_each_took() -> None:
    """A partner with a hundred busy tasks has about as much of the loop as one with a single."""

    async def scenario() -> None:
        turns, order = LoopTurns(), list[int]()

        async def work(partner: int, steps: int) -> int:
            for _ in range(steps):
                await next_turn()
                order.append(partner)
                compute()
            return partner

        bad = [task(turns, BAD, work(BAD, 5)) for _ in range(100)]
        for _ in range(3):
            await asyncio.sleep(0)
        good = task(turns, GOOD, work(GOOD, 10))
        assert await good == GOOD
        between = order[order.index(GOOD) :]
        assert between.count(BAD) < 200  # in turn it would be all that were left
        assert await asyncio.gather(*bad) == [BAD] * 100

    asyncio.run(scenario())


def test_work_begins_in_the_turn_of_its_partner() -> None:
    """A partner whose work of one step comes a hundred times is not a hundred times as fast."""

    async def scenario() -> None:
        turns, order, done = LoopTurns(), list[int](), asyncio.Event()

        async def work(partner: int) -> None:
            order.append(partner)
            compute()
            if len(order) == 110:
                done.set()

        for _ in range(100):
            turns.start(BAD, work(BAD))
        for _ in range(3):
            await asyncio.sleep(0)
        for _ in range(10):
            turns.start(GOOD, work(GOOD))
        await done.wait()
        assert order[: order.index(GOOD)].count(BAD) < 30
        assert order[order.index(GOOD) :][:20].count(GOOD) >= 5

    asyncio.run(scenario())


def test_work_that_begins_at_once_is_measured() -> None:
    """A partner whose few requests take long soon begins one of them in a round."""

    async def scenario() -> None:
        turns, order, done = LoopTurns(), list[int](), asyncio.Event()

        async def work(partner: int) -> None:
            order.append(partner)
            compute()
            if len(order) in (8, 17):
                done.set()

        for _ in range(8):
            turns.start(BAD, work(BAD))
        await done.wait()
        await asyncio.sleep(0)
        done.clear()
        for _ in range(8):
            turns.start(BAD, work(BAD))
        turns.start(GOOD, work(GOOD))
        await done.wait()
        assert order.index(GOOD) <= 8 + 2

    asyncio.run(scenario())


def test_a_step_that_stands_still_while_others_have_the_processor_is_not_charged_for_it() -> None:
    async def scenario() -> None:
        turns, order = LoopTurns(), list[int]()

        async def keep_computing() -> None:
            for _ in range(100):
                await next_turn()
                order.append(BAD)
                compute()

        async def stand_still() -> None:
            for _ in range(5):
                await next_turn()
                order.append(GOOD)
                time.sleep(3 * BUSY_S)  # noqa: ASYNC251 - that is what is tried

        bad = [task(turns, BAD, keep_computing()) for _ in range(10)]
        good = [task(turns, GOOD, stand_still()) for _ in range(10)]
        await asyncio.gather(*good)
        assert order.count(BAD) < 75  # three for each of the good ones, if those were charged
        for computing in bad:
            computing.cancel()
        await asyncio.gather(*bad, return_exceptions=True)

    asyncio.run(scenario())


def test_work_that_takes_turns_fails_ends_and_is_cancelled_like_any_other() -> None:
    async def scenario() -> None:
        turns = LoopTurns()

        async def fail() -> None:
            await next_turn()
            raise ValueError("as it should")

        async def keep_busy() -> None:
            compute(2 * BUSY_S)
            await next_turn()

        begun = asyncio.Event()

        async def give_up() -> str:
            await next_turn()
            begun.set()
            try:
                await asyncio.sleep(LONG_S)
            except asyncio.CancelledError:
                return "was told"
            return "was not told"

        crowd = [task(turns, BAD, keep_busy()) for _ in range(20)]
        with pytest.raises(ValueError, match="as it should"):
            await task(turns, BAD, fail())
        waiting = task(turns, BAD, give_up())
        await asyncio.gather(*crowd, begun.wait())
        waiting.cancel()
        assert await waiting == "was told"
        late = task(turns, BAD, give_up())
        await asyncio.sleep(0)
        late.cancel()  # while it waits for its turn
        (ended,) = await asyncio.gather(late, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError)
        assert await task(turns, GOOD, asyncio.sleep(0, "others go on")) == "others go on"

    asyncio.run(scenario())


def test_a_small_write_waits_for_no_large_one_of_another() -> None:
    async def scenario() -> None:
        queue, loop = WriteQueue(), asyncio.get_running_loop()

        def write(partner: int, size: int) -> Write:
            def run(writer: object, statements: object) -> None:
                compute(size / LARGE * BUSY_S)

            text = "x" * size
            return Write(run, [Statement("", (partner, text))], partner, loop.create_future())

        def committed() -> list[object]:
            writes = queue.next_commit()
            for one in writes:
                queue.run(one, None)  # type: ignore[arg-type]
            return [one.partner for one in writes]

        for _ in range(3):
            queue.put(write(BAD, 2 * LARGE))
        assert committed() == [BAD]
        for partner in (BAD, GOOD, WORSE, GOOD):
            queue.put(write(partner, 10))
        assert sorted(map(str, committed())) == ["1", "1", "3"]  # those of BAD come in their order
        assert committed() == [BAD]
        assert committed() == [BAD]
        assert committed() == [BAD]
        queue.close()
        assert committed() == []

    asyncio.run(scenario())
