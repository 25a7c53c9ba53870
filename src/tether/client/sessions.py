"""What can be asked about sessions: one, lists, changes."""

from tether.client.entities import Pages
from tether.client.errors import Conflict, invalid
from tether.client.events import EventCalls
from tether.client.exchange import (
    Patience,
    Request,
    Script,
    exchange,
    path,
    read,
    stale,
    with_query,
)
from tether.client.following import ChangeFollower
from tether.client.models import Event, EventType, Instant
from tether.client.values import instant_text
from tether.domain.views import Session, SessionStatus

FIRST = "2000-01-01T00:00:00.000Z"  # the API takes no earlier instant


class SessionCalls:
    """Scripts for sessions."""

    def __init__(self, patience: Patience, events: EventCalls) -> None:
        self._patience = patience
        self._events = events

    def get(self, session_id: str, stale_allowed: bool) -> Script[Session]:
        """The session of this id."""
        target = path("sessions", session_id)
        request = Request("GET", with_query(target, stale=stale(stale_allowed)))
        answer = yield from exchange(request, self._patience, 200)
        return read(Session, answer, request)

    def pages(
        self,
        *,
        charger_id: str | None,
        vehicle_id: str | None,
        from_: Instant | None,
        to: Instant | None,
        status: str | None,
        updated_from: Instant | None,
        page_size: int,
        stale_allowed: bool,
    ) -> Pages[Session]:
        """The sessions that pass the filters, by their start, or by their last change."""
        return Pages(
            Session,
            self._patience,
            "/sessions",
            chargerId=charger_id,
            vehicleId=vehicle_id,
            status=status,
            stale=stale(stale_allowed),
            limit=page_size,
            **{"from": from_ if from_ is None else instant_text("from", from_)},
            to=to if to is None else instant_text("to", to),
            updatedFrom=updated_from
            if updated_from is None
            else instant_text("updatedFrom", updated_from),
        )

    def ending(self, session_id: str, at: Instant) -> Script[Event]:
        """The unplug that is missing: of this session, at this time."""
        session = yield from self.get(session_id, stale_allowed=False)
        at, last = instant_text("at", at), session.last_event_at
        if session.status != SessionStatus.ACTIVE or last is None:
            raise Conflict(f"Session {session_id} ended already, at {session.disconnected_at}.")
        if at < last:
            raise invalid("at", f"It must not be before {last}, the session's newest event.")
        return Event(
            type=EventType.VEHICLE_DISCONNECTED,
            charger_id=session.charger_id,
            vehicle_id=session.vehicle_id,
            timestamp=at,
        )

    def end(self, session_id: str, at: Instant) -> Script[Session]:
        """Reports that unplug; the session as it is then."""
        event = yield from self.ending(session_id, at)
        yield from self._events.post(event)
        session = yield from self.get(session_id, stale_allowed=False)
        if session.status == SessionStatus.ACTIVE:
            # In the instant in which it began, an unplug may be that of the session before it.
            raise Conflict(
                f"The unplug at {event.timestamp} is stored, but did not end session {session_id}: "
                "end it at a later time."
            )
        return session

    def changes(
        self,
        cursor: str | None,
        updated_from: Instant | None,
        poll_s: float,
        *,
        start_again: bool,
    ) -> ChangeFollower:
        """The place from which on changes are followed."""
        start = FIRST if updated_from is None else instant_text("updatedFrom", updated_from)
        return ChangeFollower(cursor, start, poll_s, self._patience, start_again=start_again)
