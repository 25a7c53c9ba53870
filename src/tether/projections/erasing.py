"""Erases chargers and vehicles with all that names them, in portions, after a crash too.

Its events are taken back, so that followers are told and all that was derived of them goes the way
of every withdrawal. Then the id itself goes: from sessions that are no more, from withdrawals, from
refused requests, and from what the file still has of deleted rows. Every step may be done again.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from tether.domain.errors import HasEvents, NotDerived, NotFound, Unavailable
from tether.domain.models import Charger, WithdrawalReason
from tether.projections.expiring import Expiring
from tether.projections.projector import Projector
from tether.storage.engine import Statement
from tether.storage.entities import Entities
from tether.storage.erasures import KINDS, MOST_COUNTED, Erasure, Erasures
from tether.storage.turns import giving_way
from tether.storage.withdrawals import Withdrawals

AGAIN_S = 5.0  # between looks for erasures that a process left that was killed
PATIENCE_S = 20.0  # that whoever asked for it waits


class Parts(NamedTuple):
    """What it works on."""

    erasures: Erasures
    entities: Entities
    withdrawals: Withdrawals
    projector: Projector
    expiring: Expiring


class Erasing:
    """Erases chargers and vehicles. Every method raises Unavailable."""

    def __init__(
        self,
        parts: Parts,
        now_ms: Callable[[], int],
        on_failure: Callable[[int, Exception], None] = lambda partner, error: None,
    ) -> None:
        """`on_failure` is told of each try that failed by a mistake of ours."""
        self._parts = parts
        self._now_ms = now_ms
        self._on_failure = on_failure
        self._tasks: dict[Erasure, asyncio.Task[None]] = {}

    async def erase(
        self,
        erasure: Erasure,
        now_ms: int,
        also: Sequence[Statement],
        *,
        with_events: bool,
    ) -> bool:
        """Erases it; False if that takes long, and goes on by itself.

        With the beginning go the statements `also`: of the audit trail. Raises NotFound, and
        HasEvents unless it may have events.
        """
        if not await self._parts.erasures.is_under_way(erasure):
            await self._begin(erasure, now_ms, also, with_events=with_events)
        task = self._task(erasure)
        done, _ = await asyncio.wait({task}, timeout=PATIENCE_S)
        return bool(done) and not await self._parts.erasures.is_under_way(erasure)

    async def _begin(
        self, erasure: Erasure, now_ms: int, also: Sequence[Statement], *, with_events: bool
    ) -> None:
        erasures = self._parts.erasures
        await self._parts.entities.get(KINDS[erasure.kind], erasure.partner, erasure.id)
        if not with_events and (count := await erasures.count_events(erasure)):
            raise HasEvents(count, MOST_COUNTED)
        if await erasures.begin(erasure, now_ms, also, with_events=with_events):
            return
        if not with_events and (count := await erasures.count_events(erasure)):
            raise HasEvents(count, MOST_COUNTED)
        if not await erasures.is_under_way(erasure):
            raise NotFound  # another has just done it

    async def under_way(self) -> list[Erasure]:
        """What is being erased, here or elsewhere."""
        return await self._parts.erasures.all()

    async def keep_erasing(self) -> None:
        """Goes on, for ever, with what another process has left, and forgets what is long done."""
        while True:
            with suppress(Unavailable):
                for erasure in await self._parts.erasures.all():
                    self._task(erasure)
                await self._parts.erasures.forget_ended(self._now_ms())
            await asyncio.sleep(AGAIN_S)

    async def close(self) -> None:
        """Stops where it stands; nothing is lost by that."""
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _task(self, erasure: Erasure) -> "asyncio.Task[None]":
        task = self._tasks.get(erasure)
        if task is None:
            task = self._tasks[erasure] = asyncio.create_task(self._try(erasure))
            task.add_done_callback(lambda _: self._tasks.pop(erasure))
        return task

    async def _try(self, erasure: Erasure) -> None:
        try:
            await self._run(erasure)
        except Unavailable:
            pass  # it is tried again soon
        except Exception as error:  # what is wrong with one must not end the others
            self._on_failure(erasure.partner, error)

    async def _run(self, erasure: Erasure) -> None:
        erasures, partner = self._parts.erasures, erasure.partner
        while ids := await erasures.some_events(erasure):
            async with giving_way():
                reason = WithdrawalReason.ERASED
                async for _ in self._parts.withdrawals.withdraw(partner, ids, reason=reason):
                    pass
        while True:
            with suppress(NotDerived):
                await self._parts.projector.catch_up(partner)
                break
        if KINDS[erasure.kind] is Charger:
            await self._parts.expiring.forget_charger(partner, erasure.id)
        left = True
        while left:
            async with giving_way():
                left = await erasures.forget_some(erasure)
        await erasures.end(erasure, self._now_ms())
