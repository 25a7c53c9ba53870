"""Patches of one charger or vehicle that arrive together are written together.

A patch reads the entity, changes it, and replaces the version that it read. Of many patches at once
only one could succeed, and all others would have to try again. So patches wait while one write is
under way, and the next write has all of them, applied in the order of their arrival. Other
processes may write too: if one of them was faster, the patches are applied again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from time import monotonic
from typing import Any, NamedTuple, TypeAlias

from tether.domain.errors import PreconditionFailed, Unavailable
from tether.domain.models import Entity

MOST_WAITING = 2_000  # patches of one entity; later ones are refused with Unavailable
MOST_AT_ONCE = 200
BUSY_S = 0.005  # patches are applied for this time before other tasks have the event loop

Patch: TypeAlias = Callable[[int, Any], Any]
"""Returns the changed entity, given its version and itself; raises what the sender gets."""
Target: TypeAlias = tuple[type[Entity], int, str]
"""Kind, partner and id of an entity."""


class _Waiting(NamedTuple):
    patch: Patch
    version: "asyncio.Future[int]"


class Patches:
    """Writes patches in batches by entity."""

    def __init__(
        self,
        read: Callable[[Target], Awaitable[tuple[int, Entity]]],
        replace: Callable[[int, Entity, int, int], Awaitable[int]],
    ) -> None:
        """`read` returns version and entity of a target, or raises NotFound. `replace` is called
        with partner, entity, the version to replace, and by how much the new version is higher. It
        raises PreconditionFailed if the entity has another version.
        """
        self._read = read
        self._replace = replace
        self._waiting: dict[Target, list[_Waiting]] = {}
        self._writers: set[asyncio.Task[None]] = set()

    async def apply(self, target: Target, patch: Patch) -> int:
        """Applies the patch; returns the new version when it is durable.

        Raises what `patch` raises, NotFound, and Unavailable, also when too many patches wait.
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
        del one, waiting  # an error refers to this frame: these would make a reference cycle
        try:
            return await version
        finally:
            del version

    async def drain(self) -> None:
        """Returns when all patches are written."""
        while self._writers:
            await asyncio.wait(self._writers)

    async def _write_all(self, target: Target) -> None:
        while waiting := self._waiting[target]:
            batch, self._waiting[target] = waiting[:MOST_AT_ONCE], waiting[MOST_AT_ONCE:]
            try:
                while not await self._write(target, batch):
                    pass
            except Unavailable as error:
                # The patches that arrived since would only wait as long again.
                _fail([*batch, *self._waiting[target]], error)
                self._waiting[target] = []
            except Exception as error:
                _fail(batch, error)
        del self._waiting[target]

    async def _write(self, target: Target, batch: list[_Waiting]) -> bool:
        """Applies and writes the patches; False if another process changed the entity meanwhile."""
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
