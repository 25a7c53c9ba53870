"""Each event arrives once and in order, although the network cuts, delays and doubles requests."""

import asyncio
from pathlib import Path

import pytest

from tests.client.devices import check_once_and_in_order, create_fleet, update, updates
from tests.client.proxy import Proxy
from tests.conftest import Server
from tether.client import AsyncClient, Client, Outbox

COUNT = 10_000
SINGLE = 2_000  # each event is a request of a Client
RETRIES = 30  # the proxy is worse than a real network
KINDS = {
    "well",
    "cut before",
    "cut after",
    "cut amid",
    "429",
    "503",
    "answer lost",
    "delay",
    "duplicate",
}


def test_single_posts_of_many_tasks(server: Server, key: str) -> None:
    async def post_all(url: str, fleet: list[str]) -> None:
        async with AsyncClient(url, key, retries=RETRIES, timeout=10) as sdk:

            async def post(place: int) -> None:
                for number in range(place, SINGLE, len(fleet)):
                    await sdk.events.post(update(number, fleet[place]))

            await asyncio.gather(*map(post, range(len(fleet))))

    with Client(server.url, key) as direct, Proxy(server.url, 0.3, seed=1) as proxy:
        fleet = create_fleet(direct, 50)
        asyncio.run(post_all(proxy.url, fleet))
        proxy.settle()
        assert proxy.suffered.keys() == KINDS
        check_once_and_in_order(direct, SINGLE, fleet)


def test_single_posts_of_the_blocking_client(server: Server, key: str) -> None:
    with Client(server.url, key) as direct, Proxy(server.url, 0.2, seed=2) as proxy:
        fleet = create_fleet(direct, 3)
        with Client(proxy.url, key, retries=RETRIES, timeout=10) as sdk:
            for event in updates(120, fleet):
                sdk.events.post(event)
        proxy.settle()
        check_once_and_in_order(direct, 120, fleet)


def test_ten_thousand_in_bulk(server: Server, key: str) -> None:
    with Client(server.url, key) as direct, Proxy(server.url, 0.6, seed=3) as proxy:
        fleet = create_fleet(direct, 7)
        events = list(updates(COUNT, fleet))
        with Client(proxy.url, key, retries=RETRIES, timeout=10) as sdk:
            for start in range(0, COUNT, 400):
                results = sdk.events.bulk(events[start : start + 400])
                assert all(result.ok for result in results)
        proxy.settle()
        assert len(proxy.suffered) > 5
        check_once_and_in_order(direct, COUNT, fleet)


def test_ten_thousand_through_the_outbox(
    server: Server, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tether.client.outbox.MAX_BATCH", 400)  # so that it takes many requests
    with Client(server.url, key) as direct, Proxy(server.url, 0.5, seed=4) as proxy:
        fleet = create_fleet(direct, 7)
        path = tmp_path / "outbox.db"
        with Client(proxy.url, key, timeout=10) as sdk, Outbox(path, sdk) as outbox:
            # The test is about the network: ten thousand waits for the disk would only take time.
            outbox._file._db.execute("PRAGMA synchronous = OFF")
            for event in updates(COUNT, fleet):
                outbox.put(event)
            while outbox.depth:
                outbox.flush(1)
            assert outbox.refused == []
        proxy.settle()
        assert len(proxy.suffered) > 5
        check_once_and_in_order(direct, COUNT, fleet)
