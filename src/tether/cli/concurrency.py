"""Several things under way at the same time."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import TypeVar

T = TypeVar("T")

AT_ONCE = 16


async def each_of(things: Iterable[T], send: Callable[[T], Awaitable[None]]) -> None:
    """Sends all, several at a time. The first error ends the others before it is raised."""
    waiting = iter(things)

    async def send_waiting() -> None:
        for thing in waiting:
            await send(thing)

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(send_waiting())
    except ExceptionGroup as group:  # one cause stops them all: the first says enough
        raise group.exceptions[0] from None


async def in_own_thread(call: Callable[[], T]) -> T:
    """What the call gives, from a thread of its own. Nobody waits for that thread at the end.

    `asyncio.to_thread` would: who reads a pipe in which nothing comes could not be interrupted.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(how: Callable[[], None]) -> None:
        if not result.done():
            how()

    def run() -> None:
        try:
            how = partial(result.set_result, call())
        except BaseException as error:
            how = partial(result.set_exception, error)
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, how)

    threading.Thread(target=run, daemon=True).start()
    return await result
