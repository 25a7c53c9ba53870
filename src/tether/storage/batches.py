"""Handles items together that arrive at the same time.

While a batch is handled, the next items with the same key wait. They become the next batch. A
single item is handled at once.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from tether.domain.errors import Unavailable, for_another

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
R = TypeVar("R")


class Batches(Generic[K, T, R]):
    """Handles items in batches by key."""

    def __init__(
        self,
        handle: Callable[[K, list[T]], Awaitable[Sequence[R | Exception]]],
        *,
        max_at_once: int = sys.maxsize,
        max_waiting: int = sys.maxsize,
    ) -> None:
        """`handle` returns the result of each item, or the error for its caller."""
        self._handle = handle
        self._max_at_once = max_at_once
        self._max_waiting = max_waiting
        self._waiting: dict[K, list[tuple[T, asyncio.Future[R]]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, key: K, item: T) -> "asyncio.Future[R]":
        """The result of the item. Raises Unavailable if too many items with its key wait."""
        result: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        if (waiting := self._waiting.get(key)) is None:
            self._waiting[key] = [(item, result)]
            task = asyncio.create_task(self._handle_all(key))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif len(waiting) < self._max_waiting:
            waiting.append((item, result))
        else:
            raise Unavailable
        return result

    async def drain(self) -> None:
        """Returns when no item waits any more."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _handle_all(self, key: K) -> None:
        while waiting := self._waiting[key]:
            batch, self._waiting[key] = waiting[: self._max_at_once], waiting[self._max_at_once :]
            results: Sequence[R | Exception]
            try:
                results = await self._handle(key, [item for item, _ in batch])
            except Exception as error:
                if isinstance(error, Unavailable):
                    # The items that came meanwhile would wait in vain, too.
                    batch += self._waiting[key]
                    self._waiting[key] = []
                results = [for_another(error) for _ in batch]
            for (_, future), result in zip(batch, results, strict=True):
                if future.done():  # the caller has given up
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        del self._waiting[key]
