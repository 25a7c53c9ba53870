"""What is newest of a vehicle, and at a charger: a session, and the events that say so."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from tether.domain.earlier_sessions import SessionContext
from tether.domain.errors import NotFound
from tether.domain.models import Event, from_json
from tether.domain.session_record import SessionRecord
from tether.domain.session_views import LatestSession
from tether.storage.engine import Engine, Row, batch, batch_of
from tether.storage.log_positions import DERIVED, HEAD, LAST_WITHDRAWAL
from tether.storage.session_records import NEWEST_FIRST

MOST = 100  # sessions that are shown of those that last at a charger
FEW = 5  # … if it is asked for this one charger, in the event loop


def _event(seq: str) -> str:
    """The event of that number; `null` if it was taken back and that is not derived yet."""
    found = f"SELECT e.body FROM events e WHERE e.partner = $1 AND e.seq = {seq}"
    return f"coalesce(({found}), 'null')"


# A vehicle's newest session, what it knows of before, and the newest event of it, as a JSON array.
_LATEST = f"""
(SELECT '[' || s.body || ',' || s.before || ',' || {_event("s.last_seq")} || ']' FROM sessions s
 WHERE s.partner = $1 AND s.vehicle_id = {{vehicle}} AND s.live = 1 {NEWEST_FIRST})
"""

# Whether there is the vehicle, whether events of it wait to be derived or any that were taken back,
# and what is newest of it.
# The order makes it that index also while the tables are young which ends in the number.
OF_VEHICLE = f"""
SELECT (SELECT 1 FROM vehicles v WHERE v.partner = $1 AND v.id = $2),
       coalesce((SELECT e.seq FROM vehicle_events e WHERE e.partner = $1 AND e.vehicle_id = $2
        ORDER BY e.seq DESC LIMIT 1), 0) > {DERIVED} OR {LAST_WITHDRAWAL} > {DERIVED},
       {_LATEST.format(vehicle="$2")}
"""

# What is newest of each vehicle in $2.
OF_VEHICLES = f"""
WITH {batch("wanted", "vehicle_id")}
SELECT w.vehicle_id, {_LATEST.format(vehicle="w.vehicle_id")} FROM wanted w
"""

# The newest sessions that last at a charger, with what they know of before, their newest events and
# those there, as a list of JSON arrays, one more than is shown; the newest event there of the
# sessions that have ended. Not written as joins: see events.py.
_AT_CHARGER = f"""
(SELECT string_agg(
    '[' || x.body || ',' || x.before || ',' || x.last || ',' || x.here || ']', ','
 ) FROM (
    SELECT s.body, s.before, {_event("s.last_seq")} AS last, {_event("s.here_seq")} AS here
    FROM sessions s
    WHERE s.partner = $1 AND s.charger_id = {{charger}} AND s.end_ms IS NULL AND s.live = 1
    ORDER BY s.start_ms DESC, s.id DESC LIMIT {{most}} + 1
 ) x),
(SELECT e.body FROM events e WHERE e.partner = $1 AND e.seq = (
    SELECT s.here_seq FROM sessions s
    WHERE s.partner = $1 AND s.charger_id = {{charger}} AND s.end_ms IS NOT NULL AND s.live = 1
    ORDER BY s.rest_ms DESC LIMIT 1))
"""

# Whether there is the charger, whether any events wait to be derived (those of other chargers may
# say that a vehicle has left this one), and what is there.
OF_CHARGER = f"""
SELECT (SELECT 1 FROM chargers c WHERE c.partner = $1 AND c.id = $2), {HEAD} > {DERIVED},
       {_AT_CHARGER.format(charger="$2", most=FEW)}
"""

# What is at each charger in $2.
OF_CHARGERS = f"""
WITH {batch("wanted", "charger_id")}
SELECT w.charger_id, {_AT_CHARGER.format(charger="w.charger_id", most=MOST)} FROM wanted w
"""


class AtCharger(NamedTuple):
    """The vehicles that are plugged in at a charger, and the newest event there.

    If there are `more` vehicles, these are the last that were plugged in.
    """

    sessions: list[LatestSession]
    last_event: Event | None
    more: bool


class Latest(NamedTuple):
    """What is newest of a vehicle, if anything was reported, as far as it is derived.

    `waits`: there are events of it that are not derived yet.
    """

    waits: bool
    session: LatestSession | None


class Occupancy(NamedTuple):
    """The same of a charger, of which events of any vehicle may tell."""

    waits: bool
    there: AtCharger


class States:
    """What is newest of all partners' vehicles and chargers. Every method raises Unavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def of_vehicle(self, partner: int, vehicle_id: str) -> Latest:
        """What is newest of a vehicle. Raises NotFound."""
        waits, latest = await self._find(OF_VEHICLE, partner, vehicle_id)
        return Latest(waits, _latest(latest))

    async def of_vehicles(
        self, partner: int, vehicle_ids: Sequence[str]
    ) -> dict[str, LatestSession | None]:
        """What is newest of each of these vehicles."""
        wanted = batch_of([vehicle_id] for vehicle_id in vehicle_ids)
        rows = await self._engine.scan(OF_VEHICLES, partner, wanted)
        return {vehicle_id: _latest(latest) for vehicle_id, latest in rows}

    async def of_charger(self, partner: int, charger_id: str) -> Occupancy:
        """What is plugged in at a charger. Raises NotFound."""
        waits, lasting, ended = await self._find(OF_CHARGER, partner, charger_id)
        there = _at_charger(lasting, ended, FEW)
        if there.more:
            there = (await self.of_chargers(partner, [charger_id]))[charger_id]
        return Occupancy(waits, there)

    async def of_chargers(self, partner: int, charger_ids: Sequence[str]) -> dict[str, AtCharger]:
        """What is plugged in at each of these chargers."""
        wanted = batch_of([charger_id] for charger_id in charger_ids)
        rows = await self._engine.scan(OF_CHARGERS, partner, wanted)
        return {
            charger_id: _at_charger(lasting, ended, MOST) for charger_id, lasting, ended in rows
        }

    async def _find(self, sql: str, partner: int, entity_id: str) -> Row:
        row = await self._engine.look_up(sql, partner, entity_id)
        if row is None or not row[0]:
            raise NotFound
        return row[1:]


def _at_charger(lasting: str | None, ended: str | None, most: int) -> AtCharger:
    """`lasting` are the sessions that last, `ended` is the newest event of the others."""
    rows = _lasting.decode(f"[{lasting or ''}]")
    rows.sort(key=lambda row: (row[0].start_ms, row[0].id))
    shown = rows[-most:]
    events = [here for *_, here in shown] + ([from_json(Event, ended)] if ended else [])
    known = (event for event in events if event is not None)
    newest = max(known, key=lambda event: event.at_ms, default=None)
    latest = [LatestSession(session, before, last) for session, before, last, _ in shown]
    return AtCharger(latest, newest, len(rows) > most)


def _latest(text: str | None) -> LatestSession | None:
    return None if text is None else _decoder.decode(text)


_decoder = msgspec.json.Decoder(LatestSession)
_lasting = msgspec.json.Decoder(
    list[tuple[SessionRecord, SessionContext, Event | None, Event | None]]
)
