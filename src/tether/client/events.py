"""Scripts for events, a missing unplug, and timestamps for events without one."""

import threading
from collections.abc import Callable

from tether.client.bulk import BulkCalls, event_result, withdraw_result
from tether.client.conversion import instant_text, sendable
from tether.client.errors import Conflict, TetherError, invalid
from tether.client.exchange import (
    Created,
    Request,
    RetryPolicy,
    Script,
    WarningHandler,
    exchange,
    read,
    warn_user,
    warnings_in,
    with_query,
)
from tether.client.following import cursor_after
from tether.client.forks import reset_after_fork
from tether.client.models import Event, EventType, Instant
from tether.client.pagination import epoch_of, next_cursor
from tether.domain import models
from tether.domain.models import to_json
from tether.domain.timestamps import now_ms
from tether.domain.views import Session, SessionStatus

STEP_BACK_MS = 60_000
_PRUNE_AT = 10_000  # vehicles


class EventCalls:
    """Scripts for events; `AsyncEvents` says what they do."""

    def __init__(self, policy: RetryPolicy, on_warnings: WarningHandler = warn_user) -> None:
        self._policy = policy
        self._timestamps = Timestamps()
        self._on_warnings = on_warnings
        self.bulk = BulkCalls(
            "event", "/events/bulk", policy, self._ready, event_result, on_warnings=on_warnings
        )
        self.withdraw = BulkCalls("event id", "/events/withdraw", policy, str, withdraw_result)

    def _ready(self, event: models.Event) -> models.Event:
        """The event as it is sent: exact, with a timestamp, without the id of a stored event."""
        event = sendable(event)
        return event if event.timestamp else event.stamped(self._timestamps.next(event.vehicle_id))

    def post(self, event: models.Event) -> Script[str]:
        event = self._ready(event)
        request = Request("POST", "/events", to_json(event), may_share=True)
        try:
            answer = yield from exchange(request, self._policy, 201)
            created = read(Created, answer, request)
        except TetherError as error:
            error.event = event  # type: ignore[assignment]  # the same class at run time
            raise
        self._on_warnings(warnings_in(answer) or created.warnings)
        return created.id

    def now(self) -> Script[str]:
        request = Request("GET", with_query("/events", order="desc", limit=1))
        answer = yield from exchange(request, self._policy, 200)
        last = read(list[Event], answer, request)
        # The cursor of this list is before the last event. Read in the other direction, it leads
        # to the next events. Without an earlier event there is no cursor.
        cursor = next_cursor(answer)
        last_id = last[0].id if last and not cursor else None
        return cursor_after(last_id or 0, cursor, epoch_of(answer))


def unplug_of(session: Session, at: Instant) -> Event:
    """The missing unplug event of this session, at this time. Raises Conflict, Invalid."""
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


def next_timestamp(now: int, last: int) -> int:
    """The timestamp of a vehicle's next event, after one with the timestamp `last`.

    It is later than `last`, so that both events are stored, in this order. But if the clock was set
    back by more than a minute, it is `now`.
    """
    return last + 1 if now <= last < now + STEP_BACK_MS else now


class Timestamps:
    """Makes strictly increasing timestamps for each vehicle. Many threads may use it."""

    def __init__(self, clock: Callable[[], int] = now_ms) -> None:
        self._clock = clock
        self._last: dict[str, int] = {}
        self._prune_at = _PRUNE_AT
        self.after_fork_in_child()
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        """The child needs a new lock: a thread of the parent may hold the old one."""
        self._mutex = threading.Lock()

    def next(self, vehicle_id: str) -> int:
        """The timestamp (ms since 1970) for an event of this vehicle that happens now."""
        with self._mutex:
            now = self._clock()
            timestamp = self._last[vehicle_id] = next_timestamp(now, self._last.get(vehicle_id, 0))
            if len(self._last) > self._prune_at:
                self._drop_old(now)
            return timestamp

    def _drop_old(self, now: int) -> None:
        """Drops timestamps that are too old to matter."""
        recent = now - STEP_BACK_MS
        self._last = {vehicle: last for vehicle, last in self._last.items() if last > recent}
        self._prune_at = max(_PRUNE_AT, 2 * len(self._last))
