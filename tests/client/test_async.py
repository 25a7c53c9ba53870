"""The async client has the same methods and the same logic."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from decimal import Decimal
from socket import create_server, socket

import pytest

from tests.client.calls import KEY
from tests.client.devices import create_fleet, numbers, update
from tests.conftest import Server
from tether.client import (
    AsyncClient,
    Charger,
    Client,
    Event,
    Invalid,
    NotFound,
    PreconditionFailed,
    Saved,
    Vehicle,
    async_http,
)


def test_everything_on_both_databases(server: Server, key: str) -> None:
    async def use() -> None:
        async with AsyncClient(server.url, key) as sdk:
            saved = await sdk.chargers.put(Charger(id="C1", charge_powers=[11, 22.0]))
            assert saved == Saved(created=True, etag=(await sdk.chargers.get_with_etag("C1"))[1])
            await sdk.vehicles.put(Vehicle(id="V1", charge_capacity=50, charge_powers=[11]))
            await sdk.vehicles.patch("V1", charge_capacity="74.80")
            assert str((await sdk.vehicles.get("V1")).charge_capacity) == "74.80"
            await sdk.chargers.patch("C1", if_match=saved.etag, latitude=1, longitude=2)
            with pytest.raises(PreconditionFailed):
                await sdk.chargers.patch("C1", if_match=saved.etag, latitude=3)
            charger, etag = await sdk.chargers.get_with_etag("C1")
            assert (charger.latitude, etag != saved.etag) == (Decimal(1), True)
            with pytest.raises(NotFound):
                await sdk.vehicles.get("V2")
            with pytest.raises(Invalid):
                await sdk.events.post(Event(type="ARRIVED", charger_id="C1", vehicle_id="V1"))
            first = await sdk.events.post(update(0))
            results = await sdk.events.bulk(update(number) for number in range(1, 50))
            ids = [first, *(result.id for result in results)]
            assert [event.id async for event in sdk.events.list(page_size=20)] == ids
            assert [charger.id async for charger in sdk.chargers.list()] == ["C1"]
            assert (await sdk.events.get(first)).id == first
            place = await sdk.events.now()
            last = await sdk.events.post(update(50))
            assert (await anext(sdk.events.follow(place))).id == last

    asyncio.run(use())


def test_many_tasks_share_one_client(server: Server, key: str) -> None:
    async def use(fleet: list[str]) -> None:
        async with AsyncClient(server.url, key) as sdk:

            async def report(vehicle: str) -> None:
                for number in range(20):
                    await sdk.events.post(update(number, vehicle))

            await asyncio.gather(*map(report, fleet))

    with Client(server.url, key) as client:
        fleet = create_fleet(client, 64)
        asyncio.run(use(fleet))
        found = numbers(client.events.list(page_size=1000))
    assert found == {vehicle: list(range(20)) for vehicle in fleet}


def test_follow_continues_after_the_stored_cursor_and_stops(server: Server, key: str) -> None:
    async def use() -> bool:
        found: list[str | None] = []
        async with AsyncClient(server.url, key) as sdk:
            ids = [await sdk.events.post(update(number)) for number in range(5)]
            feed = sdk.events.follow(poll_s=0.05)
            async for event in feed:
                found.append(event.id)
                if len(found) == 3:
                    break
            stop = asyncio.Event()
            feed = sdk.events.follow(feed.cursor, poll_s=0.05, stop=stop)
            late = asyncio.create_task(sdk.events.post(update(9)))
            async for event in feed:
                found.append(event.id)
                if len(found) == 6:
                    stop.set()
            return found == [*ids, await late]

    with Client(server.url, key) as client:
        create_fleet(client, 1)
    assert asyncio.run(asyncio.wait_for(use(), 20))


def test_a_closed_client_says_so(server: Server, key: str) -> None:
    async def use() -> None:
        async with AsyncClient(server.url, key) as sdk:
            assert [one async for one in sdk.chargers.list()] == []
        with pytest.raises(RuntimeError, match=r"The client is closed\."):
            await sdk.chargers.get("C1")

    asyncio.run(use())


def test_a_server_that_talks_between_requests_loses_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else what it sends stays in memory, and is taken for the answer to the next request."""
    monkeypatch.setattr(async_http, "IDLE_S", 600)
    answer = b'HTTP/1.1 404 X\r\nContent-Length: 23\r\n\r\n{"message":"Not Found"}'

    async def use(listener: socket) -> None:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with AsyncClient(url, KEY, retries=0) as sdk:
            for _ in range(2):
                get = asyncio.create_task(sdk.chargers.get("C1"))
                connection, _ = await asyncio.to_thread(listener.accept)
                with connection:
                    connection.settimeout(20)
                    await asyncio.to_thread(connection.recv, 65536)
                    connection.sendall(answer)
                    with pytest.raises(NotFound):
                        await get
                    connection.sendall(answer)
                    assert await asyncio.to_thread(connection.recv, 65536) == b""

    with create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        asyncio.run(use(listener))


@pytest.mark.parametrize("resource", ["chargers", "vehicles", "events", "sessions"])
def test_both_clients_have_the_same_surface(resource: str) -> None:
    async def make() -> AsyncClient:
        return AsyncClient("http://a", "key")

    blocking = getattr(Client("http://a", "key"), resource)
    awaiting = getattr(asyncio.run(make()), resource)
    assert _surface(blocking) == _surface(awaiting)
    assert _signature(Client.__init__) == _signature(AsyncClient.__init__)


def _surface(resource: object) -> dict[str, list[str]]:
    names = [name for name in dir(resource) if not name.startswith("_")]
    return {name: _signature(getattr(resource, name)) for name in names}


def _signature(method: Callable[..., object | Awaitable[object]]) -> list[str]:
    parameters = inspect.signature(method).parameters.values()
    return [f"{p.kind.name} {p.name} {p.default!r}" for p in parameters]
