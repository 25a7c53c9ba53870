"""Erases chargers and vehicles with all data that names them, in portions, also after a crash.

First the events are withdrawn, so that followers hear of it and the sessions change as with every
withdrawal. Then the id is removed: from removed sessions, from withdrawals, from refused requests,
and from deleted rows in the database file. Every step may be repeated.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tether.domain.errors import HasEvents, NotDerived, PreconditionFailed, Unavailable
from tether.domain.models import Charger, WithdrawalReason
from tether.projections.expiring import Expiring
from tether.projections.projector import Projector
from tether.storage.engine import Statement
from tether.storage.entities import Entities
from tether.storage.erasures import KINDS, MAX_COUNTED, Erasure, Erasures
from tether.storage.turns import throttled
from tether.storage.withdrawals import Withdrawals

SEARCH_S = 5.0  # between two searches for erasures that a killed process has left
PATIENCE_S = 20.0  # how long a caller waits


@dataclass(frozen=True)
class Erasing:
    """Erases chargers and vehicles. Every method raises Unavailable.

    `on_failure` gets the partner and the error of each attempt that failed by a bug of ours.
    """

    erasures: Erasures
    entities: Entities
    withdrawals: Withdrawals
    projector: Projector
    expiring: Expiring
    now_ms: Callable[[], int]
    on_failure: Callable[[int, Exception], None]
    _tasks: dict[Erasure, asyncio.Task[None]] = field(default_factory=dict)

    async def erase(
        self,
        erasure: Erasure,
        now_ms: int,
        also: Sequence[Statement],
        *,
        with_events: bool,
        version: int = 0,
    ) -> bool:
        """Erases a charger or vehicle. False if that takes long: then it continues by itself.

        The statements `also`, for the audit trail, run in its first transaction. Raises NotFound,
        HasEvents if it has events, unless `with_events`, and PreconditionFailed if it has another
        version, unless that is 0.
        """
        if not await self.erasures.is_under_way(erasure):
            await self._begin(erasure, now_ms, also, with_events, version)
        task = self._task(erasure)
        done, _ = await asyncio.wait({task}, timeout=PATIENCE_S)
        return bool(done) and not await self.erasures.is_under_way(erasure)

    async def _begin(
        self,
        erasure: Erasure,
        now_ms: int,
        also: Sequence[Statement],
        with_events: bool,
        version: int,
    ) -> None:
        await self.entities.get(KINDS[erasure.kind], erasure.partner, erasure.id)
        if not with_events:
            await self._check_no_events(erasure)
        if await self.erasures.begin(
            erasure, now_ms, also, with_events=with_events, version=version
        ):
            return
        if not with_events:
            await self._check_no_events(erasure)
        if not await self.erasures.is_under_way(erasure):
            # Another request has just erased or changed it.
            await self.entities.get(KINDS[erasure.kind], erasure.partner, erasure.id)
            raise PreconditionFailed

    async def _check_no_events(self, erasure: Erasure) -> None:
        if count := await self.erasures.count_events(erasure):
            raise HasEvents(count, MAX_COUNTED)

    async def run(self) -> None:
        """Continues erasures of killed processes, and deletes the records of old ones, until it is
        cancelled.
        """
        while True:
            with suppress(Unavailable):
                for erasure in await self.erasures.all():
                    self._task(erasure)
                await self.erasures.delete_ended(self.now_ms())
            await asyncio.sleep(SEARCH_S)

    async def close(self) -> None:
        """Stops at once. Nothing is lost: the next process continues."""
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
            await self._erase(erasure)
        except Unavailable:
            pass  # tried again soon
        except Exception as error:  # one failure must not stop the other erasures
            self.on_failure(erasure.partner, error)

    async def _erase(self, erasure: Erasure) -> None:
        erasures, partner = self.erasures, erasure.partner
        while ids := await erasures.next_events(erasure):
            async with throttled():
                reason = WithdrawalReason.ERASED
                async for _ in self.withdrawals.withdraw(partner, ids, reason=reason):
                    pass
        while True:
            with suppress(NotDerived):
                await self.projector.catch_up(partner)
                break
        if KINDS[erasure.kind] is Charger:
            await self.expiring.forget_charger(partner, erasure.id)
        left = True
        while left:
            async with throttled():
                left = await erasures.delete_some(erasure)
        await erasures.end(erasure, self.now_ms())
