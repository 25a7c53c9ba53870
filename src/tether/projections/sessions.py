"""What is read of the sessions and states that are derived from events.

Whoever asks gets what all events say that are committed by then: what waits is derived first. With
`stale` nothing waits: what is read is what was derived by then.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from tether.domain.earlier_sessions import SessionContext
from tether.domain.errors import NotFound
from tether.domain.models import Charger, Event, Vehicle, from_json
from tether.domain.session_record import SessionRecord
from tether.domain.session_views import LatestSession, StoredSession
from tether.projections.projector import Projector
from tether.storage import session_queries as queries
from tether.storage.engine import Engine, Row
from tether.storage.read_turns import Turn
from tether.storage.session_queries import SessionFilter
from tether.storage.session_rows import numbered

PORTION = 100  # sessions that are read at once
PORTIONS = 50  # for one page
MOST_BYTES = 2_000_000  # as they are stored; one has up to 1,000 charge periods


class AtCharger(NamedTuple):
    """The vehicles that are plugged in at a charger, and the newest event there.

    If there are `more` vehicles, these are the last that were plugged in.
    """

    moments: list[LatestSession]
    last_event: Event | None
    more: bool


class Page(NamedTuple):
    """Sessions; if `stop` is given there may be more behind that place."""

    found: list[StoredSession]
    stop: tuple[int, str] | None


class Sessions:
    """Sessions and states of partners. Every method raises Unavailable as the store's do."""

    def __init__(self, engine: Engine, projector: Projector) -> None:
        self._engine = engine
        self._projector = projector

    async def get(self, partner: int, session_id: str) -> StoredSession:
        """The session as far as it is derived. Raises NotFound."""
        row = await self._engine.look_up(queries.GET_SESSION, partner, session_id)
        found = _known([] if row is None else [row])
        if not found:
            raise NotFound
        return found[0]

    async def page(
        self,
        partner: int,
        wanted: SessionFilter,
        after: tuple[int, str] | None,
        limit: int,
        turn: Turn,
    ) -> Page:
        """Sessions in the order of their start, or of their last change; from `after` on.

        As far as they are derived. Where they are large, or few of many are wanted, there may be
        fewer, or none.
        """
        found: list[StoredSession] = []
        size = 0
        for _ in range(PORTIONS):
            portion = min(PORTION, limit - len(found))
            sql, parameters = queries.sessions_page(wanted, after)
            rows = await self._engine.scan(sql, partner, portion, *parameters)
            stop = rows.pop() if rows and rows[-1][1] is None else None
            for row in rows:
                for known in _known([row]):
                    found.append(known)
                    size += len(row[1])
                    after = _place(known, wanted)
                if size > MOST_BYTES:
                    return Page(found, after)
                if turn.is_long():
                    await turn.pass_on(ahead=True)
            if len(found) >= limit or (len(rows) < portion and stop is None):
                return Page(found, None)
            if stop is not None and len(rows) < portion:
                after = stop[-1], stop[0]
            await turn.pass_on(ahead=True)
        return Page(found, after)

    async def of_vehicle(
        self, partner: int, vehicle_id: str, turn: Turn, *, stale: bool = False
    ) -> LatestSession | None:
        """What is newest of a vehicle; None if nothing was reported. Raises NotFound."""
        (moment,) = await self._state(queries.VEHICLE_STATE, partner, vehicle_id, turn, stale=stale)
        return _moment(moment)

    async def catch_up(self, partner: int) -> None:
        """Returns when all events that are committed now are derived."""
        await self._projector.catch_up(partner)

    async def of_vehicles(
        self, partner: int, vehicle_ids: Sequence[str]
    ) -> dict[str, LatestSession | None]:
        """What is newest of each of these vehicles as far as it is derived: waits for nothing."""
        wanted = numbered([vehicle_id] for vehicle_id in vehicle_ids)
        rows = await self._engine.scan(queries.VEHICLE_STATES, partner, wanted)
        return {vehicle_id: _moment(moment) for vehicle_id, moment in rows}

    async def at_charger(
        self, partner: int, charger_id: str, turn: Turn, *, stale: bool = False
    ) -> AtCharger:
        """What is plugged in at a charger. Raises NotFound."""
        stays, ended = await self._state(
            queries.CHARGER_STATE, partner, charger_id, turn, stale=stale
        )
        found = _at_charger(stays, ended, queries.FEW_AT_CHARGER)
        if found.more:
            return (await self.at_chargers(partner, [charger_id]))[charger_id]
        return found

    async def at_chargers(self, partner: int, charger_ids: Sequence[str]) -> dict[str, AtCharger]:
        """What is plugged in at each of these chargers as far as it is derived."""
        wanted = numbered([charger_id] for charger_id in charger_ids)
        rows = await self._engine.scan(queries.CHARGER_STATES, partner, wanted)
        return {
            charger_id: _at_charger(stays, ended, queries.AT_CHARGER)
            for charger_id, stays, ended in rows
        }

    async def _state(
        self, sql: str, partner: int, entity_id: str, turn: Turn, *, stale: bool
    ) -> Row:
        """What the statement finds of an entity, after what of it waits to be derived."""
        exists, waits, *state = await self._look_up(sql, partner, entity_id)
        if not exists:
            raise NotFound
        if waits and not stale:
            await turn.without(self._projector.catch_up(partner))
            _, _, *state = await self._look_up(sql, partner, entity_id)
        return state

    async def _look_up(self, sql: str, partner: int, entity_id: str) -> Row:
        row = await self._engine.look_up(sql, partner, entity_id)
        assert row is not None  # it says whether there is the entity
        return row


def _at_charger(stays: str | None, ended: str | None, most: int) -> AtCharger:
    """`stays` are those that last, `ended` is the newest event of the others."""
    lasting = _moments(stays)
    more = len(lasting) > most
    lasting = lasting[-most:]
    events = [event for _, event in lasting] + ([from_json(Event, ended)] if ended else [])
    newest = max(events, key=lambda event: event.at_ms, default=None)
    return AtCharger([moment for moment, _ in lasting], newest, more)


def _moment(moment: str | None) -> LatestSession | None:
    return None if moment is None else _moment_decoder.decode(moment)


def _moments(stays: str | None) -> list[tuple[LatestSession, Event]]:
    """What is newest of each, and its newest event there, in the order of their start."""
    rows = _moments_decoder.decode(f"[{stays or ''}]")
    rows.sort(key=lambda row: (row[0].start_ms, row[0].id))
    return [(LatestSession(stay, before, last), here) for stay, before, last, here in rows]


_moment_decoder = msgspec.json.Decoder(LatestSession)
_moments_decoder = msgspec.json.Decoder(list[tuple[SessionRecord, SessionContext, Event, Event]])
_decoder = msgspec.json.Decoder(SessionRecord)


def _place(known: StoredSession, wanted: SessionFilter) -> tuple[int, str]:
    """Where it is in the order of the list."""
    changes = wanted.updated_from_ms is not None
    return known.updated_ms if changes else known.stay.start_ms, known.id


def _known(rows: Sequence[Row]) -> list[StoredSession]:
    return [
        StoredSession(
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
