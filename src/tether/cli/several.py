"""Several requests under way at the same time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
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
