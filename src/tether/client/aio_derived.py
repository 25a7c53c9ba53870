"""What the server derives from the events: sessions and capacity."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import Literal, Unpack

from tether.client.aio_run import AsyncFollowing, AsyncRunner
from tether.client.awaiting import Stop
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
from tether.client.values import instant_or_none, instant_text
from tether.domain.views import Capacity, Session, SessionStatus, SessionSummary


class AsyncSessions:
    """The partner's charging sessions, which the server derives from the events."""

    def __init__(self, client: AsyncRunner) -> None:
        self._client = client

    async def get(self, id: str, *, stale_allowed: bool = False) -> Session:
        """The session of this id. Raises NotFound, also for one that was removed."""
        target = path("sessions", id)
        return await self._client._get(Session, target, stale=stale(stale_allowed))

    def list(
        self,
        *,
        order: Literal["asc", "desc"] = "asc",
        page_size: int = 100,
        stale_allowed: bool = False,
        **selection: Unpack[SessionSelection],
    ) -> AsyncIterator[Session]:
        """The sessions in the order of their start; `desc`: the newest first.

        With `updated_from` in the order of their last change, and the removed ones among them.
        Raises Invalid, also where filters exclude each other.
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
    ) -> AsyncIterator[SessionSummary]:
        """The sums of these sessions: in total or by groups, of all time or of each hour, day, week
        or month on the clocks of a zone such as Europe/Berlin, which is UTC unless it is given.

        In the order of time, then of the group. The selection is that of `list`, without
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

    async def silent_since(
        self,
        instant: Instant,
        *,
        charger_id: str | Iterable[str] | None = None,
        vehicle_id: str | Iterable[str] | None = None,
        page_size: int = 100,
        stale_allowed: bool = False,
    ) -> AsyncIterator[Session]:
        """The active sessions without an event at that instant or later, in the order of their
        start: the unplug of some of them is lost. Reads the active ones that began before it.
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
        async for session in active:
            if session.last_event_at is not None and session.last_event_at < since:
                yield session

    async def ending(self, id: str, *, at: Instant) -> Event:
        """The VEHICLE_DISCONNECTED that `end` would report. Raises what that does."""
        return unplug_of(await self.get(id), at)

    async def end(self, id: str, *, at: Instant) -> Session:
        """Reports the missing unplug of an active session, and returns the session as it is then.

        Raises NotFound, Conflict if it ended already, and Invalid for a time before its newest
        event, or one that is too far in the future.
        """
        event = await self.ending(id, at=at)
        await self._client._run(EventCalls(self._client._policy).post(event))
        session = await self.get(id)
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
    ) -> "AsyncFollowing[Session]":
        """All sessions, then each one again that changes, as it is then.

        Without a cursor it begins with what changed at `updated_from` or later, or with all. A
        session that a late event did away with comes with the status `removed`. Ends and goes on
        as `Events.follow` does: nothing that changed while the consumer was down is missed.
        """
        policy = self._client._policy
        follower = ChangeFollower(cursor, updated_from, poll_s, policy, start_again=start_again)
        return AsyncFollowing(self._client, follower, stop or Stop())


class AsyncCapacities:
    """How much power and energy the partner's plugged-in vehicles could move."""

    def __init__(self, client: AsyncRunner) -> None:
        self._client = client

    async def get(
        self, *, at: Instant | None = None, **selection: Unpack[CapacitySelection]
    ) -> Capacity:
        """What plugged-in vehicles take, give and store, and how much more they could.

        Now, or `at` a past moment. Of all chargers, or of one, or of those in a box: `bbox` is
        (min longitude, min latitude, max longitude, max latitude) in degrees. Raises Invalid.
        """
        query = capacity_query(**selection)
        return await self._client._get(Capacity, "/capacity", **query, at=instant_or_none("at", at))

    def by_charger(
        self,
        *,
        at: Instant | None = None,
        page_size: int = 100,
        **selection: Unpack[CapacitySelection],
    ) -> AsyncIterator[Capacity]:
        """The same of each charger with a vehicle plugged in, in order of their ids."""
        return self._at_moment("charger", at, page_size, selection)

    def by_area(
        self,
        *,
        at: Instant | None = None,
        page_size: int = 100,
        **selection: Unpack[CapacitySelection],
    ) -> AsyncIterator[Capacity]:
        """The same of each box of a tenth of a degree in which such chargers stand; `area` is None
        of those without a position.
        """
        return self._at_moment("area", at, page_size, selection)

    def _at_moment(
        self, by: By, at: Instant | None, page_size: int, selection: CapacitySelection
    ) -> AsyncIterator[Capacity]:
        query = capacity_query(**selection)
        moment = instant_or_none("at", at)
        return self._client._list(Capacity, "/capacity", by=by, **query, at=moment, limit=page_size)

    async def series(
        self,
        *,
        from_: Instant,
        to: Instant | None = None,
        step: int,
        **selection: Unpack[CapacitySelection],
    ) -> list[Capacity]:
        """The same at `from_`, every `step` seconds after that, and before `to`, which is now if
        it is not given. At most 1,000 moments, none in the future. Raises Invalid.
        """
        query = capacity_query(**selection) | window_query(from_, to, step)
        return await self._client._get(list[Capacity], "/capacity", **query)

    async def over_time(
        self,
        *,
        from_: Instant,
        to: Instant | None = None,
        step: int,
        by: By | None = None,
        page_size: int = 1000,
        **selection: Unpack[CapacitySelection],
    ) -> AsyncIterator[Capacity]:
        """The same one by one, at up to 10,000 moments. With `by` of each charger or area with a
        vehicle plugged in: one charger or area after the other, each by time.
        """
        query = capacity_query(**selection) | window_query(from_, to, step)
        if by is None:
            headers = {"Accept": "application/x-ndjson"}
            request = Request("GET", with_query("/capacity", **query), headers=headers)
            answer = await self._client._run(exchange(request, self._client._policy, 200))
            for line in answer.body.splitlines():
                yield read(Capacity, replace(answer, body=line), request)
            return
        pages = self._client._list(Capacity, "/capacity", by=by, **query, limit=page_size)
        async for one in pages:
            yield one
