"""Scripts for events: one, many in one request, the newest cursor, a missing unplug."""

from tether.client.bulk import BulkCalls, event_result
from tether.client.errors import Conflict, TetherError, invalid
from tether.client.exchange import Created, Request, RetryPolicy, Script, exchange, read, with_query
from tether.client.following import cursor_after
from tether.client.models import Event, EventType, Instant
from tether.client.pagination import epoch_of, next_cursor
from tether.client.stamps import Stamps
from tether.client.units import WarningHandler, warn_user, warnings_in
from tether.client.values import instant_text, sendable
from tether.domain import models
from tether.domain.models import to_json
from tether.domain.views import Session, SessionStatus


class EventCalls:
    """Scripts for events; `AsyncEvents` says what they do."""

    def __init__(self, policy: RetryPolicy, on_warnings: WarningHandler = warn_user) -> None:
        self._policy = policy
        self._stamps = Stamps()
        self._on_warnings = on_warnings
        self.bulk = BulkCalls(
            "event", "/events/bulk", policy, self._ready, event_result, on_warnings=on_warnings
        )

    def _ready(self, event: models.Event) -> models.Event:
        """The event as it is sent: exact, stamped, and without the id of a stored one."""
        event = sendable(event)
        return event if event.timestamp else event.stamped(self._stamps.next(event.vehicle_id))

    def post(self, event: models.Event) -> Script[str]:
        event = self._ready(event)
        request = Request("POST", "/events", to_json(event), may_share=True)
        try:
            answer = yield from exchange(request, self._policy, 201)
            event_id = read(Created, answer, request).id
        except TetherError as error:
            error.event = event  # type: ignore[assignment]  # the same class at run time
            raise
        self._on_warnings(warnings_in(answer))
        return event_id

    def now(self) -> Script[str]:
        request = Request("GET", with_query("/events", order="desc", limit=1))
        answer = yield from exchange(request, self._policy, 200)
        last = read(list[Event], answer, request)
        # The cursor of this list stands before the last event. Read in the other direction, it
        # leads to what follows. Without an earlier event there is no cursor.
        cursor = next_cursor(answer)
        last_id = last[0].id if last and not cursor else None
        return cursor_after(last_id or 0, cursor, epoch_of(answer))


def unplug_of(session: Session, at: Instant) -> Event:
    """The missing unplug of this session, at this time. Raises Conflict, Invalid."""
    at, last = instant_text("at", at), session.last_event_at
    if session.status != SessionStatus.ACTIVE or last is None:
        raise Conflict(f"Session {session.id} ended already, at {session.disconnected_at}.")
    if at < last:
        raise invalid("at", f"It must not be before {last}, the session's newest event.")
    return Event(
        type=EventType.VEHICLE_DISCONNECTED,
        charger_id=session.charger_id,
        vehicle_id=session.vehicle_id,
        timestamp=at,
    )
