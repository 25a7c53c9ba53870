# Made from aio.py by scripts/unasync.py: change that, then `make unasync`.
"""The blocking client."""

from collections.abc import Iterable, Iterator
from typing import Generic, Literal, TypeVar, Unpack

from tether.client.blocking import Stop, http_to
from tether.client.bulk import BulkCalls, put_result, withdraw_result
from tether.client.connection import endpoint, url_without_password
from tether.client.entities import EntityCalls
from tether.client.events import EventCalls
from tether.client.exchange import Request, RetryPolicy, exchange, path
from tether.client.following import LogFollower
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
    Withdrawal,
    WithdrawResult,
)
from tether.client.pagination import StatePages
from tether.client.selections import AuditSelection, CurveSelection, Unit, query_of, stale
from tether.client.streaming import Subscription
from tether.client.sync_derived import Capacities, Sessions
from tether.client.sync_run import Following, Runner, Stream
from tether.client.sync_webhooks import Webhooks
from tether.client.values import exact, instant_or_none, instant_text
from tether.domain import models
from tether.domain.audit import AuditEntry
from tether.domain.views import ChargerState, EnergyStep, VehicleState

E = TypeVar("E", Charger, Vehicle)
S = TypeVar("S", ChargerState, VehicleState)


class Client(Runner):
    """Tether's Partner API. May be used by many threads; keeps its connections until closed.

    `url` and `api_key` are by default TETHER_URL and TETHER_API_KEY. `timeout` is the number of
    seconds that one try may go without any data. `retries` is how often a call is tried again after
    a broken connection, 429, 502, 503 and 504. Calls on states, sessions and capacity wait until
    all events are derived, unless they get `stale_allowed`.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        retries: int = 8,
    ) -> None:
        self._endpoint = endpoint(url, api_key, timeout)
        self._http = http_to(self._endpoint)
        self._policy = RetryPolicy(retries)
        self.chargers = Chargers(self, Charger, ChargerState)
        self.vehicles = Vehicles(self, Vehicle, VehicleState)
        self.events = Events(self)
        self.sessions = Sessions(self)
        self.capacity = Capacities(self)
        self.webhooks = Webhooks(self)

    def __repr__(self) -> str:
        return f"Client({url_without_password(self._endpoint.url)!r})"

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
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
        """Events as they are committed, withdrawals, and the states that follow from them.

        It begins now, after a `cursor` of an earlier stream, or with "start" at the first event. It
        never ends by itself: in an outage it connects again and goes on, without a gap. A `with`
        statement connects it at once: states of vehicles that you get inside of it and the messages
        of the stream together lack nothing. After a restore of the database it raises EpochChanged,
        or with `start_again` begins at the first event.
        """
        subscription = Subscription(
            cursor,
            self._policy,
            start_again=start_again,
            type=type,
            chargerId=charger_id,
            vehicleId=vehicle_id,
        )
        return Stream(self._http, subscription)

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
        """The load curve from `from_` to before `to`, in steps of so many seconds, or of an hour,
        day, week or month of a calendar. With `by` it has the chargers or areas with a vehicle
        plugged in. The steps add up to the energy of the sessions. Raises Invalid.
        """
        return self._list(
            EnergyStep,
            "/energy",
            **query_of(selection),
            from_=instant_text("from", from_),
            to=instant_text("to", to),
            step=step,
            stale=stale(stale_allowed),
            limit=page_size,
        )

    def audit(
        self,
        *,
        order: Literal["asc", "desc"] = "asc",
        page_size: int = 100,
        **selection: Unpack[AuditSelection],
    ) -> Iterator[AuditEntry]:
        """The audit trail: changes of the partner's keys and settings, withdrawals and sign-ins, in
        the order of time, or with `desc` the newest first. Raises Invalid.
        """
        newest_first = None if order == "asc" else order
        query = query_of(selection)
        return self._list(AuditEntry, "/audit", **query, order=newest_first, limit=page_size)


class _Entities(Generic[E, S]):
    def __init__(self, client: Client, kind: type[E], state: type[S]) -> None:
        self._client = client
        self._kind: type[E] = kind
        self._state: type[S] = state
        name, policy = kind.__name__.lower(), client._policy
        self._path = f"/{name}s"
        self._calls: EntityCalls[E] = EntityCalls(kind, policy)
        self._bulk = BulkCalls(name, f"{self._path}/bulk", policy, exact, put_result)

    def get(self, id: str) -> E:
        """The charger or vehicle with this id. Raises NotFound."""
        entity, _ = self.get_with_etag(id)
        return entity

    def get_with_etag(self, id: str) -> tuple[E, str]:
        """The charger or vehicle with this id, and its version for `if_match`. Raises NotFound."""
        return self._client._run(self._calls.get_with_etag(id))

    def delete(
        self, id: str, *, events: Literal["erase"] | None = None, if_match: str | None = None
    ) -> bool:
        """Deletes the charger or vehicle with this id; with `events="erase"` also all its events,
        for good. False if they are many: then the server goes on by itself.

        Raises NotFound, also if an earlier try whose answer was lost has deleted it,
        PreconditionFailed, and Conflict if it has events and `events` is not given.
        """
        return self._client._run(self._calls.delete(id, events, if_match))

    def list(self, *, page_size: int = 100) -> Iterator[E]:
        """All of them by id; requests the next page (1 to 1000 entries) when needed."""
        return self._client._list(self._kind, self._path, limit=page_size)

    def state(self, id: str, *, stale_allowed: bool = False) -> S:
        """The live state of the charger or vehicle with this id. Raises NotFound."""
        target = self._path + path(id, "state")
        return self._client._get(self._state, target, stale=stale(stale_allowed))

    def list_with_state(
        self, *, page_size: int = 100, stale_allowed: bool = False
    ) -> Iterator[tuple[E, S]]:
        """All of them by id, each with its live state."""
        pages = StatePages(
            self._kind,
            self._state,
            self._client._policy,
            self._path,
            limit=page_size,
            stale=stale(stale_allowed),
        )
        return self._client._iterate(pages)


class Chargers(_Entities[Charger, ChargerState]):
    """The partner's chargers."""

    def put(self, charger: models.Charger, *, if_match: str | None = None) -> Saved:
        """Creates or replaces a charger; with `if_match` only if it has that version.

        Raises Invalid, PreconditionFailed.
        """
        return self._client._run(self._calls.put(charger, if_match))

    def bulk(self, chargers: Iterable[models.Charger]) -> list[PutResult]:
        """Creates or replaces many chargers, up to 10,000 in a request. Returns the result of each,
        in order. Of two with one id the later one counts.

        Refused chargers do not raise. An error that ends the call early, such as Unavailable, has
        the results so far in `results`.
        """
        return self._client._run(self._bulk.all(chargers))

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
        """Creates or replaces many vehicles, up to 10,000 in a request. Returns the result of each,
        in order. Of two with one id the later one counts.

        Refused vehicles do not raise. An error that ends the call early, such as Unavailable, has
        the results so far in `results`.
        """
        return self._client._run(self._bulk.all(vehicles))

    def patch(
        self, id: str, *, if_match: str | None = None, **changes: Unpack[VehicleChanges]
    ) -> Saved:
        """Changes some members of a vehicle; None removes one.

        Raises NotFound, Invalid, PreconditionFailed.
        """
        return self._client._run(self._calls.patch(id, changes, if_match))


class Events:
    """The partner's events."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._policy = policy = client._policy
        self._calls = EventCalls(policy)
        self._withdrawals = BulkCalls("event id", "/events/withdraw", policy, str, withdraw_result)

    def post(self, event: models.Event) -> str:
        """Reports an event and returns its id. An event without a timestamp happens now.

        Raises Invalid, Conflict. After Unavailable or RateLimited, post the `event` of the error to
        try again: it has its timestamp, so that is safe at any time.
        """
        return self._client._run(self._calls.post(event))

    def bulk(self, events: Iterable[models.Event]) -> list[BulkResult]:
        """Reports many events, up to 10,000 in a request. Returns the result of each, in order.

        Refused events do not raise. An error that ends the call early, such as Unavailable, has the
        results so far in `results`.
        """
        return self._client._run(self._calls.bulk.all(events))

    def get(self, id: str) -> Event:
        """The event with this id. Raises NotFound."""
        return self._client._get(Event, path("events", id))

    def now(self) -> str:
        """The cursor after the last event: from there, `follow` begins with the next event."""
        return self._client._run(self._calls.now())

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
        return Following(self._client, follower, stop or Stop())

    def withdraw(self, id: str) -> None:
        """Withdraws an event, as if it had never been sent. Doing so again does no harm. Raises
        NotFound if you never sent it.
        """
        request = Request("DELETE", path("events", id))
        self._client._run(exchange(request, self._policy, 204))

    def withdraw_many(self, ids: Iterable[str]) -> list[WithdrawResult]:
        """Withdraws many events, up to 10,000 in a request. Returns the result of each, in order.
        An error that ends the call early has the results so far in `results`. Doing all of it again
        does no harm.
        """
        return self._client._run(self._withdrawals.all(ids))

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
        return self._client._list(
            Withdrawal,
            "/events/withdrawn",
            type=type,
            chargerId=charger_id,
            vehicleId=vehicle_id,
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
        return self._client._list(
            Event,
            "/events",
            type=type,
            chargerId=charger_id,
            vehicleId=vehicle_id,
            from_=instant_or_none("from", from_),
            to=instant_or_none("to", to),
            order=order,
            limit=page_size,
        )
