"""The awaiting client."""

from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Generic, Literal, TypeVar, Unpack

from tether.client.aio_stream import AsyncStream
from tether.client.awaiting import Stop, http_to, sleep, wait
from tether.client.capacity import CapacityCalls, Selection
from tether.client.connection import shown_url, target
from tether.client.entities import EntityCalls, Pages
from tether.client.events import EventCalls
from tether.client.exchange import Answer, Lost, Patience, Request, Script
from tether.client.following import EventFollower, Follower
from tether.client.models import (
    BulkResult,
    Charger,
    ChargerChanges,
    Event,
    Instant,
    PutResult,
    Saved,
    Vehicle,
    VehicleChanges,
)
from tether.client.sessions import SessionCalls, SessionSelection
from tether.client.stamps import Stamps
from tether.client.streaming import Subscription
from tether.client.sums import CurveSelection, Division, Unit, curve, summaries
from tether.client.values import instant_text
from tether.domain import models
from tether.domain.views import (
    Capacity,
    ChargerState,
    EnergyStep,
    Session,
    SessionSummary,
    VehicleState,
)

T = TypeVar("T")
E = TypeVar("E", Charger, Vehicle)
S = TypeVar("S", ChargerState, VehicleState)
M = TypeVar("M")
F = TypeVar("F", Event, Session)


class AsyncClient:
    """Tether's Partner API. May be used by many tasks; keeps its connections until closed.

    `url` and `api_key` come from TETHER_URL and TETHER_API_KEY unless they are given. `timeout` is
    how many seconds one try may go without hearing anything, `retries` how often a call is tried
    again after a broken connection, 429, 502, 503 and 504. Calls on states, sessions and capacity
    wait until all events are derived, unless they are given `stale_allowed`.
    """

    chargers: "AsyncChargers"
    vehicles: "AsyncVehicles"
    events: "AsyncEvents"
    sessions: "AsyncSessions"
    capacity: "AsyncCapacities"

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        retries: int = 8,
    ) -> None:
        self._target = target(url, api_key, timeout)
        self._http = http_to(self._target)
        self._patience = patience = Patience(retries)
        self.chargers = AsyncChargers(self, EntityCalls(Charger, ChargerState, patience))
        self.vehicles = AsyncVehicles(self, EntityCalls(Vehicle, VehicleState, patience))
        self.events = AsyncEvents(self, patience)
        self.sessions = AsyncSessions(self, patience)
        self.capacity = AsyncCapacities(self, CapacityCalls(patience))

    def __repr__(self) -> str:
        return f"AsyncClient({shown_url(self._target.url)!r})"

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.close()

    def stream(
        self,
        cursor: str | None = None,
        *,
        type: str | None = None,
        charger_id: str | None = None,
        vehicle_id: str | None = None,
        start_again: bool = False,
    ) -> AsyncStream:
        """Events as they are committed, and the states to which they lead.

        From now on, behind a `cursor` that a stream had, or with "start" from the first event on.
        Never ends by itself, not by an outage either: it connects again and goes on, without a gap.
        In a `with` statement it is connected when that begins: what you ask for then, such as the
        states of all vehicles, lacks nothing that the stream will not bring. After a restore of the
        database it raises EpochChanged or, to `start_again`, begins with the first event.
        """
        filters = {"type": type, "chargerId": charger_id, "vehicleId": vehicle_id}
        wanted = Subscription(cursor, self._patience, start_again=start_again, **filters)
        return AsyncStream(self._http, wanted)

    def energy(
        self,
        *,
        from_: Instant,
        to: Instant,
        step: int | Unit,
        page_size: int = 1000,
        stale_allowed: bool = False,
        **selection: Unpack[CurveSelection],
    ) -> AsyncIterator[EnergyStep]:
        """What was charged from `from_` to before `to`, in steps of so many seconds, or of an hour,
        day, week or month of a calendar. By charger or area there are those in which a vehicle was
        plugged in. The steps add up to the energy of the sessions. Raises Invalid.
        """
        window, allowed = (from_, to), stale_allowed
        return self._iterate(
            curve(self._patience, window, step, selection, page_size, stale_allowed=allowed)
        )

    async def _run(self, script: Script[T]) -> T:
        """Does what a script of the SDK says."""
        self._http.check()
        outcome: Answer | Lost | None = None
        while True:
            try:
                step = script.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(step, Request):
                outcome = await self._http.send(step)
            else:
                outcome = None
                await sleep(step.seconds)

    async def _iterate(self, pages: Pages[M]) -> AsyncIterator[M]:
        """The entries of all pages."""
        while pages.more:
            for entry in await self._run(pages.next()):
                yield entry


class _AsyncEntities(Generic[E, S]):
    def __init__(self, client: AsyncClient, calls: EntityCalls[E, S]) -> None:
        self._client = client
        self._calls: EntityCalls[E, S] = calls

    async def get(self, id: str) -> E:
        """The one of this id. Raises NotFound."""
        return await self._client._run(self._calls.get(id))

    async def get_with_etag(self, id: str) -> tuple[E, str]:
        """The one of this id and its version, for `if_match`. Raises NotFound."""
        return await self._client._run(self._calls.get_with_etag(id))

    def list(self, *, page_size: int = 100) -> AsyncIterator[E]:
        """All of them in order of id; asks for the next page (1 to 1000 entries) when needed."""
        return self._client._iterate(self._calls.pages(page_size))

    async def state(self, id: str, *, stale_allowed: bool = False) -> S:
        """What is known now of the one of this id. Raises NotFound."""
        return await self._client._run(self._calls.state(id, stale_allowed))

    def list_with_state(
        self, *, page_size: int = 100, stale_allowed: bool = False
    ) -> AsyncIterator[tuple[E, S]]:
        """All of them in order of id, each with what is known of it now."""
        return self._client._iterate(self._calls.state_pages(page_size, stale_allowed))


class AsyncChargers(_AsyncEntities[Charger, ChargerState]):
    """The partner's chargers."""

    async def put(self, charger: models.Charger, *, if_match: str | None = None) -> Saved:
        """Creates or replaces a charger; with `if_match` only if it has that version.

        Raises Invalid, PreconditionFailed.
        """
        return await self._client._run(self._calls.put(charger, if_match))

    async def bulk(self, chargers: Iterable[models.Charger]) -> list[PutResult]:
        """Creates or replaces many chargers, up to 10,000 in a request; says of each in order what
        became of it. Of two with one id the later one counts.

        Refused ones do not raise. What ends it before its time does, such as Unavailable: then
        `results` of the error has what is known.
        """
        return await self._client._run(self._calls.bulk(chargers))

    async def patch(
        self, id: str, *, if_match: str | None = None, **changes: Unpack[ChargerChanges]
    ) -> Saved:
        """Changes some members of a charger; None removes one.

        Raises NotFound, Invalid, PreconditionFailed.
        """
        return await self._client._run(self._calls.patch(id, changes, if_match))


class AsyncVehicles(_AsyncEntities[Vehicle, VehicleState]):
    """The partner's vehicles."""

    async def put(self, vehicle: models.Vehicle, *, if_match: str | None = None) -> Saved:
        """Creates or replaces a vehicle; with `if_match` only if it has that version.

        Raises Invalid, PreconditionFailed.
        """
        return await self._client._run(self._calls.put(vehicle, if_match))

    async def bulk(self, vehicles: Iterable[models.Vehicle]) -> list[PutResult]:
        """Creates or replaces many vehicles, up to 10,000 in a request; says of each in order what
        became of it. Of two with one id the later one counts.

        Refused ones do not raise. What ends it before its time does, such as Unavailable: then
        `results` of the error has what is known.
        """
        return await self._client._run(self._calls.bulk(vehicles))

    async def patch(
        self, id: str, *, if_match: str | None = None, **changes: Unpack[VehicleChanges]
    ) -> Saved:
        """Changes some members of a vehicle; None removes one.

        Raises NotFound, Invalid, PreconditionFailed.
        """
        return await self._client._run(self._calls.patch(id, changes, if_match))


class AsyncEvents:
    """The partner's events."""

    def __init__(self, client: AsyncClient, patience: Patience) -> None:
        self._client = client
        self._patience = patience
        self._calls = EventCalls(patience, Stamps())

    async def post(self, event: models.Event) -> str:
        """Reports an event and returns its id; one without a timestamp happens now.

        Raises Invalid, Conflict. If it raises Unavailable or RateLimited and you want to try again
        later, post the `event` of the error, which has its timestamp: that is safe at any time.
        """
        return await self._client._run(self._calls.post(event))

    async def bulk(self, events: Iterable[models.Event]) -> list[BulkResult]:
        """Reports many events, up to 10,000 in a request; says of each in order what became of it.

        Refused events do not raise. What ends it before its time does, such as Unavailable: then
        `results` of the error has what is known.
        """
        return await self._client._run(self._calls.bulk(events))

    async def get(self, id: str) -> Event:
        """The event of this id. Raises NotFound."""
        return await self._client._run(self._calls.get(id))

    async def now(self) -> str:
        """The cursor behind the last event that there is: `follow` begins there with the next."""
        return await self._client._run(self._calls.now())

    def follow(
        self,
        cursor: str | None = None,
        *,
        poll_s: float = 1.0,
        stop: Stop | None = None,
        start_again: bool = False,
    ) -> "AsyncFollowing[Event]":
        """All events after the cursor, from the first one if there is none, as they are committed.

        Never ends by itself, not by an outage either; `stop` ends it when it is set. Store the
        `cursor` of what this returns when an event is dealt with: given back after a restart, it
        goes on right behind that event. If the database was restored since, it raises EpochChanged
        or, to `start_again`, begins with the first event: what you have had comes again.
        """
        follower = EventFollower(cursor, poll_s, self._patience, start_again=start_again)
        return AsyncFollowing(self._client, follower, stop or Stop())

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
    ) -> AsyncIterator[Event]:
        """The events in the order in which they were committed; `from_` inclusive, `to` not."""
        return self._client._iterate(
            self._calls.pages(
                type=type,
                charger_id=charger_id,
                vehicle_id=vehicle_id,
                from_=from_,
                to=to,
                order=order,
                page_size=page_size,
            )
        )


class AsyncSessions:
    """The partner's charging sessions, which the server derives from the events."""

    def __init__(self, client: AsyncClient, patience: Patience) -> None:
        self._client = client
        self._calls = SessionCalls(patience, EventCalls(patience, Stamps()))

    async def get(self, id: str, *, stale_allowed: bool = False) -> Session:
        """The session of this id. Raises NotFound, also for one that was removed."""
        return await self._client._run(self._calls.get(id, stale_allowed))

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
    ) -> AsyncIterator[SessionSummary]:
        """The sums of these sessions: in total or by groups, of all time or of each hour, day, week
        or month on the clocks of a zone such as Europe/Berlin, which is UTC unless it is given.

        In the order of time, then of the group. The selection is that of `list`, without
        `updated_from`. Raises Invalid.
        """
        division: Division = {"bucket": bucket, "time_zone": time_zone, "by": by}
        return self._client._iterate(
            summaries(
                self._client._patience, selection, division, page_size, stale_allowed=stale_allowed
            )
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
        return await self._client._run(self._calls.ending(id, at))

    async def end(self, id: str, *, at: Instant) -> Session:
        """Reports the missing unplug of an active session, and returns the session as it is then.

        Raises NotFound, Conflict if it ended already, and Invalid for a time before its newest
        event, or one that is too far in the future.
        """
        return await self._client._run(self._calls.end(id, at))

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
        follower = self._calls.changes(cursor, updated_from, poll_s, start_again=start_again)
        return AsyncFollowing(self._client, follower, stop or Stop())


class AsyncCapacities:
    """How much power and energy the partner's plugged-in vehicles could move."""

    def __init__(self, client: AsyncClient, calls: CapacityCalls) -> None:
        self._client = client
        self._calls = calls

    async def get(self, *, at: Instant | None = None, **selection: Unpack[Selection]) -> Capacity:
        """What plugged-in vehicles take, give and store, and how much more they could.

        Now, or `at` a past moment. Of all chargers, or of one, or of those in a box: `bbox` is
        (min longitude, min latitude, max longitude, max latitude) in degrees. Raises Invalid.
        """
        return await self._client._run(self._calls.get(at, selection))

    def by_charger(
        self,
        *,
        at: Instant | None = None,
        page_size: int = 100,
        **selection: Unpack[Selection],
    ) -> AsyncIterator[Capacity]:
        """The same of each charger with a vehicle plugged in, in order of their ids."""
        return self._client._iterate(self._calls.pages(at, page_size, selection))

    async def series(
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
        return await self._client._run(self._calls.series(from_, to, step, selection))


class AsyncFollowing(AsyncIterator[F], Generic[F]):
    """An endless iterator. Its `cursor` is the place after the last entry that it gave."""

    def __init__(self, client: AsyncClient, follower: Follower[F], stop: Stop) -> None:
        self._client = client
        self._follower: Follower[F] = follower
        self._stop = stop

    @property
    def cursor(self) -> str:
        """The place after the last entry, for `follow` or `changes`."""
        return self._follower.cursor

    async def __anext__(self) -> F:
        while not self._stop.is_set():
            entry = self._follower.take()
            if entry is not None:
                return entry
            if seconds := await self._client._run(self._follower.fetch()):
                await wait(self._stop, seconds)
        raise StopAsyncIteration
