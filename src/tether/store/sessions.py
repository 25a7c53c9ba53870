"""What is read of the sessions and states that are derived from events.

Whoever asks gets what all events say that are committed by then: what waits is derived first.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from tether.errors import NotFound
from tether.model import Charger, Event, Vehicle, from_json
from tether.readout import Known, Moment
from tether.stays import Before, Stay
from tether.store import session_queries as queries
from tether.store.changes import numbered, read_stay
from tether.store.derive import Deriver
from tether.store.engine import Engine, Row
from tether.store.session_queries import SessionFilter


class AtCharger(NamedTuple):
    """The vehicles that are plugged in at a charger, and the newest event there."""

    moments: list[Moment]
    last_event: Event | None


class Sessions:
    """Sessions and states of partners. Every method raises Unavailable as the store's do."""

    def __init__(self, engine: Engine, deriver: Deriver) -> None:
        self._engine = engine
        self._deriver = deriver

    async def get(self, partner: int, session_id: str) -> Known:
        """The session. Raises NotFound."""
        await self._deriver.catch_up(partner)
        found = _known(await self._engine.read(queries.GET_SESSION, partner, session_id))
        if not found:
            raise NotFound
        return found[0]

    async def page(
        self, partner: int, wanted: SessionFilter, after: tuple[int, str] | None, limit: int
    ) -> list[Known]:
        """Sessions in the order of their start, or of their last change; from `after` on."""
        await self._deriver.catch_up(partner)
        sql, parameters = queries.sessions_page(wanted, after)
        return _known(await self._engine.scan(sql, partner, limit, *parameters))

    async def of_vehicle(self, partner: int, vehicle_id: str) -> Moment | None:
        """What is newest of a vehicle; None if nothing was reported. Raises NotFound."""
        while True:
            rows = await self._engine.read(queries.VEHICLE_STATE, partner, vehicle_id)
            waits, exists, stay, event = rows[0]
            if not exists:
                raise NotFound
            if not waits:
                return _moment(stay, event)
            await self._deriver.catch_up(partner)

    async def of_vehicles(
        self, partner: int, vehicle_ids: Sequence[str]
    ) -> dict[str, Moment | None]:
        """What is newest of each of these vehicles."""
        await self._deriver.catch_up(partner)
        return await self.derived_of(partner, vehicle_ids)

    async def derived_of(
        self, partner: int, vehicle_ids: Sequence[str]
    ) -> dict[str, Moment | None]:
        """The same as far as it is derived: waits for nothing."""
        wanted = numbered([vehicle_id] for vehicle_id in vehicle_ids)
        rows = await self._engine.scan(queries.VEHICLE_STATES, partner, wanted)
        return {vehicle_id: _moment(stay, event) for vehicle_id, stay, event in rows}

    async def at_chargers(self, partner: int, charger_ids: Sequence[str]) -> dict[str, AtCharger]:
        """What is plugged in at each of these chargers."""
        await self._deriver.catch_up(partner)
        wanted = numbered([charger_id] for charger_id in charger_ids)
        lasting = await self._engine.scan(queries.STAYS_AT_CHARGERS, partner, wanted)
        there = {charger_id: _moments(stays) for charger_id, stays in lasting}
        ended = await self._engine.scan(queries.ENDED_AT_CHARGERS, partner, wanted)
        last = {charger_id: body and from_json(Event, body) for charger_id, body in ended}
        return {id: _at_charger(there[id], last[id]) for id in charger_ids}


def _at_charger(lasting: list[tuple[Moment, Event]], ended: Event | None) -> AtCharger:
    events = [event for _, event in lasting] + ([ended] if ended else [])
    newest = max(events, key=lambda event: event.at_ms, default=None)
    return AtCharger([moment for moment, _ in lasting], newest)


def _moment(stay: str | None, event: str | None) -> Moment | None:
    if stay is None or event is None:
        return None
    return Moment(*read_stay(stay), from_json(Event, event))


def _moments(stays: str | None) -> list[tuple[Moment, Event]]:
    """What is newest of each, and its newest event there, in the order of their start."""
    rows = _moments_decoder.decode(f"[{stays or ''}]")
    rows.sort(key=lambda row: (row[0].start_ms, row[0].id))
    return [(Moment(stay, before, last), here) for stay, before, last, here in rows]


_moments_decoder = msgspec.json.Decoder(list[tuple[Stay, Before, Event, Event]])
_decoder = msgspec.json.Decoder(Stay)


def _known(rows: Sequence[Row]) -> list[Known]:
    return [
        Known(
            session_id,
            _decoder.decode(body),
            from_json(Vehicle, vehicle),
            from_json(Charger, charger),
            version,
            updated_ms,
            removed=not live,
        )
        for session_id, body, live, vehicle, charger, version, updated_ms in rows
        if vehicle and charger  # else the partner is being deleted
    ]
