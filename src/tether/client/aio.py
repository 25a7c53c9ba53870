"""The async client; chargers, vehicles and webhooks."""

from collections.abc import AsyncIterator, Iterable
from typing import Generic, Literal, TypeVar, Unpack

from tether.client.aio_events import AsyncCapacities, AsyncEvents, AsyncSessions
from tether.client.aio_run import AsyncRunner, AsyncStream
from tether.client.async_http import Http
from tether.client.connection import endpoint, url_without_password
from tether.client.conversion import instant_text, query_of
from tether.client.entities import EntityCalls
from tether.client.exchange import NO_RETRIES, Request, RetryPolicy, exchange, path
from tether.client.models import (
    AuditSelection,
    CalendarUnit,
    Charger,
    ChargerChanges,
    CurveSelection,
    Instant,
    PutResult,
    Saved,
    Vehicle,
    VehicleChanges,
)
from tether.client.pagination import StatePages
from tether.client.streaming import Subscription
from tether.client.webhooks import WebhookChanges, WebhookMembers, webhook_body
from tether.domain import models
from tether.domain.audit import AuditEntry
from tether.domain.models import to_json
from tether.domain.views import ChargerState, EnergyStep, VehicleState
from tether.domain.webhook_views import Webhook, WebhookAttempt, WebhookOutcome

E = TypeVar("E", Charger, Vehicle)
S = TypeVar("S", ChargerState, VehicleState)


class AsyncClient(AsyncRunner):
    """Tether's Partner API. May be used by many tasks; keeps its connections until closed.

    The calls are methods of `chargers`, `vehicles`, `events`, `sessions`, `capacity` and
    `webhooks`, such as `chargers.put`, and of the client itself.

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
        http, policy = Http(self._endpoint), RetryPolicy(retries)
        super().__init__(http, policy)
        self.chargers = AsyncChargers(http, policy, Charger, ChargerState)
        self.vehicles = AsyncVehicles(http, policy, Vehicle, VehicleState)
        self.events = AsyncEvents(http, policy)
        self.sessions = AsyncSessions(http, policy)
        self.capacity = AsyncCapacities(http, policy)
        self.webhooks = AsyncWebhooks(http, policy)

    def __repr__(self) -> str:
        return f"AsyncClient({url_without_password(self._endpoint.url)!r})"

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *error: object) -> None:
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
        return AsyncStream(self._http, subscription)

    def energy(
        self,
        *,
        from_: Instant,
        to: Instant,
        step: int | CalendarUnit,
        page_size: int = 1000,
        stale_allowed: bool = False,
        **selection: Unpack[CurveSelection],
    ) -> AsyncIterator[EnergyStep]:
        """The load curve from `from_` to before `to`, in steps of so many seconds, or of an hour,
        day, week or month of a calendar. With `by` it has the chargers or areas with a vehicle
        plugged in. The steps add up to the energy of the sessions. Raises Invalid.
        """
        return self._list(
            EnergyStep,
            "/energy",
            **selection,
            from_=from_,
            to=to,
            step=step,
            stale_allowed=stale_allowed,
            limit=page_size,
        )

    def audit(
        self,
        *,
        order: Literal["asc", "desc"] = "asc",
        page_size: int = 100,
        **selection: Unpack[AuditSelection],
    ) -> AsyncIterator[AuditEntry]:
        """The audit trail: changes of the partner's keys and settings, withdrawals and sign-ins, in
        the order of time, or with `desc` the newest first. Raises Invalid.
        """
        newest_first = None if order == "asc" else order
        return self._list(AuditEntry, "/audit", **selection, order=newest_first, limit=page_size)


class _AsyncEntities(AsyncRunner, Generic[E, S]):
    def __init__(self, http: Http, policy: RetryPolicy, kind: type[E], state: type[S]) -> None:
        super().__init__(http, policy)
        self._kind: type[E] = kind
        self._state: type[S] = state
        self._calls: EntityCalls[E] = EntityCalls(kind, policy)

    async def get(self, id: str) -> E:
        """The charger or vehicle with this id. Raises NotFound."""
        entity, _ = await self.get_with_etag(id)
        return entity

    async def get_with_etag(self, id: str) -> tuple[E, str]:
        """The charger or vehicle with this id, and its version for `if_match`. Raises NotFound."""
        return await self._run(self._calls.get_with_etag(id))

    async def delete(
        self, id: str, *, events: Literal["erase"] | None = None, if_match: str | None = None
    ) -> bool:
        """Deletes the charger or vehicle with this id; with `events="erase"` also all its events,
        for good. False if they are many: then the server goes on by itself.

        Raises NotFound, also if an earlier try whose answer was lost has deleted it,
        PreconditionFailed, and Conflict if it has events and `events` is not given.
        """
        return await self._run(self._calls.delete(id, events, if_match))

    def list(self, *, page_size: int = 100) -> AsyncIterator[E]:
        """All of them by id; requests the next page (1 to 1000 entries) when needed."""
        return self._list(self._kind, self._calls.path, limit=page_size)

    async def state(self, id: str, *, stale_allowed: bool = False) -> S:
        """The live state of the charger or vehicle with this id. Raises NotFound."""
        target = self._calls.path + path(id, "state")
        return await self._get(self._state, target, stale_allowed=stale_allowed)

    def list_with_state(
        self, *, page_size: int = 100, stale_allowed: bool = False
    ) -> AsyncIterator[tuple[E, S]]:
        """All of them by id, each with its live state."""
        query = query_of({"limit": page_size, "stale_allowed": stale_allowed})
        pages = StatePages(self._kind, self._state, self._policy, self._calls.path, **query)
        return self._iterate(pages)


class AsyncChargers(_AsyncEntities[Charger, ChargerState]):
    """The partner's chargers."""

    async def put(self, charger: models.Charger, *, if_match: str | None = None) -> Saved:
        """Creates or replaces a charger; with `if_match` only if it has that version.

        Raises Invalid, PreconditionFailed.
        """
        return await self._run(self._calls.put(charger, if_match))

    async def bulk(self, chargers: Iterable[models.Charger]) -> list[PutResult]:
        """Creates or replaces many chargers, up to 10,000 in a request. Returns the result of each,
        in order. Of two with one id the later one counts.

        Refused chargers do not raise. An error that ends the call early, such as Unavailable, has
        the results so far in `results`.
        """
        return await self._run(self._calls.bulk.all(chargers))

    async def patch(
        self, id: str, *, if_match: str | None = None, **changes: Unpack[ChargerChanges]
    ) -> Saved:
        """Changes some members of a charger; None removes one.

        Raises NotFound, Invalid, PreconditionFailed.
        """
        return await self._run(self._calls.patch(id, changes, if_match))


class AsyncVehicles(_AsyncEntities[Vehicle, VehicleState]):
    """The partner's vehicles."""

    async def put(self, vehicle: models.Vehicle, *, if_match: str | None = None) -> Saved:
        """Creates or replaces a vehicle; with `if_match` only if it has that version.

        Raises Invalid, PreconditionFailed.
        """
        return await self._run(self._calls.put(vehicle, if_match))

    async def bulk(self, vehicles: Iterable[models.Vehicle]) -> list[PutResult]:
        """Creates or replaces many vehicles, up to 10,000 in a request. Returns the result of each,
        in order. Of two with one id the later one counts.

        Refused vehicles do not raise. An error that ends the call early, such as Unavailable, has
        the results so far in `results`.
        """
        return await self._run(self._calls.bulk.all(vehicles))

    async def patch(
        self, id: str, *, if_match: str | None = None, **changes: Unpack[VehicleChanges]
    ) -> Saved:
        """Changes some members of a vehicle; None removes one.

        Raises NotFound, Invalid, PreconditionFailed.
        """
        return await self._run(self._calls.patch(id, changes, if_match))


class AsyncWebhooks(AsyncRunner):
    """The partner's webhooks."""

    async def create(
        self,
        url: str,
        *,
        signature: Literal["v1", "v1a"] = "v1",
        **members: Unpack[WebhookMembers],
    ) -> Webhook:
        """Creates a webhook: this URL is called with messages from now on, or from `from_` on.

        The result has the `secret`, or the `public_key`, for `verify_webhook`: no other call shows
        it. Raises Invalid, Conflict if there are too many. It is tried once: if the answer is lost,
        look at `list` first.
        """
        body = webhook_body({"url": url, "signature": signature, **members})
        return await self._ask(Webhook, "POST", "/webhooks", body, status=201, policy=NO_RETRIES)

    async def list(self) -> list[Webhook]:
        """All of them, the oldest first."""
        return await self._get(list[Webhook], "/webhooks")

    async def get(self, id: str) -> Webhook:
        """The webhook with this id, and its backlog. Raises NotFound."""
        return await self._get(Webhook, path("webhooks", id))

    async def change(self, id: str, **changes: Unpack[WebhookChanges]) -> Webhook:
        """Changes some members; None sets the default. Raises NotFound, Invalid."""
        body = webhook_body(changes)
        return await self._ask(Webhook, "PATCH", path("webhooks", id), body)

    async def delete(self, id: str) -> None:
        """Deletes it. Raises NotFound."""
        request = Request("DELETE", path("webhooks", id))
        await self._run(exchange(request, self._policy, 204))

    async def test(self, id: str) -> WebhookOutcome:
        """Sends a test message now; its outcome. If it succeeds, a stopped webhook goes on. Raises
        NotFound.
        """
        target = path("webhooks", id, "test")
        return await self._ask(WebhookOutcome, "POST", target, b"{}")

    def attempts(
        self, id: str, *, failed: bool = False, page_size: int = 100
    ) -> AsyncIterator[WebhookAttempt]:
        """The last requests, or only those that `failed`, the newest first. Raises NotFound."""
        target, only = path("webhooks", id, "attempts"), "true" if failed else None
        return self._list(WebhookAttempt, target, limit=page_size, failed=only)

    async def replay(
        self,
        id: str,
        *,
        message_id: str | None = None,
        failed_since: Instant | None = None,
        from_: str | None = None,
    ) -> Webhook:
        """Sends one message again, or all that finally failed since an instant, or all from `from_`
        on: start, or a cursor of events or of the stream. Raises NotFound, Invalid.
        """
        since = None if failed_since is None else instant_text("failed_since", failed_since)
        wanted = {"messageId": message_id, "failedSince": since, "from": from_}
        body = to_json({name: value for name, value in wanted.items() if value is not None})
        target = path("webhooks", id, "replay")
        return await self._ask(Webhook, "POST", target, body, status=202)

    async def rotate_secret(self, id: str, *, overlap: float | None = None) -> Webhook:
        """Makes a new secret, which the result has. The old one also signs for `overlap` seconds,
        by default a day. Raises NotFound, Invalid.
        """
        body = to_json({} if overlap is None else {"overlap": overlap})
        target = path("webhooks", id, "rotate-secret")
        return await self._ask(Webhook, "POST", target, body, policy=NO_RETRIES)
