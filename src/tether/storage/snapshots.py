"""Snapshots: the derivation of a vehicle starts from one when older events have expired.

A snapshot has the result of the events before its instant. These events are not derived any more.
"""

from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

import msgspec

from tether.domain.earlier_sessions import EndedSession, SessionContext
from tether.domain.models import ERASED, to_json
from tether.domain.session_record import SessionRecord
from tether.storage.engine import Repository, Statement, batch, batch_of, pages
from tether.storage.log_positions import HAS_MARK

PAGE = 200
VEHICLES = 1_000  # in one statement

GET = "SELECT vehicle_id, at_ms, body FROM snapshots WHERE partner = $1 AND vehicle_id = $2"
INSTANTS = f"""
WITH {batch("wanted", "vehicle_id")}
SELECT s.vehicle_id, s.at_ms FROM wanted w
JOIN snapshots s ON s.partner = $1 AND s.vehicle_id = w.vehicle_id
"""
NEXT = """
SELECT vehicle_id, at_ms, body FROM snapshots WHERE partner = $1 AND vehicle_id > $2
ORDER BY vehicle_id LIMIT $3
"""
# Run it after the statement that moves to the position with the mark $3, in the same transaction.
PUT = f"""
WITH {batch("batch", "vehicle_id", "at_ms BIGINT", "body")}
INSERT INTO snapshots (partner, vehicle_id, at_ms, body)
SELECT $1, b.vehicle_id, b.at_ms, b.body FROM batch b
WHERE {HAS_MARK}
AND EXISTS (SELECT 1 FROM vehicles v WHERE v.partner = $1 AND v.id = b.vehicle_id)
ON CONFLICT (partner, vehicle_id) DO UPDATE SET at_ms = excluded.at_ms, body = excluded.body
"""

# The first event before an instant of each vehicle. Not written as a join: see events.py.
FIRST_EVENTS = f"""
WITH {batch("wanted", "vehicle_id")}
SELECT w.vehicle_id, (
    SELECT h.at_ms FROM vehicle_history h
    WHERE h.partner = $1 AND h.vehicle_id = w.vehicle_id AND h.at_ms < $3
    ORDER BY h.at_ms, h.type, h.charger_id, h.stamp LIMIT 1
) FROM wanted w
"""
# The first events of a vehicle before an instant.
EXPIRED_EVENTS = """
SELECT (SELECT e.id FROM events e WHERE e.partner = $1 AND e.seq = h.seq) FROM vehicle_history h
WHERE h.partner = $1 AND h.vehicle_id = $2 AND h.at_ms < $3
ORDER BY h.at_ms, h.type, h.charger_id, h.stamp LIMIT $4
"""

_known = msgspec.json.Decoder(tuple[SessionRecord | None, SessionContext])


class Snapshot(NamedTuple):
    """The result of the session builder for a vehicle's events before an instant."""

    vehicle_id: str
    at_ms: int
    body: str

    @classmethod
    def of(
        cls, vehicle: str, at_ms: int, session: SessionRecord | None, context: SessionContext
    ) -> "Snapshot":
        """The snapshot with the last session before the instant, and its context."""
        return cls(vehicle, at_ms, to_json((session, context)).decode())

    @property
    def known(self) -> tuple[SessionRecord | None, SessionContext]:
        """The last session before the instant, and its context."""
        return _known.decode(self.body)

    def without_charger(self, charger: str) -> "Snapshot":
        """The snapshot without any data of this charger."""
        return self.of(self.vehicle_id, self.at_ms, *_without_charger(*self.known, charger))


def putting(partner: int, snapshots: Iterable[Snapshot], mark: int) -> Statement:
    """The statement that stores these snapshots, if the position has this mark."""
    return Statement(PUT, (partner, batch_of(snapshots), mark))


class Snapshots(Repository):
    """The snapshots of all partners' vehicles. Every method raises Unavailable."""

    async def get(self, partner: int, vehicle: str) -> Snapshot | None:
        """The snapshot of a vehicle, if there is one."""
        rows = await self._engine.scan(GET, partner, vehicle)
        return Snapshot(*rows[0]) if rows else None

    async def instants(self, partner: int, vehicles: Iterable[str]) -> dict[str, int]:
        """The instants of the snapshots of these vehicles. Some vehicles may have none."""
        wanted = [[vehicle] for vehicle in vehicles]
        rows = await self._engine.scan(INSTANTS, partner, batch_of(wanted)) if wanted else []
        return {row[0]: row[1] for row in rows}

    async def first_events(
        self, partner: int, vehicles: Iterable[str], before_ms: int
    ) -> dict[str, int]:
        """When the first event of each vehicle was, for those with events before an instant."""
        wanted = batch_of([vehicle] for vehicle in vehicles)
        rows = await self._engine.scan(FIRST_EVENTS, partner, wanted, before_ms)
        return {vehicle: at_ms for vehicle, at_ms in rows if at_ms is not None}

    async def expired_events(
        self, partner: int, vehicle: str, before_ms: int, limit: int
    ) -> list[str]:
        """The ids of the vehicle's first events before an instant."""
        rows = await self._engine.scan(EXPIRED_EVENTS, partner, vehicle, before_ms, limit)
        return [event_id for (event_id,) in rows if event_id is not None]

    async def all(self, partner: int) -> AsyncIterator[Snapshot]:
        """All snapshots of a partner, in the order of their vehicles' ids."""
        async for rows in pages(self._engine, NEXT, partner, ("",), limit=PAGE):
            for row in rows:
                yield Snapshot(*row)


def _without_charger(
    session: SessionRecord | None, context: SessionContext, charger: str
) -> tuple[SessionRecord | None, SessionContext]:
    """A session and its context, without anything that is known of a charger."""
    context = msgspec.structs.replace(context, earlier=_elsewhere(context.earlier, charger))
    if session is None or session.charger_id == charger:
        return None, context
    last = session.last
    if last.charger_id == charger:
        last = last._replace(charger_id=ERASED)
    earlier = None if session.earlier is None else _elsewhere(session.earlier, charger)
    reports_on = [start for start in session.reports_on if start[2] != charger]
    return msgspec.structs.replace(
        session, last=last, earlier=earlier, reports_on=reports_on
    ), context


def _elsewhere(sessions: tuple[EndedSession, ...], charger: str) -> tuple[EndedSession, ...]:
    return tuple(session for session in sessions if session.charger_id != charger)
