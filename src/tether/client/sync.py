# Made from aio.py by scripts/unasync.py: change that, then `make unasync`.
"""The blocking client."""

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Generic, Literal, TypeVar, Unpack

from tether.client.blocking import Stop, http_to, sleep, wait
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
from tether.client.sync_stream import Stream
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


class Client:
    """Tether's Partner API. May be used by many threads; keeps its connections until closed.

    `url` and `api_key` come from TETHER_URL and TETHER_API_KEY unless they are given. `timeout` is
    how many seconds one try may go without hearing anything, `retries` how often a call is tried
    again after a broken connection, 429, 502, 503 and 504. Calls on states, sessions and capacity
    wait until all events are derived, unless they are given `stale_allowed`.
    """

    chargers: "Chargers"
    vehicles: "Vehicles"
    events: "Events"
    sessions: "Sessions"
    capacity: "Capacities"

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
        self.chargers = Chargers(self, EntityCalls(Charger, ChargerState, patience))
        self.vehicles = Vehicles(self, EntityCalls(Vehicle, VehicleState, patience))
        self.events = Events(self, patience)
        self.sessions = Sessions(self, patience)
        self.capacity = Capacities(self, CapacityCalls(patience))

    def __repr__(self) -> str:
        return f"Client({shown_url(self._target.url)!r})"

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def stream(
        self,
        cursor: str | None = None,
        *,
        type: str | None = None,
        charger_id: str | None = None,
        vehicle_id: str | None = None,
        start_again: bool = False,
    ) -> Stream:
        """Events as they are committed, and the states to which they lead.

        From now on, behind a `cursor` that a stream had, or with "start" from the first event on.
        Never ends by itself, not by an outage either: it connects again and goes on, without a gap.
        In a `with` statement it is connected when that begins: what you ask for then, such as the
        states of all vehicles, lacks nothing that the stream will not bring. After a restore of the
        database it raises EpochChanged or, to `start_again`, begins with the first event.
        """
        filters = {"type": type, "chargerId": charger_id, "vehicleId": vehicle_id}
        wanted = Subscription(cursor, self._patience, start_again=start_again, **filters)
        return Stream(self._http, wanted)

    def energy(
        self,
        *,
        from_: Instant,
        to: Instant,
        step: int | Unit,
        page_size: int = 1000,
        stale_allowed: bool = False,
        **selection: Unpack[CurveSelection],
    ) -> Iterator[EnergyStep]:
        """What was charged from `from_` to before `to`, in steps of so many seconds, or of an hour,
        day, week or month of a calendar. By charger or area there are those in which a vehicle was
        plugged in. The steps add up to the energy of the sessions. Raises Invalid.
        """
        window, allowed = (from_, to), stale_allowed
        return self._iterate(
            curve(self._patience, window, step, selection, page_size, stale_allowed=allowed)
        )

    def _run(self, script: Script[T]) -> T:
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
                outcome = self._http.send(step)
            else:
                outcome = None
                sleep(step.seconds)

    def _iterate(self, pages: Pages[M]) -> Iterator[M]:
        """The entries of all pages."""
        while pages.more:
            for entry in self._run(pages.next()):
                yield entry


class _Entities(Generic[E, S]):
    def __init__(self, client: Client, calls: EntityCalls[E, S]) -> None:
        self._client = client
        self._calls: EntityCalls[E, S] = calls

    def get(self, id: str) -> E:
        """The one of this id. Raises NotFound."""
        return self._client._run(self._calls.get(id))

    def get_with_etag(self, id: str) -> tuple[E, str]:
        """The one of this id and its version, for `if_match`. Raises NotFound."""
        return self._client._run(self._calls.get_with_etag(id))

    def list(self, *, page_size: int = 100) -> Iterator[E]:
        """All of them in order of id; asks for the next page (1 to 1000 entries) when needed."""
        return self._client._iterate(self._calls.pages(page_size))

    def state(self, id: str, *, stale_allowed: bool = False) -> S:
        """What is known now of the one of this id. Raises NotFound."""
        return self._client._run(self._calls.state(id, stale_allowed))

    def list_with_state(
        self, *, page_size: int = 100, stale_allowed: bool = False
    ) -> Iterator[tuple[E, S]]:
        """All of them in order of id, each with what is known of it now."""
        return self._client._iterate(self._calls.state_pages(page_size, stale_allowed))


class Chargers(_Entities[Charger, ChargerState]):
    """The partner's chargers."""

    def put(self, charger: models.Charger, *, if_match: str | None = None) -> Saved:
        """Creates or replaces a charger; with `if_match` only if it has that version.

        Raises Invalid, PreconditionFailed.
        """
        return self._client._run(self._calls.put(charger, if_match))

    def bulk(self, chargers: Iterable[models.Charger]) -> list[PutResult]:
        """Creates or replaces many chargers, up to 10,000 in a request; says of each in order what
        became of it. Of two with one id the later one counts.

        Refused ones do not raise. What ends it before its time does, such as Unavailable: then
        `results` of the error has what is known.
        """
        return self._client._run(self._calls.bulk(chargers))

    def patch(
        self, id: str, *, if_match: str | None = None, **changes: Unpack[ChargerChanges]
    ) -> Saved:
        """Changes some members of a charger; None removes one.

        Raises NotFound, Invalid, PreconditionFailed.
        """
        return self._client._run(self._calls.patch(id, changes, if_match))


class Vehicles(_Entities[Vehicle, VehicleState]):
    """The partner's vehicles."""

    def put(self, vehicle: models.Vehicle, *, if_match: str | None = None) -> Saved:
        """Creates or replaces a vehicle; with `if_match` only if it has that version.

        Raises Invalid, PreconditionFailed.
        """
        return self._client._run(self._calls.put(vehicle, if_match))

    def bulk(self, vehicles: Iterable[models.Vehicle]) -> list[PutResult]:
        """Creates or replaces many vehicles, up to 10,000 in a request; says of each in order what
        became of it. Of two with one id the later one counts.

        Refused ones do not raise. What ends it before its time does, such as Unavailable: then
        `results` of the error has what is known.
        """
        return self._client._run(self._calls.bulk(vehicles))

    def patch(
        self, id: str, *, if_match: str | None = None, **changes: Unpack[VehicleChanges]
    ) -> Saved:
        """Changes some members of a vehicle; None removes one.

        Raises NotFound, Invalid, PreconditionFailed.
        """
        return self._client._run(self._calls.patch(id, changes, if_match))


class Events:
    """The partner's events."""

    def __init__(self, client: Client, patience: Patience) -> None:
        self._client = client
        self._patience = patience
        self._calls = EventCalls(patience, Stamps())

    def post(self, event: models.Event) -> str:
        """Reports an event and returns its id; one without a timestamp happens now.

        Raises Invalid, Conflict. If it raises Unavailable or RateLimited and you want to try again
        later, post the `event` of the error, which has its timestamp: that is safe at any time.
        """
        return self._client._run(self._calls.post(event))

    def bulk(self, events: Iterable[models.Event]) -> list[BulkResult]:
        """Reports many events, up to 10,000 in a request; says of each in order what became of it.

        Refused events do not raise. What ends it before its time does, such as Unavailable: then
        `results` of the error has what is known.
        """
        return self._client._run(self._calls.bulk(events))

    def get(self, id: str) -> Event:
        """The event of this id. Raises NotFound."""
        return self._client._run(self._calls.get(id))

    def now(self) -> str:
        """The cursor behind the last event that there is: `follow` begins there with the next."""
        return self._client._run(self._calls.now())

    def follow(
        self,
        cursor: str | None = None,
        *,
        poll_s: float = 1.0,
        stop: Stop | None = None,
        start_again: bool = False,
    ) -> "Following[Event]":
        """All events after the cursor, from the first one if there is none, as they are committed.

        Never ends by itself, not by an outage either; `stop` ends it when it is set. Store the
        `cursor` of what this returns when an event is dealt with: given back after a restart, it
        goes on right behind that event. If the database was restored since, it raises EpochChanged
        or, to `start_again`, begins with the first event: what you have had comes again.
        """
        follower = EventFollower(cursor, poll_s, self._patience, start_again=start_again)
        return Following(self._client, follower, stop or Stop())

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


class Sessions:
    """The partner's charging sessions, which the server derives from the events."""

    def __init__(self, client: Client, patience: Patience) -> None:
        self._client = client
        self._calls = SessionCalls(patience, EventCalls(patience, Stamps()))

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
        return self._client._iterate(
            summaries(
                self._client._patience, selection, division, page_size, stale_allowed=stale_allowed
            )
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

    def __init__(self, client: Client, calls: CapacityCalls) -> None:
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
        return self._client._iterate(self._calls.pages(at, page_size, selection))

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
        return self._client._run(self._calls.series(from_, to, step, selection))


class Following(Iterator[F], Generic[F]):
    """An endless iterator. Its `cursor` is the place after the last entry that it gave."""

    def __init__(self, client: Client, follower: Follower[F], stop: Stop) -> None:
        self._client = client
        self._follower: Follower[F] = follower
        self._stop = stop

    @property
    def cursor(self) -> str:
        """The place after the last entry, for `follow` or `changes`."""
        return self._follower.cursor

    def __next__(self) -> F:
        while not self._stop.is_set():
            entry = self._follower.take()
            if entry is not None:
                return entry
            if seconds := self._client._run(self._follower.fetch()):
                wait(self._stop, seconds)
        raise StopIteration
