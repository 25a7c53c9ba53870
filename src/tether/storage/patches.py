"""Patches of one charger or vehicle that arrive together are written together.

Each reads the entity, merges, and replaces the version it read. Of many at once only one could win,
and all others would have to do it again: the work would grow by the square. So, as events do, they
gather while one write is under way; the next write has all of them, merged one after another in the
order of their arrival. Other processes may write too: who loses against them merges again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic
from typing import Any, NamedTuple, TypeAlias

from tether.domain.errors import PreconditionFailed, Unavailable
from tether.domain.models import Entity

MOST_WAITING = 2_000  # of one entity; a later one is told to come again
MOST_AT_ONCE = 200
BUSY_S = 0.005  # so long patches are merged before others have the event loop

Patch: TypeAlias = Callable[[int, Any], Any]
"""Makes of an entity, whose version it is told, the next one; raises what its sender is told."""
Target: TypeAlias = tuple[type[Entity], int, str]
"""Kind, partner and id of an entity."""


class _Waiting(NamedTuple):
    patch: Patch
    version: "asyncio.Future[int]"


class Patches:
    """The way of all patches into the store."""

    def __init__(
        self,
        read: Callable[[Target], Awaitable[tuple[int, Entity]]],
        replace: Callable[[int, Entity, int, int], Awaitable[int]],
    ) -> None:
        """`read` tells version and entity of a target, or raises NotFound. `replace` puts an entity
        of a partner in place of the version that it is given, as one that is so many higher; it
        raises PreconditionFailed if there is no such version any more.
        """
        self._read = read
        self._replace = replace
        self._waiting: dict[Target, list[_Waiting]] = {}
        self._writers: set[asyncio.Task[None]] = set()

    async def apply(self, target: Target, patch: Patch) -> int:
        """The version that the patch made, once it is durable.

        Raises what `patch` raises, NotFound, and Unavailable also when too many wait.
        """
        waiting = self._waiting.get(target)
        if waiting is not None and len(waiting) >= MOST_WAITING:
            raise Unavailable
        one = _Waiting(patch, asyncio.get_running_loop().create_future())
        if waiting is None:
            self._waiting[target] = [one]
            writer = asyncio.create_task(self._write_all(target))
            self._writers.add(writer)
            writer.add_done_callback(self._writers.discard)
        else:
            waiting.append(one)
        version = one.version
        del one, waiting  # an error would hold this frame, and the frame, through these, the error
        try:
            return await version
        finally:
            del version

    async def drain(self) -> None:
        """Returns when nothing waits any more."""
        while self._writers:
            await asyncio.wait(self._writers)

    async def _write_all(self, target: Target) -> None:
        while waiting := self._waiting[target]:
            batch, self._waiting[target] = waiting[:MOST_AT_ONCE], waiting[MOST_AT_ONCE:]
            try:
                while not await self._write(target, batch):
                    pass
            except Unavailable as error:
                # What came behind it meanwhile would only wait as long again.
                _fail([*batch, *self._waiting[target]], error)
                self._waiting[target] = []
            except Exception as error:
                _fail(batch, error)
        del self._waiting[target]

    async def _write(self, target: Target, batch: list[_Waiting]) -> bool:
        """Writes what the patches make of the entity; whether nobody else changed it meanwhile."""
        read, entity = await self._read(target)
        version = read
        results: list[tuple[_Waiting, int | Exception]] = []
        busy_since = monotonic()
        for one in batch:
            try:
                entity = one.patch(version, entity)
                version += 1
                results.append((one, version))
            except Exception as error:
                results.append((one, error.with_traceback(None)))
            if monotonic() - busy_since > BUSY_S:
                await asyncio.sleep(0)
                busy_since = monotonic()
        if version > read:
            try:
                await self._replace(target[1], entity, read, version - read)
            except PreconditionFailed:
                return False
        for one, result in results:
            if one.version.done():  # the client is gone
                continue
            if isinstance(result, int):
                one.version.set_result(result)
            else:
                one.version.set_exception(result)
        return True


def _fail(waiting: Iterable[_Waiting], error: Exception) -> None:
    for one in waiting:
        if not one.version.done():
            one.version.set_exception(error)
