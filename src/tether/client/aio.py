"""The awaiting client: the same surface as the blocking one, for asyncio."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Generic, Literal, TypeVar, Unpack

from tether import model
from tether.client.aio_stream import AsyncStream
from tether.client.capacity import CapacityCalls, Selection
from tether.client.connection import shown_url, target
from tether.client.entities import EntityCalls, Pages
from tether.client.events import BulkResult, EventCalls
from tether.client.exchange import Answer, Lost, Patience, Request, Script
from tether.client.following import EventFollower, Follower
from tether.client.gathering import Gathering, Send
from tether.client.models import (
    Charger,
    ChargerChanges,
    Event,
    Instant,
    Saved,
    Vehicle,
    VehicleChanges,
)
from tether.client.sessions import SessionCalls
from tether.client.stamps import Stamps
from tether.client.streaming import Subscription
from tether.derived import Capacity, ChargerState, Session, VehicleState

T = TypeVar("T")
E = TypeVar("E", Charger, Vehicle)
S = TypeVar("S", ChargerState, VehicleState)
M = TypeVar("M")
F = TypeVar("F", Event, Session)


class AsyncClient:
    """Tether's Partner API for asyncio. Everything as in `Client`, with `await`."""

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
        from tether.client.awaiting_http import AwaitingHttp  # loading aiohttp takes a while

        self._target = target(url, api_key, timeout)
        self._http = AwaitingHttp(self._target)
        self._patience = patience = Patience(retries)
        self.chargers = AsyncChargers(self, EntityCalls(Charger, ChargerState, patience))
        self.vehicles = AsyncVehicles(self, EntityCalls(Vehicle, VehicleState, patience))
        self.events = AsyncEvents(self, patience, Gathering(self._http.send))
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
        """See `Client.stream`."""
        filters = {"type": type, "chargerId": charger_id, "vehicleId": vehicle_id}
        wanted = Subscription(cursor, self._patience, start_again=start_again, **filters)
        return AsyncStream(self._http, wanted)

    async def run(self, script: Script[T], send: Send | None = None) -> T:
        """Does what a script of the SDK says. Not for users."""
        self._http.check_loop()  # before it waits for what another loop has to do
        send = send or self._http.send
        outcome: Answer | Lost | None = None
        while True:
            try:
                step = script.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(step, Request):
                outcome = await send(step)
            else:
                outcome = None
                await asyncio.sleep(step.seconds)

    async def iterate(self, pages: Pages[M]) -> AsyncIterator[M]:
        """The entries of all pages. Not for users."""
        while pages.more:
            for entry in await self.run(pages.next()):
                yield entry


class _AsyncEntities(Generic[E, S]):
    def __init__(self, client: AsyncClient, calls: EntityCalls[E, S]) -> None:
        self._client = client
        self._calls: EntityCalls[E, S] = calls

    async def get(self, id: str) -> E:
        """The one of this id. Raises NotFound."""
        return await self._client.run(self._calls.get(id))

    async def get_with_etag(self, id: str) -> tuple[E, str]:
        """The one of this id and its version, for `if_match`. Raises NotFound."""
        return await self._client.run(self._calls.get_with_etag(id))

    def list(self, *, page_size: int = 100) -> AsyncIterator[E]:
        """All of them in order of id; asks for the next page (1 to 1000 entries) when needed."""
        return self._client.iterate(self._calls.pages(page_size))

    async def state(self, id: str, *, stale_allowed: bool = False) -> S:
        """What is known now of the one of this id. Raises NotFound."""
        return await self._client.run(self._calls.state(id, stale_allowed))

    def list_with_state(
        self, *, page_size: int = 100, stale_allowed: bool = False
    ) -> AsyncIterator[tuple[E, S]]:
        """All of them in order of id, each with what is known of it now."""
        return self._client.iterate(self._calls.state_pages(page_size, stale_allowed))


class AsyncChargers(_AsyncEntities[Charger, ChargerState]):
    """The partner's chargers."""

    async def put(self, charger: model.Charger, *, if_match: str | None = None) -> Saved:
        """See `Chargers.put`."""
        return await self._client.run(self._calls.put(charger, if_match))

    async def patch(
        self, id: str, *, if_match: str | None = None, **changes: Unpack[ChargerChanges]
    ) -> Saved:
        """See `Chargers.patch`."""
        return await self._client.run(self._calls.patch(id, changes, if_match))


class AsyncVehicles(_AsyncEntities[Vehicle, VehicleState]):
    """The partner's vehicles."""

    async def put(self, vehicle: model.Vehicle, *, if_match: str | None = None) -> Saved:
        """See `Vehicles.put`."""
        return await self._client.run(self._calls.put(vehicle, if_match))

    async def patch(
        self, id: str, *, if_match: str | None = None, **changes: Unpack[VehicleChanges]
    ) -> Saved:
        """See `Vehicles.patch`."""
        return await self._client.run(self._calls.patch(id, changes, if_match))


class AsyncEvents:
    """The partner's events."""

    def __init__(self, client: AsyncClient, patience: Patience, gathering: Gathering) -> None:
        self._client = client
        self._patience = patience
        self._calls = EventCalls(patience, Stamps())
        self._gathering = gathering

    async def post(self, event: model.Event) -> str:
        """See `Events.post`. What many tasks report at once shares requests."""
        return await self._client.run(self._calls.post(event), self._gathering.send)

    async def bulk(self, events: Iterable[model.Event]) -> list[BulkResult]:
        """See `Events.bulk`."""
        return await self._client.run(self._calls.bulk(events))

    async def get(self, id: str) -> Event:
        """The event of this id. Raises NotFound."""
        return await self._client.run(self._calls.get(id))

    async def now(self) -> str:
        """See `Events.now`."""
        return await self._client.run(self._calls.now())

    def follow(
        self,
        cursor: str | None = None,
        *,
        poll_s: float = 1.0,
        stop: asyncio.Event | None = None,
        start_again: bool = False,
    ) -> "AsyncFollowing[Event]":
        """See `Events.follow`."""
        follower = EventFollower(cursor, poll_s, self._patience, start_again=start_again)
        return AsyncFollowing(self._client, follower, stop or asyncio.Event())

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
        """See `Events.list`."""
        return self._client.iterate(
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
        self._calls = SessionCalls(patience)

    async def get(self, id: str, *, stale_allowed: bool = False) -> Session:
        """See `Sessions.get`."""
        return await self._client.run(self._calls.get(id, stale_allowed))

    def list(
        self,
        *,
        charger_id: str | None = None,
        vehicle_id: str | None = None,
        from_: Instant | None = None,
        to: Instant | None = None,
        status: Literal["active", "ended"] | None = None,
        updated_from: Instant | None = None,
        page_size: int = 100,
        stale_allowed: bool = False,
    ) -> AsyncIterator[Session]:
        """See `Sessions.list`."""
        return self._client.iterate(
            self._calls.pages(
                charger_id=charger_id,
                vehicle_id=vehicle_id,
                from_=from_,
                to=to,
                status=status,
                updated_from=updated_from,
                page_size=page_size,
                stale_allowed=stale_allowed,
            )
        )

    def changes(
        self,
        cursor: str | None = None,
        *,
        updated_from: Instant | None = None,
        poll_s: float = 1.0,
        stop: asyncio.Event | None = None,
        start_again: bool = False,
    ) -> "AsyncFollowing[Session]":
        """See `Sessions.changes`."""
        follower = self._calls.changes(cursor, updated_from, poll_s, start_again=start_again)
        return AsyncFollowing(self._client, follower, stop or asyncio.Event())


class AsyncCapacities:
    """How much power and energy the partner's plugged-in vehicles could move."""

    def __init__(self, client: AsyncClient, calls: CapacityCalls) -> None:
        self._client = client
        self._calls = calls

    async def get(self, *, at: Instant | None = None, **selection: Unpack[Selection]) -> Capacity:
        """See `Capacities.get`."""
        return await self._client.run(self._calls.get(at, selection))

    def by_charger(
        self,
        *,
        at: Instant | None = None,
        page_size: int = 100,
        **selection: Unpack[Selection],
    ) -> AsyncIterator[Capacity]:
        """See `Capacities.by_charger`."""
        return self._client.iterate(self._calls.pages(at, page_size, selection))

    async def series(
        self,
        *,
        from_: Instant,
        to: Instant | None = None,
        step: int,
        **selection: Unpack[Selection],
    ) -> list[Capacity]:
        """See `Capacities.series`."""
        return await self._client.run(self._calls.series(from_, to, step, selection))


class AsyncFollowing(AsyncIterator[F], Generic[F]):
    """An endless iterator. Its `cursor` is the place after the last entry that it gave."""

    def __init__(self, client: AsyncClient, follower: Follower[F], stop: asyncio.Event) -> None:
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
            if seconds := await self._client.run(self._follower.fetch()):
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), seconds)
        raise StopAsyncIteration
