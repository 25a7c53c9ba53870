"""The current states of chargers and vehicles over HTTP (an addition to the reference)."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from falcon.asgi import Response

from tether.domain.models import to_json
from tether.domain.session_views import ChargerOccupancy, charger_state, vehicle_state
from tether.domain.views import ChargerState, VehicleState
from tether.http import pagination, requests
from tether.http.requests import ApiRequest
from tether.server.store import Store

StateOf: TypeAlias = Callable[..., Awaitable[ChargerState | VehicleState]]
"""Takes a partner, an id and `stale`."""


class CurrentStates:
    """The current states of chargers and vehicles."""

    def __init__(self, store: Store, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms

    async def of_vehicle(self, partner: int, vehicle_id: str, *, stale: bool) -> VehicleState:
        """The state of a vehicle. Raises NotFound."""
        waits, latest = await self._store.states.of_vehicle(partner, vehicle_id)
        if waits and not stale:
            await self._store.projector.catch_up(partner)
            _, latest = await self._store.states.of_vehicle(partner, vehicle_id)
        return vehicle_state(vehicle_id, latest, self._now_ms())

    async def of_vehicles(self, partner: int, vehicle_ids: Sequence[str]) -> list[VehicleState]:
        """The states of these vehicles in this order, from the events that are derived."""
        latest = await self._store.states.of_vehicles(partner, vehicle_ids)
        now_ms = self._now_ms()
        return [vehicle_state(id, latest[id], now_ms) for id in vehicle_ids]

    async def of_charger(self, partner: int, charger_id: str, *, stale: bool) -> ChargerState:
        """The state of a charger. Raises NotFound."""
        waits, occupancy = await self._of_charger(partner, charger_id)
        if waits and not stale:
            await self._store.projector.catch_up(partner)
            _, occupancy = await self._of_charger(partner, charger_id)
        return charger_state(charger_id, occupancy, self._now_ms())

    async def _of_charger(self, partner: int, charger_id: str) -> tuple[bool, ChargerOccupancy]:
        async with self._store.turns.of(partner):  # there may be many vehicles
            return await self._store.states.of_charger(partner, charger_id)

    async def of_chargers(self, partner: int, charger_ids: Sequence[str]) -> list[ChargerState]:
        """The states of these chargers in this order, from the events that are derived."""
        occupancy = await self._store.states.of_chargers(partner, charger_ids)
        now_ms = self._now_ms()
        return [charger_state(id, occupancy[id], now_ms) for id in charger_ids]


class StateResource:
    """`/vehicles/{id}/state`, `/chargers/{id}/state`: the current state of one of them."""

    def __init__(self, store: Store, state_of: StateOf) -> None:
        self._store = store
        self._state_of = state_of

    async def on_get(self, req: ApiRequest, resp: Response, id: str) -> None:
        partner, entity_id = req.context.partner, requests.id_to_read(id)
        stale = await pagination.accepts_stale(self._store, req, resp)
        resp.data = to_json(await self._state_of(partner, entity_id, stale=stale))
