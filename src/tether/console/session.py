"""One session: its course as a chart beside its events, its charges, and what is odd about it."""

from falcon.asgi import Request, Response

from tether.console.pages import Page
from tether.console.users import partner_of
from tether.domain.earlier_sessions import SessionContext
from tether.domain.filters import SessionFilter
from tether.domain.models import uuid_to_read
from tether.domain.session_causes import causes_of
from tether.domain.session_record import OrderedEvent
from tether.domain.session_views import StoredSession, session_of
from tether.domain.views import Flag, Session
from tether.storage.sessions import SessionPosition
from tether.storage.turns import in_steps

MOST_EVENTS = 1_000


class SessionPage(Page):
    """`…/sessions/{id}`."""

    async def on_get(self, req: Request, resp: Response, id: str) -> None:
        session_id, partner = uuid_to_read(id), partner_of(req).id
        known = await self._store.sessions.get(partner, session_id)
        session, record = session_of(known), known.record
        until_ms = max(record.last.at_ms, record.end_ms or 0)
        placed = await self._store.events.of_vehicle(
            partner, record.vehicle_id, record.start_ms, MOST_EVENTS + 1, until_ms=until_ms
        )
        position = record.start_ms, session_id
        vehicle = SessionFilter(vehicle_ids=(record.vehicle_id,))
        charger = SessionFilter(charger_ids=(record.charger_id,))
        await self._renderer.render(
            req,
            resp,
            "session.html",
            session=session,
            vehicle=known.vehicle,
            charger=known.charger,
            events=[one.event for one in placed[:MOST_EVENTS]],
            causes=await self._causes(partner, known, placed[:MOST_EVENTS])
            if session.flags
            else {},
            is_cut=len(placed) > MOST_EVENTS,
            neighbours=[
                ("Vehicle before", await self._next(partner, vehicle, position, back=True)),
                ("Vehicle after", await self._next(partner, vehicle, position, back=False)),
                ("Charger before", await self._next(partner, charger, position, back=True)),
                ("Charger after", await self._next(partner, charger, position, back=False)),
            ],
        )

    async def _causes(
        self, partner: int, known: StoredSession, placed: list[OrderedEvent]
    ) -> dict[str, list[Flag]]:
        """The flags of the session by the events that caused them."""
        key = known.record.vehicle_id, known.record.start
        found = await self._store.session_records.of_starts(partner, [key])
        _, before = found.get(key, (None, SessionContext()))  # it may just have been derived again
        return await in_steps(causes_of(known, before, placed))

    async def _next(
        self, partner: int, wanted: SessionFilter, position: SessionPosition, *, back: bool
    ) -> Session | None:
        """The session of these that comes next in the order of their start, or came before."""
        found, _ = await self._store.sessions.page(partner, wanted, position, 1, descending=back)
        return session_of(found[0]) if found else None
