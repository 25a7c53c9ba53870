"""The awaiting client: the same surface as the blocking one, for asyncio."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Generic, Literal, TypeVar, Unpack

from tether import model
from tether.client.connection import shown_url, target
from tether.client.entities import EntityCalls, Pages
from tether.client.events import BulkResult, EventCalls
from tether.client.exchange import Answer, Lost, Patience, Request, Script
from tether.client.following import Follower
from tether.client.models import (
    Charger,
    ChargerChanges,
    Event,
    Instant,
    Saved,
    Vehicle,
    VehicleChanges,
)
from tether.client.stamps import Stamps

T = TypeVar("T")
E = TypeVar("E", Charger, Vehicle)
M = TypeVar("M", Charger, Vehicle, Event)


class AsyncClient:
    """Tether's Partner API for asyncio. Everything as in `Client`, with `await`."""

    chargers: "AsyncChargers"
    vehicles: "AsyncVehicles"
    events: "AsyncEvents"

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
        patience = Patience(retries)
        self.chargers = AsyncChargers(self, EntityCalls(Charger, patience))
        self.vehicles = AsyncVehicles(self, EntityCalls(Vehicle, patience))
        self.events = AsyncEvents(self, patience)

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

    async def run(self, script: Script[T]) -> T:
        """Does what a script of the SDK says. Not for users."""
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
                await asyncio.sleep(step.seconds)

    async def iterate(self, pages: Pages[M]) -> AsyncIterator[M]:
        """The entries of all pages. Not for users."""
        while pages.more:
            for entry in await self.run(pages.next()):
                yield entry


class _AsyncEntities(Generic[E]):
    def __init__(self, client: AsyncClient, calls: EntityCalls[E]) -> None:
        self._client = client
        self._calls: EntityCalls[E] = calls

    async def get(self, id: str) -> E:
        """The one of this id. Raises NotFound."""
        return await self._client.run(self._calls.get(id))

    async def get_with_etag(self, id: str) -> tuple[E, str]:
        """The one of this id and its version, for `if_match`. Raises NotFound."""
        return await self._client.run(self._calls.get_with_etag(id))

    def list(self, *, page_size: int = 100) -> AsyncIterator[E]:
        """All of them in order of id; asks for the next page (1 to 1000 entries) when needed."""
        return self._client.iterate(self._calls.pages(page_size))


class AsyncChargers(_AsyncEntities[Charger]):
    """The partner's chargers."""

    async def put(self, charger: model.Charger, *, if_match: str | None = None) -> Saved:
        """See `Chargers.put`."""
        return await self._client.run(self._calls.put(charger, if_match))

    async def patch(
        self, id: str, *, if_match: str | None = None, **changes: Unpack[ChargerChanges]
    ) -> Saved:
        """See `Chargers.patch`."""
        return await self._client.run(self._calls.patch(id, changes, if_match))


class AsyncVehicles(_AsyncEntities[Vehicle]):
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

    def __init__(self, client: AsyncClient, patience: Patience) -> None:
        self._client = client
        self._patience = patience
        self._calls = EventCalls(patience, Stamps())

    async def post(self, event: model.Event) -> str:
        """See `Events.post`."""
        return await self._client.run(self._calls.post(event))

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
    ) -> "AsyncFollowing":
        """See `Events.follow`."""
        follower = Follower(cursor, poll_s, self._patience)
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


class AsyncFollowing(AsyncIterator[Event]):
    """An endless iterator of events. Its `cursor` is the place after the last one it gave."""

    def __init__(self, client: AsyncClient, follower: Follower, stop: asyncio.Event) -> None:
        self._client = client
        self._follower = follower
        self._stop = stop

    @property
    def cursor(self) -> str:
        """The place after the last event, for `follow`."""
        return self._follower.cursor

    async def __anext__(self) -> Event:
        while not self._stop.is_set():
            event = self._follower.take()
            if event is not None:
                return event
            if seconds := await self._client.run(self._follower.fetch()):
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), seconds)
        raise StopAsyncIteration
