"""Removes expired events of a vehicle, and the sessions that they made.

Each vehicle is cut at an instant: at the horizon, or at the start of the session that is active at
the horizon. A snapshot stores the state that the events before the cut led to. From then on the
vehicle's sessions are computed from the snapshot. So the remaining events, and events that arrive
later, give the same sessions as before. The same transaction removes the sessions before the cut.
After that the events are withdrawn, so that followers hear of it. They no longer count for any
session, so this may happen at any time.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tether.domain.models import Vehicle, WithdrawalReason
from tether.projections.projector import Projector
from tether.projections.recompute import BEGINNING
from tether.storage.entities import Entities
from tether.storage.events import VehicleEvents
from tether.storage.session_records import Change, SessionRecords
from tether.storage.snapshots import VEHICLES, Snapshot, Snapshots
from tether.storage.turns import throttled
from tether.storage.withdrawals import AT_ONCE, Withdrawals

CHANGED_AT_ONCE = 100  # sessions; with more, another process is likely to change one meanwhile


@dataclass(frozen=True)
class Expiring:
    """Lets events expire. Every method raises Unavailable."""

    entities: Entities
    snapshots: Snapshots
    records: SessionRecords
    withdrawals: Withdrawals
    projector: Projector

    async def expire(self, partner: int, horizon_ms: int) -> int:
        """Withdraws the events of sessions that ended before the horizon; returns how many.

        No events before the horizon may be added any more. It may be stopped at any moment: the
        next call continues. Raises NotDerived.
        """
        await self.projector.catch_up(partner)
        count, after = 0, ""
        while page := await self.entities.page(Vehicle, partner, after, VEHICLES):
            after = page[-1][0]
            vehicles = [vehicle for vehicle, _ in page]
            while until_ms := await self._expired(partner, vehicles, horizon_ms):
                await self._cut_all(partner, until_ms)
                count += await self._withdraw_before(partner, until_ms)
        return count

    async def _expired(
        self, partner: int, vehicles: Sequence[str], horizon_ms: int
    ) -> dict[str, int]:
        """The vehicles with events that can expire, each with the instant of its cut."""
        first_ms = await self.snapshots.first_events(partner, vehicles, horizon_ms)
        if not first_ms:
            return {}
        cut_ms = await self.snapshots.instants(partner, first_ms)
        wanted = ((vehicle, horizon_ms, horizon_ms) for vehicle in first_ms)
        until_ms = {}
        for vehicle, (last, _) in (await self.records.around(partner, wanted)).items():
            at_ms = horizon_ms
            if last is not None and (last[0].end_ms is None or last[0].end_ms >= horizon_ms):
                at_ms = last[0].start_ms
            later = await self.records.start_after(partner, vehicle, BEGINNING, CHANGED_AT_ONCE)
            if later is not None and later[0] > first_ms[vehicle]:
                at_ms = min(at_ms, later[0])
            at_ms = max(at_ms, cut_ms.get(vehicle, at_ms))
            if first_ms[vehicle] < at_ms:
                until_ms[vehicle] = at_ms
        return until_ms

    async def _cut_all(self, partner: int, until_ms: dict[str, int]) -> None:
        """Cuts each vehicle at its instant, unless it is already cut there."""
        cut_ms = await self.snapshots.instants(partner, until_ms)
        vehicles = [vehicle for vehicle, at_ms in until_ms.items() if cut_ms.get(vehicle) != at_ms]

        async def make(vehicle: str, seq: int) -> Snapshot | None:
            return await self.projector.changes.snapshot(partner, vehicle, seq, until_ms[vehicle])

        await self._replace(partner, vehicles, make)

    async def forget_charger(self, partner: int, charger: str) -> None:
        """Removes a charger from all snapshots, and computes their sessions again."""
        vehicles = [
            snapshot.vehicle_id async for snapshot in self.snapshots.all(partner)
            if snapshot.without_charger(charger) != snapshot
        ]  # fmt: skip

        async def make(vehicle: str, seq: int) -> Snapshot | None:
            now = await self.snapshots.get(partner, vehicle)
            return None if now is None else now.without_charger(charger)

        await self._replace(partner, vehicles, make)

    async def _replace(
        self,
        partner: int,
        vehicles: Sequence[str],
        make: Callable[[str, int], Awaitable[Snapshot | None]],
    ) -> None:
        """Stores a new snapshot of each vehicle, and the changes of its sessions: some vehicles in
        each transaction. `make` gets the number up to which events are derived. It returns None if
        there is nothing to do any more.
        """
        waiting = list(vehicles)
        while waiting:
            position = await self.projector.settled(partner)
            if position is None:  # the partner was deleted
                return
            snapshots, changes, done = list[Snapshot](), list[Change](), 0
            for done, vehicle in enumerate(waiting, 1):
                if (snapshot := await make(vehicle, position.seq)) is not None:
                    snapshots.append(snapshot)
                    changes += await self._changes(partner, position.seq, snapshot)
                if len(changes) >= CHANGED_AT_ONCE or done == CHANGED_AT_ONCE:
                    break
            written = await self.projector.write(
                partner, position, position.seq, changes, snapshots=snapshots
            )
            if written is not None:
                waiting = waiting[done:]
            await asyncio.sleep(0)

    async def _changes(self, partner: int, seq: int, snapshot: Snapshot) -> list[Change]:
        """The changes if a vehicle's sessions are computed from this snapshot."""
        late = VehicleEvents(snapshot.vehicle_id, 0, snapshot.at_ms, snapshot.at_ms - 1)
        portions = self.projector.changes.of_vehicle(
            partner, snapshot.vehicle_id, seq, late, snapshot
        )
        return [change async for portion in portions for change in portion.changes]

    async def _withdraw_before(self, partner: int, until_ms: dict[str, int]) -> int:
        """Withdraws events before each vehicle's instant; returns how many."""
        count, ids = 0, list[str]()
        for vehicle, at_ms in until_ms.items():
            ids += await self.snapshots.expired_events(partner, vehicle, at_ms, AT_ONCE)
            if len(ids) >= AT_ONCE:
                count += await self._withdraw(partner, ids)
                ids = []
        return count + await self._withdraw(partner, ids)

    async def _withdraw(self, partner: int, ids: list[str]) -> int:
        count, reason = 0, WithdrawalReason.EXPIRED
        async with throttled():
            async for found in self.withdrawals.withdraw(partner, ids, reason=reason):
                count += sum(found)
        return count
