# Made from aio_derived.py by scripts/unasync.py: change that, then `make unasync`.
"""Sessions and capacity, which the server derives from the events."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Literal, Unpack

from tether.client.blocking import Stop
from tether.client.errors import Conflict
from tether.client.events import EventCalls, unplug_of
from tether.client.exchange import Request, exchange, path, read, with_query
from tether.client.following import ChangeFollower
from tether.client.models import Event, Instant
from tether.client.selections import (
    By,
    CapacitySelection,
    SessionSelection,
    Unit,
    capacity_query,
    query_of,
    stale,
    window_query,
)
from tether.client.sync_run import Following, Runner
from tether.client.values import instant_or_none, instant_text
from tether.domain.views import Capacity, Session, SessionStatus, SessionSummary


class Sessions:
    """The partner's charging sessions, which the server derives from the events."""

    def __init__(self, client: Runner) -> None:
        self._client = client

    def get(self, id: str, *, stale_allowed: bool = False) -> Session:
        """The session with this id. Raises NotFound, also for a removed session."""
        target = path("sessions", id)
        return self._client._get(Session, target, stale=stale(stale_allowed))

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
        return self._client._list(
            Session,
            "/sessions",
            **query_of(selection),
            order=None if order == "asc" else order,
            stale=stale(stale_allowed),
            limit=page_size,
        )

    def summary(
        self,
        *,
        bucket: Unit | None = None,
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
        return self._client._list(
            SessionSummary,
            "/sessions/summary",
            **query_of(selection),
            bucket=bucket,
            timeZone=time_zone,
            by=by,
            stale=stale(stale_allowed),
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
        self._client._run(EventCalls(self._client._policy).post(event))
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
        policy = self._client._policy
        follower = ChangeFollower(cursor, updated_from, poll_s, policy, start_again=start_again)
        return Following(self._client, follower, stop or Stop())


class Capacities:
    """How much power and energy the partner's plugged-in vehicles could move."""

    def __init__(self, client: Runner) -> None:
        self._client = client

    def get(self, *, at: Instant | None = None, **selection: Unpack[CapacitySelection]) -> Capacity:
        """The power and energy that plugged-in vehicles take, give and store, and could.

        It is for now, or for a past moment `at`; for all chargers, one, or those in a box: `bbox`
        is (min longitude, min latitude, max longitude, max latitude) in degrees. Raises Invalid.
        """
        query = capacity_query(**selection)
        return self._client._get(Capacity, "/capacity", **query, at=instant_or_none("at", at))

    def by_charger(
        self,
        *,
        at: Instant | None = None,
        page_size: int = 100,
        **selection: Unpack[CapacitySelection],
    ) -> Iterator[Capacity]:
        """The capacity of each charger with a vehicle plugged in, by id."""
        return self._at_moment("charger", at, page_size, selection)

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
        return self._at_moment("area", at, page_size, selection)

    def _at_moment(
        self, by: By, at: Instant | None, page_size: int, selection: CapacitySelection
    ) -> Iterator[Capacity]:
        query = capacity_query(**selection)
        moment = instant_or_none("at", at)
        return self._client._list(Capacity, "/capacity", by=by, **query, at=moment, limit=page_size)

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
        query = capacity_query(**selection) | window_query(from_, to, step)
        return self._client._get(list[Capacity], "/capacity", **query)

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
        query = capacity_query(**selection) | window_query(from_, to, step)
        if by is None:
            headers = {"Accept": "application/x-ndjson"}
            request = Request("GET", with_query("/capacity", **query), headers=headers)
            answer = self._client._run(exchange(request, self._client._policy, 200))
            for line in answer.body.splitlines():
                yield read(Capacity, replace(answer, body=line), request)
            return
        pages = self._client._list(Capacity, "/capacity", by=by, **query, limit=page_size)
        for one in pages:
            yield one
