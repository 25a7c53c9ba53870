"""The state of a vehicle or charger: its newest sessions, and their newest events."""

from collections.abc import Sequence

import msgspec

from tether.domain.earlier_sessions import SessionContext
from tether.domain.errors import NotFound
from tether.domain.models import Event, from_json
from tether.domain.session_record import SessionRecord
from tether.domain.session_views import ChargerOccupancy, LatestSession
from tether.storage.engine import Repository, Row, batch, batch_of, json_array, json_list
from tether.storage.log_positions import DERIVED, HEAD, LAST_WITHDRAWAL
from tether.storage.session_records import NEWEST_FIRST

MAX_SESSIONS = 100  # active sessions that are returned of a charger
FEW_SESSIONS = 5  # … at first, when one charger is looked up in the event loop


def _event(seq: str) -> str:
    """The event with this number; `null` if it was withdrawn and that is not derived yet."""
    found = f"SELECT e.body FROM events e WHERE e.partner = $1 AND e.seq = {seq}"
    return f"coalesce(({found}), 'null')"


# A vehicle's newest session, its context, and its newest event.
_LATEST = f"""
(SELECT {json_array("s.body", "s.before", _event("s.last_seq"))} FROM sessions s
 WHERE s.partner = $1 AND s.vehicle_id = {{vehicle}} AND s.live = 1 {NEWEST_FIRST})
"""

# Whether the vehicle exists, whether events of it or withdrawals wait to be derived, and its newest
# session. ORDER BY selects the index that ends in the number, also while the tables are new.
OF_VEHICLE = f"""
SELECT (SELECT 1 FROM vehicles v WHERE v.partner = $1 AND v.id = $2),
       coalesce((SELECT e.seq FROM vehicle_events e WHERE e.partner = $1 AND e.vehicle_id = $2
        ORDER BY e.seq DESC LIMIT 1), 0) > {DERIVED} OR {LAST_WITHDRAWAL} > {DERIVED},
       {_LATEST.format(vehicle="$2")}
"""

# The newest session of each vehicle in $2.
OF_VEHICLES = f"""
WITH {batch("wanted", "vehicle_id")}
SELECT w.vehicle_id, {_LATEST.format(vehicle="w.vehicle_id")} FROM wanted w
"""

# The newest active sessions at a charger, one more than is returned. Each has its context, its
# newest event, and its newest event at this charger. Then the newest event of ended sessions at
# this charger. Not written as joins: see events.py.
_ACTIVE = f"""
    SELECT s.body, s.before, {_event("s.last_seq")} AS last, {_event("s.here_seq")} AS here
    FROM sessions s
    WHERE s.partner = $1 AND s.charger_id = {{charger}} AND s.end_ms IS NULL AND s.live = 1
    ORDER BY s.start_ms DESC, s.id DESC LIMIT {{most}} + 1
"""
_AT_CHARGER = f"""
{json_list(json_array("x.body", "x.before", "x.last", "x.here"), _ACTIVE)},
(SELECT e.body FROM events e WHERE e.partner = $1 AND e.seq = (
    SELECT s.here_seq FROM sessions s
    WHERE s.partner = $1 AND s.charger_id = {{charger}} AND s.end_ms IS NOT NULL AND s.live = 1
    ORDER BY s.rest_ms DESC, s.id DESC LIMIT 1))
"""

# Whether the charger exists, whether any events wait to be derived, and what is plugged in. Events
# of other chargers count, because they may mean that a vehicle has left this one.
OF_CHARGER = f"""
SELECT (SELECT 1 FROM chargers c WHERE c.partner = $1 AND c.id = $2), {HEAD} > {DERIVED},
       {_AT_CHARGER.format(charger="$2", most=FEW_SESSIONS)}
"""

# What is plugged in at each charger in $2.
OF_CHARGERS = f"""
WITH {batch("wanted", "charger_id")}
SELECT w.charger_id, {_AT_CHARGER.format(charger="w.charger_id", most=MAX_SESSIONS)} FROM wanted w
"""


class States(Repository):
    """The states of all partners' vehicles and chargers. Every method raises Unavailable."""

    async def of_vehicle(self, partner: int, vehicle_id: str) -> tuple[bool, LatestSession | None]:
        """Whether events of a vehicle are not derived yet, and its newest derived session. Raises
        NotFound.
        """
        waits, latest = await self._find(OF_VEHICLE, partner, vehicle_id)
        return waits, _latest(latest)

    async def of_vehicles(
        self, partner: int, vehicle_ids: Sequence[str]
    ) -> dict[str, LatestSession | None]:
        """The newest session of each of these vehicles."""
        wanted = batch_of([vehicle_id] for vehicle_id in vehicle_ids)
        rows = await self._engine.scan(OF_VEHICLES, partner, wanted)
        return {vehicle_id: _latest(latest) for vehicle_id, latest in rows}

    async def of_charger(self, partner: int, charger_id: str) -> tuple[bool, ChargerOccupancy]:
        """Whether events of any vehicle are not derived yet, and what is plugged in at a charger.
        Raises NotFound.
        """
        waits, active, ended = await self._find(OF_CHARGER, partner, charger_id)
        occupancy = _occupancy(active, ended, FEW_SESSIONS)
        if occupancy.more:
            occupancy = (await self.of_chargers(partner, [charger_id]))[charger_id]
        return waits, occupancy

    async def of_chargers(
        self, partner: int, charger_ids: Sequence[str]
    ) -> dict[str, ChargerOccupancy]:
        """What is plugged in at each of these chargers."""
        wanted = batch_of([charger_id] for charger_id in charger_ids)
        rows = await self._engine.scan(OF_CHARGERS, partner, wanted)
        return {
            charger_id: _occupancy(active, ended, MAX_SESSIONS)
            for charger_id, active, ended in rows
        }

    async def _find(self, sql: str, partner: int, entity_id: str) -> Row:
        row = await self._engine.look_up(sql, partner, entity_id)
        if row is None or not row[0]:
            raise NotFound
        return row[1:]


def _occupancy(active: str, ended: str | None, most: int) -> ChargerOccupancy:
    """`active` has the active sessions. `ended` is the newest event of the ended ones."""
    rows = sorted(_active.decode(active), key=lambda row: (row[0].start_ms, row[0].id))
    newest = rows[-most:]
    events = [here for *_, here in newest if here is not None]
    if ended:
        events.append(from_json(Event, ended))
    last_event = max(events, key=lambda event: event.at_ms, default=None)
    sessions = [LatestSession(session, context, last) for session, context, last, _ in newest]
    return ChargerOccupancy(sessions, last_event, len(rows) > most)


def _latest(text: str | None) -> LatestSession | None:
    return None if text is None else _decoder.decode(text)


_decoder = msgspec.json.Decoder(LatestSession)
_active = msgspec.json.Decoder(
    list[tuple[SessionRecord, SessionContext, Event | None, Event | None]]
)
