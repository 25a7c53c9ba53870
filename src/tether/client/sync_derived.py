# Made from aio_derived.py by scripts/unasync.py: change that, then `make unasync`.
"""What the server derives from the events: sessions and capacity."""

from collections.abc import Iterable, Iterator
from typing import Literal, Unpack

from tether.client.blocking import Stop
from tether.client.capacity import By, CapacityCalls, Selection
from tether.client.events import EventCalls
from tether.client.exchange import RetryPolicy
from tether.client.models import Event, Instant
from tether.client.sessions import SessionCalls, SessionSelection
from tether.client.stamps import Stamps
from tether.client.sums import Division, Unit, summaries
from tether.client.sync_run import Following, Runner
from tether.client.values import instant_text
from tether.domain.views import Capacity, Session, SessionSummary


class Sessions:
    """The partner's charging sessions, which the server derives from the events."""

    def __init__(self, client: Runner, policy: RetryPolicy) -> None:
        self._client = client
        self._calls = SessionCalls(policy, EventCalls(policy, Stamps()))

    def get(self, id: str, *, stale_allowed: bool = False) -> Session:
        """The session of this id. Raises NotFound, also for one that was removed."""
        return self._client._run(self._calls.get(id, stale_allowed))

    def list(
        self,
        *,
        order: Literal["asc", "desc"] = "asc",
        page_size: int = 100,
        stale_allowed: bool = False,
        **selection: Unpack[SessionSelection],
    ) -> Iterator[Session]:
        """The sessions in the order of their start; `desc`: the newest first.

        With `updated_from` in the order of their last change, and the removed ones among them.
        Raises Invalid, also where filters exclude each other.
        """
        return self._client._iterate(self._calls.pages(selection, order, page_size, stale_allowed))

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
        """The sums of these sessions: in total or by groups, of all time or of each hour, day, week
        or month on the clocks of a zone such as Europe/Berlin, which is UTC unless it is given.

        In the order of time, then of the group. The selection is that of `list`, without
        `updated_from`. Raises Invalid.
        """
        division: Division = {"bucket": bucket, "time_zone": time_zone, "by": by}
        policy = self._client._policy
        return self._client._iterate(
            summaries(policy, selection, division, page_size, stale_allowed)
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
        for session in active:
            if session.last_event_at is not None and session.last_event_at < since:
                yield session

    def ending(self, id: str, *, at: Instant) -> Event:
        """The VEHICLE_DISCONNECTED that `end` would report. Raises what that does."""
        return self._client._run(self._calls.ending(id, at))

    def end(self, id: str, *, at: Instant) -> Session:
        """Reports the missing unplug of an active session, and returns the session as it is then.

        Raises NotFound, Conflict if it ended already, and Invalid for a time before its newest
        event, or one that is too far in the future.
        """
        return self._client._run(self._calls.end(id, at))

    def changes(
        self,
        cursor: str | None = None,
        *,
        updated_from: Instant | None = None,
        poll_s: float = 1.0,
        stop: Stop | None = None,
        start_again: bool = False,
    ) -> "Following[Session]":
        """All sessions, then each one again that changes, as it is then.

        Without a cursor it begins with what changed at `updated_from` or later, or with all. A
        session that a late event did away with comes with the status `removed`. Ends and goes on
        as `Events.follow` does: nothing that changed while the consumer was down is missed.
        """
        follower = self._calls.changes(cursor, updated_from, poll_s, start_again=start_again)
        return Following(self._client, follower, stop or Stop())


class Capacities:
    """How much power and energy the partner's plugged-in vehicles could move."""

    def __init__(self, client: Runner, calls: CapacityCalls) -> None:
        self._client = client
        self._calls = calls

    def get(self, *, at: Instant | None = None, **selection: Unpack[Selection]) -> Capacity:
        """What plugged-in vehicles take, give and store, and how much more they could.

        Now, or `at` a past moment. Of all chargers, or of one, or of those in a box: `bbox` is
        (min longitude, min latitude, max longitude, max latitude) in degrees. Raises Invalid.
        """
        return self._client._run(self._calls.get(at, selection))

    def by_charger(
        self,
        *,
        at: Instant | None = None,
        page_size: int = 100,
        **selection: Unpack[Selection],
    ) -> Iterator[Capacity]:
        """The same of each charger with a vehicle plugged in, in order of their ids."""
        return self._client._iterate(self._calls.pages("charger", page_size, selection, at=at))

    def by_area(
        self,
        *,
        at: Instant | None = None,
        page_size: int = 100,
        **selection: Unpack[Selection],
    ) -> Iterator[Capacity]:
        """The same of each box of a tenth of a degree in which such chargers stand; `area` is None
        of those without a position.
        """
        return self._client._iterate(self._calls.pages("area", page_size, selection, at=at))

    def series(
        self,
        *,
        from_: Instant,
        to: Instant | None = None,
        step: int,
        **selection: Unpack[Selection],
    ) -> list[Capacity]:
        """The same at `from_`, every `step` seconds after that, and before `to`, which is now if
        it is not given. At most 1,000 moments, none in the future. Raises Invalid.
        """
        return self._client._run(self._calls.series((from_, to, step), selection))

    def over_time(
        self,
        *,
        from_: Instant,
        to: Instant | None = None,
        step: int,
        by: By | None = None,
        page_size: int = 1000,
        **selection: Unpack[Selection],
    ) -> Iterator[Capacity]:
        """The same one by one, at up to 10,000 moments. With `by` of each charger or area with a
        vehicle plugged in: one charger or area after the other, each by time.
        """
        window = (from_, to, step)
        if by is None:
            for one in self._client._run(self._calls.lines(window, selection)):
                yield one
            return
        pages = self._calls.pages(by, page_size, selection, window=window)
        for one in self._client._iterate(pages):
            yield one
