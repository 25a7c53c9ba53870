"""What can be asked about sessions: one, lists, changes."""

from collections.abc import Iterable
from typing import Any, Literal, TypedDict

from tether.client.entities import Pages
from tether.client.errors import Conflict, invalid
from tether.client.events import EventCalls
from tether.client.exchange import Request, RetryPolicy, Script, ask, path, stale, with_query
from tether.client.following import ChangeFollower
from tether.client.models import Event, EventType, Instant
from tether.client.values import instant_text
from tether.domain.views import Session, SessionStatus

FIRST = "2000-01-01T00:00:00.000Z"  # the API takes no earlier instant


class SessionSelection(TypedDict, total=False):
    """Which sessions are wanted; each narrows it down, and None does not.

    `charger_id` and `vehicle_id` may be several, up to 50. They began in the window from `from_` to
    before `to`, ended in that of `ended_from`, or were plugged in at some time in that of
    `overlapping_from`. `flag` is the name of one that they carry, and `estimated` says whether some
    of their energy is. With `updated_from` those that changed at that instant or later, removed
    ones among them: only together with `charger_id`, `vehicle_id`, `from_` and `to`.
    """

    charger_id: str | Iterable[str] | None
    vehicle_id: str | Iterable[str] | None
    from_: Instant | None
    to: Instant | None
    ended_from: Instant | None
    ended_to: Instant | None
    overlapping_from: Instant | None
    overlapping_to: Instant | None
    status: Literal["active", "ended"] | None
    flag: str | None
    estimated: bool | None
    updated_from: Instant | None


_INSTANTS = {
    "from_": "from",
    "to": "to",
    "ended_from": "endedFrom",
    "ended_to": "endedTo",
    "overlapping_from": "overlappingFrom",
    "overlapping_to": "overlappingTo",
    "updated_from": "updatedFrom",
}


def query_of(selection: SessionSelection) -> dict[str, Any]:
    """The parameters of a request that select these sessions."""
    given: dict[str, Any] = {
        member: value for member, value in selection.items() if value is not None
    }
    query: dict[str, Any] = {
        name: instant_text(name, given.pop(member))
        for member, name in _INSTANTS.items()
        if member in given
    }
    for member, name in (("charger_id", "chargerId"), ("vehicle_id", "vehicleId")):
        if member in given:
            ids = given.pop(member)
            # No id at all is refused as an empty one: else it would mean all sessions.
            query[name] = ids if isinstance(ids, str) else list(ids) or ""
    if "estimated" in given:
        query["estimated"] = str(bool(given.pop("estimated"))).lower()
    return query | given


class SessionCalls:
    """Scripts for sessions; `AsyncSessions` says what they do."""

    def __init__(self, policy: RetryPolicy, events: EventCalls) -> None:
        self._policy = policy
        self._events = events

    def get(self, session_id: str, stale_allowed: bool) -> Script[Session]:
        target = with_query(path("sessions", session_id), stale=stale(stale_allowed))
        return ask(Session, Request("GET", target), self._policy)

    def pages(
        self, selection: SessionSelection, order: str, page_size: int, stale_allowed: bool
    ) -> Pages[Session]:
        return Pages(
            Session,
            self._policy,
            "/sessions",
            **query_of(selection),
            order=None if order == "asc" else order,
            stale=stale(stale_allowed),
            limit=page_size,
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
        return ChangeFollower(cursor, start, poll_s, self._policy, start_again=start_again)
