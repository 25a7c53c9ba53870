"""Lets the events of a vehicle expire, with the sessions that they made.

A vehicle is cut at an instant: where the session begins that reaches over the horizon, else at the
horizon. What the events before that meant is kept as a snapshot, from which the vehicle is derived
from then on, so that all that remains, and all that is reported later, derives to exactly what it
would have been. In the same transaction the sessions go that began before. Then the events are
taken back, so that followers are told; as they mean nothing any more, it does not matter when.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from tether.domain.models import Vehicle, WithdrawalReason
from tether.projections.changes import BEGINNING
from tether.projections.late import Late
from tether.projections.projector import Projector
from tether.storage.entities import Entities
from tether.storage.session_records import Change, SessionRecords
from tether.storage.snapshots import VEHICLES, Snapshot, Snapshots
from tether.storage.turns import giving_way
from tether.storage.withdrawals import AT_ONCE, Withdrawals

CHANGED_AT_ONCE = 100  # sessions: while more are looked for, somebody else may change some


class ExpiringParts(NamedTuple):
    """What it works on."""

    entities: Entities
    snapshots: Snapshots
    records: SessionRecords
    withdrawals: Withdrawals
    projector: Projector


class Expiring:
    """Lets events expire. Every method raises Unavailable."""

    def __init__(self, parts: ExpiringParts) -> None:
        self._parts = parts

    async def expire(self, partner: int, horizon_ms: int) -> int:
        """Takes back the events before the horizon of sessions that have ended before it; returns
        how many. No earlier event may be added any more.

        May be stopped at any moment: the next time it goes on where it stood. Raises NotDerived.
        """
        await self._parts.projector.catch_up(partner)
        count, after = 0, ""
        while page := await self._parts.entities.page(Vehicle, partner, after, VEHICLES):
            after = page[-1][0]
            vehicles = [vehicle for vehicle, _ in page]
            while until_ms := await self._expired(partner, vehicles, horizon_ms):
                await self._cut_all(partner, until_ms)
                count += await self._take_back(partner, until_ms)
        return count

    async def _expired(
        self, partner: int, vehicles: Sequence[str], horizon_ms: int
    ) -> dict[str, int]:
        """Those of these vehicles of which events can go, each with the instant before which."""
        first_ms = await self._parts.snapshots.first_events(partner, vehicles, horizon_ms)
        if not first_ms:
            return {}
        cut_ms = await self._parts.snapshots.instants(partner, first_ms)
        wanted = ((vehicle, horizon_ms, horizon_ms) for vehicle in first_ms)
        until_ms = {}
        for vehicle, (last, _) in (await self._parts.records.around(partner, wanted)).items():
            at_ms = horizon_ms
            if last is not None and (last[0].end_ms is None or last[0].end_ms >= horizon_ms):
                at_ms = last[0].start_ms
            behind = await self._parts.records.start_behind(
                partner, vehicle, BEGINNING, CHANGED_AT_ONCE
            )
            if behind is not None and behind[0] > first_ms[vehicle]:
                at_ms = min(at_ms, behind[0])
            at_ms = max(at_ms, cut_ms.get(vehicle, at_ms))
            if first_ms[vehicle] < at_ms:
                until_ms[vehicle] = at_ms
        return until_ms

    async def _cut_all(self, partner: int, until_ms: dict[str, int]) -> None:
        """Cuts these vehicles, unless they are cut there already."""
        cut_ms = await self._parts.snapshots.instants(partner, until_ms)
        vehicles = [vehicle for vehicle, at_ms in until_ms.items() if cut_ms.get(vehicle) != at_ms]

        async def make(vehicle: str, seq: int) -> Snapshot | None:
            changes = self._parts.projector.changes
            return await changes.snapshot(partner, vehicle, seq, until_ms[vehicle])

        await self._replace(partner, vehicles, make)

    async def forget_charger(self, partner: int, charger: str) -> None:
        """Leaves nothing of a charger in the snapshots: those of vehicles that were there are
        replaced, and these vehicles derived again.
        """
        vehicles = [
            one.vehicle_id async for one in self._parts.snapshots.all(partner)
            if one.without_charger(charger) != one
        ]  # fmt: skip

        async def make(vehicle: str, seq: int) -> Snapshot | None:
            now = await self._parts.snapshots.get(partner, vehicle)
            return None if now is None else now.without_charger(charger)

        await self._replace(partner, vehicles, make)

    async def _replace(
        self,
        partner: int,
        vehicles: Sequence[str],
        make: Callable[[str, int], Awaitable[Snapshot | None]],
    ) -> None:
        """Stores the snapshot that is made of each of these vehicles, and what follows from it; of
        some of them in a transaction. `make` gets the number up to which events are derived, and
        makes None if there is nothing to do any more.
        """
        waiting = deque(vehicles)
        while waiting:
            position = await self._parts.projector.settled(partner)
            if position is None:  # the partner was deleted
                return
            snapshots, changes, done = list[Snapshot](), list[Change](), 0
            for vehicle in waiting:
                done += 1
                if (snapshot := await make(vehicle, position.seq)) is not None:
                    snapshots.append(snapshot)
                    changes += await self._changes(partner, position.seq, snapshot)
                if len(changes) >= CHANGED_AT_ONCE or done == CHANGED_AT_ONCE:
                    break
            written = await self._parts.projector.write(
                partner, position, position.seq, changes, snapshots=snapshots
            )
            if written is not None:
                for _ in range(done):
                    waiting.popleft()
            await asyncio.sleep(0)

    async def _changes(self, partner: int, seq: int, snapshot: Snapshot) -> list[Change]:
        """What changes if a vehicle is derived from this snapshot."""
        late = Late(snapshot.vehicle_id, snapshot.at_ms, snapshot.at_ms - 1, 0)
        portions = self._parts.projector.changes.of_vehicle(
            partner, snapshot.vehicle_id, seq, late, snapshot
        )
        return [change async for portion in portions for change in portion.changes]

    async def _take_back(self, partner: int, until_ms: dict[str, int]) -> int:
        """Takes back events of these vehicles, each before its instant; returns how many."""
        count, ids = 0, list[str]()
        for vehicle, at_ms in until_ms.items():
            ids += await self._parts.snapshots.expired_events(partner, vehicle, at_ms, AT_ONCE)
            if len(ids) >= AT_ONCE:
                count += await self._withdraw(partner, ids)
                ids = []
        return count + await self._withdraw(partner, ids)

    async def _withdraw(self, partner: int, ids: list[str]) -> int:
        count, reason = 0, WithdrawalReason.EXPIRED
        async with giving_way():
            async for found in self._parts.withdrawals.withdraw(partner, ids, reason=reason):
                count += sum(found)
        return count
