"""Computes sessions again from the events, beside running servers, and repairs stored ones."""

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

from tether.domain.models import Vehicle
from tether.projections.projector import RETRY_S, Projector
from tether.storage.entities import Entities
from tether.storage.log_positions import Position
from tether.storage.session_records import Change

VEHICLES_AT_ONCE = 1000


class CheckedVehicle(NamedTuple):
    """A vehicle: how many sessions its events make, and how many were stored differently."""

    vehicle_id: str
    sessions: int
    differing: int


class Rebuilder:
    """Compares stored sessions with the events. Every method raises Unavailable."""

    def __init__(self, entities: Entities, projector: Projector) -> None:
        self._entities = entities
        self._projector = projector

    async def derive(self, partner: int) -> AsyncIterator[int]:
        """Derives the events that wait now, unless a server is quicker; yields how many still wait.

        It leaves out events that arrive meanwhile: otherwise it would not end beside a busy server.
        """
        head, derived = await self._projector.derivations.progress(partner)
        while derived < head:
            yield head - derived
            if await self._projector.portion(partner) is None:
                return
            derived = (await self._projector.derivations.progress(partner)).derived

    async def check(self, partner: int, *, repair: bool) -> AsyncIterator[CheckedVehicle]:
        """Checks one vehicle after the other; with `repair` it stores the right sessions."""
        after = ""
        while page := await self._entities.page(Vehicle, partner, after, VEHICLES_AT_ONCE):
            for vehicle_id, _ in page:
                yield await self._check(partner, vehicle_id, repair=repair)
            after = page[-1][0]

    async def _check(self, partner: int, vehicle: str, *, repair: bool) -> CheckedVehicle:
        """Checks a vehicle. Starts again if a server has changed sessions meanwhile, because a
        difference may then come from events that the server has just derived.
        """
        repaired = 0
        while True:
            sessions = differing = 0
            position = await self._projector.settled(partner)
            if position is None:  # the partner was deleted
                return CheckedVehicle(vehicle, 0, repaired)
            async for portion in self._projector.changes.of_vehicle(partner, vehicle, position.seq):
                sessions += portion.sessions
                if not portion.changes:
                    continue
                kept = await self._keep(partner, position, portion.changes if repair else [])
                if kept is None:
                    break
                position = kept
                differing += len(portion.changes)
                repaired += len(portion.changes) * repair
            else:
                return CheckedVehicle(vehicle, sessions, repaired if repair else differing)
            await asyncio.sleep(RETRY_S)

    async def _keep(
        self, partner: int, position: Position, changes: list[Change]
    ) -> Position | None:
        """Stores the changes, if any. None if the position has changed, or if events were withdrawn
        since.
        """
        if await self._projector.derivations.withdrawn_since(partner, position):
            return None
        if changes:
            return await self._projector.write(partner, position, position.seq, changes)
        return position if await self._projector.derivations.position(partner) == position else None
