# Generated from aio_events.py by scripts/unasync.py. Change that file, then run `make unasync`.
"""Events; sessions and capacity, which the server derives from them."""

from collections.abc import Iterable, Iterator
from typing import Literal, Unpack

from tether.client.blocking_http import Http, Stop
from tether.client.conversion import instant_text, query_of
from tether.client.errors import Conflict
from tether.client.events import EventCalls, unplug_of
from tether.client.exchange import Request, RetryPolicy, exchange, path
from tether.client.following import ChangeFollower, LogFollower
from tether.client.models import (
    BulkResult,
    By,
    CalendarUnit,
    CapacitySelection,
    Event,
    Instant,
    SessionSelection,
    Withdrawal,
    WithdrawResult,
)
from tether.client.pagination import Lines
from tether.client.sync_run import Following, Runner
from tether.domain import models
from tether.domain.views import Capacity, Session, SessionStatus, SessionSummary


class Events(Runner):
    """The partner's events."""

    def __init__(self, http: Http, policy: RetryPolicy) -> None:
        super().__init__(http, policy)
        self._calls = EventCalls(policy)

    def post(self, event: models.Event) -> str:
        """Reports an event and returns its id. An event without a timestamp happens now.

        Raises Invalid, Conflict. After Unavailable or RateLimited, post the `event` of the error to
        try again: it has its timestamp, so that is safe at any time.
        """
        return self._run(self._calls.post(event))

    def bulk(self, events: Iterable[models.Event]) -> list[BulkResult]:
        """Reports many events, up to 10,000 in a request. Returns the result of each, in order.

        Refused events do not raise. An error that ends the call early, such as Unavailable, has the
        results so far in `results`.
        """
        return self._run(self._calls.bulk.all(events))

    def get(self, id: str) -> Event:
        """The event with this id. Raises NotFound."""
        return self._get(Event, path("events", id))

    def now(self) -> str:
        """The cursor after the last event: from there, `follow` begins with the next event."""
        return self._run(self._calls.now())

    def follow(
        self,
        cursor: str | None = None,
        *,
        poll_s: float = 1.0,
        stop: Stop | None = None,
        start_again: bool = False,
    ) -> "Following[Event]":
        """All events after the cursor, or from the first one, as they are committed.

        It never ends by itself, not even in an outage; `stop` ends it when it is set. Store the
        `cursor` of the returned iterator after you have processed an event. Given again after a
        restart, it goes on with the next event. After a restore of the database it raises
        EpochChanged, or with `start_again` begins at the first event: then events come again.
        """
        follower = LogFollower(Event, cursor, poll_s, self._policy, start_again=start_again)
        return Following(self, follower, stop)

    def withdraw(self, id: str) -> None:
        """Withdraws an event, as if it had never been sent. Doing so again does no harm. Raises
        NotFound if you never sent it.
        """
        request = Request("DELETE", path("events", id))
        self._run(exchange(request, self._policy, 204))

    def withdraw_many(self, ids: Iterable[str]) -> list[WithdrawResult]:
        """Withdraws many events, up to 10,000 in a request. Returns the result of each, in order.
        An error that ends the call early has the results so far in `results`. Doing all of it again
        does no harm.
        """
        return self._run(self._calls.withdraw.all(ids))

    def withdrawn(
        self,
        *,
        type: str | None = None,
        charger_id: str | None = None,
        vehicle_id: str | None = None,
        order: Literal["asc", "desc"] = "asc",
        page_size: int = 100,
    ) -> Iterator[Withdrawal]:
        """The withdrawals, in their order."""
        return self._list(
            Withdrawal,
            "/events/withdrawn",
            type=type,
            charger_id=charger_id,
            vehicle_id=vehicle_id,
            order=order,
            limit=page_size,
        )

    def follow_withdrawn(
        self,
        cursor: str | None = None,
        *,
        poll_s: float = 1.0,
        stop: Stop | None = None,
        start_again: bool = False,
    ) -> "Following[Withdrawal]":
        """All withdrawals after the cursor, as `follow` gives all events. Drop your copies of these
        events; ignore those that you never had.
        """
        follower = LogFollower(Withdrawal, cursor, poll_s, self._policy, start_again=start_again)
        return Following(self, follower, stop)

    def list(
        self,
        *,
        type: str | None = None,
        charger_id: str | None = None,
        vehicle_id: str | None = None,
        from_: Instant | None = None,
        to: Instant | None = None,
        order: Literal["asc", "desc"] = "asc",
        page_size: int = 100,
    ) -> Iterator[Event]:
        """The events in the order in which they were committed; `from_` inclusive, `to` not."""
        return self._list(
            Event,
            "/events",
            type=type,
            charger_id=charger_id,
            vehicle_id=vehicle_id,
            from_=from_,
            to=to,
            order=order,
            limit=page_size,
        )


class Sessions(Runner):
    """The partner's charging sessions, which the server derives from the events."""

    def get(self, id: str, *, stale_allowed: bool = False) -> Session:
        """The session with this id. Raises NotFound, also for a removed session."""
        target = path("sessions", id)
        return self._get(Session, target, stale_allowed=stale_allowed)

    def list(
        self,
        *,
        order: Literal["asc", "desc"] = "asc",
        page_size: int = 100,
        stale_allowed: bool = False,
        **selection: Unpack[SessionSelection],
    ) -> Iterator[Session]:
        """The sessions in the order of their start, or with `desc` the newest first.

        With `updated_from` they come in the order of their last change, with removed sessions.
        Raises Invalid, also for filters that exclude each other.
        """
        return self._list(
            Session,
            "/sessions",
            **selection,
            order=None if order == "asc" else order,
            stale_allowed=stale_allowed,
            limit=page_size,
        )

    def summary(
        self,
        *,
        bucket: CalendarUnit | None = None,
        time_zone: str | None = None,
        by: Literal["charger", "vehicle", "flag", "area"] | None = None,
        page_size: int = 1000,
        stale_allowed: bool = False,
        **selection: Unpack[SessionSelection],
    ) -> Iterator[SessionSummary]:
        """The sums of these sessions: in total or by group, of all time or for each hour, day, week
        or month of a time zone such as Europe/Berlin, by default UTC.

        They are in the order of time, then of the group. The selection is as in `list`, without
        `updated_from`. Raises Invalid.
        """
        return self._list(
            SessionSummary,
            "/sessions/summary",
            **selection,
            bucket=bucket,
            time_zone=time_zone,
            by=by,
            stale_allowed=stale_allowed,
            limit=page_size,
        )

    def silent_since(
        self,
        instant: Instant,
        *,
        charger_id: str | Iterable[str] | None = None,
        vehicle_id: str | Iterable[str] | None = None,
        page_size: int = 100,
        stale_allowed: bool = False,
    ) -> Iterator[Session]:
        """The active sessions without an event at that instant or later, in the order of their
        start. Some of them may lack their unplug. Reads all active ones that began before it.
        """
        since = instant_text("instant", instant)
        active = self.list(
            charger_id=charger_id,
            vehicle_id=vehicle_id,
            to=since,
            status="active",
            page_size=page_size,
            stale_allowed=stale_allowed,
        )
        for session in active:
            if session.last_event_at is not None and session.last_event_at < since:
                yield session

    def ending(self, id: str, *, at: Instant) -> Event:
        """The VEHICLE_DISCONNECTED that `end` would report. Raises the same errors."""
        return unplug_of(self.get(id), at)

    def end(self, id: str, *, at: Instant) -> Session:
        """Reports the missing unplug of an active session, and returns the session after it.

        Raises NotFound, Conflict if the session has ended already, and Invalid for a time before
        its newest event or too far in the future.
        """
        event = self.ending(id, at=at)
        self._run(EventCalls(self._policy).post(event))
        session = self.get(id)
        if session.status == SessionStatus.ACTIVE:
            # An unplug in the instant of the plug-in may belong to the session before.
            raise Conflict(
                f"The unplug at {event.timestamp} is stored, but did not end session {id}: "
                "end it at a later time."
            )
        return session

    def changes(
        self,
        cursor: str | None = None,
        *,
        updated_from: Instant | None = None,
        poll_s: float = 1.0,
        stop: Stop | None = None,
        start_again: bool = False,
    ) -> "Following[Session]":
        """All sessions, then each session again when it changes.

        Without a cursor it begins with the changes at `updated_from` or later, or with all. A
        session that a late event has removed comes with the status `removed`. It ends and goes on
        as `Events.follow` does: changes while the consumer was down are not missed.
        """
        follower = ChangeFollower(
            cursor, updated_from, poll_s, self._policy, start_again=start_again
        )
        return Following(self, follower, stop)


class Capacities(Runner):
    """How much power and energy the partner's plugged-in vehicles could move."""

    def get(self, *, at: Instant | None = None, **selection: Unpack[CapacitySelection]) -> Capacity:
        """The power and energy that plugged-in vehicles take, give and store, and could.

        It is for now, or for a past moment `at`; for all chargers, one, or those in a box: `bbox`
        is (min longitude, min latitude, max longitude, max latitude) in degrees. Raises Invalid.
        """
        return self._get(Capacity, "/capacity", **selection, at=at)

    def by_charger(
        self,
        *,
        at: Instant | None = None,
        page_size: int = 100,
        **selection: Unpack[CapacitySelection],
    ) -> Iterator[Capacity]:
        """The capacity of each charger with a vehicle plugged in, by id."""
        return self._list(Capacity, "/capacity", by="charger", **selection, at=at, limit=page_size)

    def by_area(
        self,
        *,
        at: Instant | None = None,
        page_size: int = 100,
        **selection: Unpack[CapacitySelection],
    ) -> Iterator[Capacity]:
        """The capacity of each area with such chargers: a box of a tenth of a degree. `area` is
        None for chargers without a position.
        """
        return self._list(Capacity, "/capacity", by="area", **selection, at=at, limit=page_size)

    def series(
        self,
        *,
        from_: Instant,
        to: Instant | None = None,
        step: int,
        **selection: Unpack[CapacitySelection],
    ) -> list[Capacity]:
        """The capacity at `from_` and every `step` seconds after it, before `to`, by default now.
        At most 1,000 moments, none in the future. Raises Invalid.
        """
        return self._get(list[Capacity], "/capacity", **selection, from_=from_, to=to, step=step)

    def over_time(
        self,
        *,
        from_: Instant,
        to: Instant | None = None,
        step: int,
        by: By | None = None,
        page_size: int = 1000,
        **selection: Unpack[CapacitySelection],
    ) -> Iterator[Capacity]:
        """As `series`, one by one, at up to 10,000 moments. With `by` for each charger or area with
        a vehicle plugged in: one charger or area after the other, each in the order of time.
        """
        members = {**selection, "from_": from_, "to": to, "step": step}
        if by is not None:
            return self._list(Capacity, "/capacity", by=by, **members, limit=page_size)
        return self._iterate(Lines(Capacity, self._policy, "/capacity", **query_of(members)))
