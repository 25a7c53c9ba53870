"""A partner that asks for little is served at once, whatever the others ask for."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from statistics import median
from time import perf_counter

import pytest

from tests.conftest import Server
from tests.fleet import put_fleet
from tests.wire import Wire, event, many_files, request_of, run
from tether.domain.keys import new_key

CROWD = 400  # connections that ask again at once
ASKED = 15
PATIENCE_S = 5.0
TRIES = 5  # other processes may use the machine for a while; in a queue it would wait each time


@pytest.fixture
def crowded(server: Server) -> Iterator[tuple[Server, str]]:
    """A server, and the key of a partner that has a few things."""
    key = server.key()
    furnish(server, key)
    yield server, key
    assert server.failures() == []


def furnish(server: Server, key: str) -> None:
    """Creates a charger, a vehicle and an event."""
    with server.client(key) as client:
        put_fleet(client)
        client.post("/events", content=event(0)).raise_for_status()


async def take(wire: Wire, key: str, number: int) -> list[float]:
    """The times of a round of ordinary requests."""
    took = []
    for request in (
        request_of("GET", "/chargers/C1", key),
        request_of("GET", "/sessions?vehicleId=V1&limit=10", key),
        request_of("GET", "/events?vehicleId=V1&order=desc&limit=10", key),
        request_of("GET", "/vehicles/V1/state", key),
        request_of("POST", "/events", key, event(number)),
    ):
        began = perf_counter()
        answer = await wire.ask(request)
        took.append(perf_counter() - began)
        assert answer.status in (200, 201), answer
    return took


async def serve_beside(
    server: Server, key: str, requests: list[bytes], expected: set[int]
) -> tuple[float, float, float]:
    """The median of the partner alone, and its median and longest time beside the crowd."""
    statuses: Counter[int] = Counter()

    async def ask_on(number: int) -> None:
        wire = await Wire.to(server)
        while not done.is_set():
            statuses[(await wire.ask(requests[number % len(requests)])).status] += 1
            if statuses.total() == CROWD:
                all_there.set()

    done, all_there, wire = asyncio.Event(), asyncio.Event(), await Wire.to(server)
    alone = [seconds for n in range(ASKED) for seconds in await take(wire, key, 1 + n)]
    crowd = [asyncio.create_task(ask_on(number)) for number in range(CROWD)]
    await all_there.wait()
    beside = [seconds for n in range(ASKED) for seconds in await take(wire, key, 100 + n)]
    done.set()
    for task in crowd:
        task.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)
    assert set(statuses) <= expected
    return median(alone), median(beside), max(beside)


@pytest.mark.parametrize("who", ["other partners", "unknown keys", "no key"])
def test_a_partner_hardly_waits_behind_a_crowd(crowded: tuple[Server, str], who: str) -> None:
    server, key = crowded
    if who == "other partners":
        others = [server.key() for _ in range(3)]
        for other in others:
            furnish(server, other)
        paths = ("/chargers/C1", "/sessions?limit=10", "/events?limit=10")
        requests = [request_of("GET", path, other) for other in others for path in paths]
        expected = {200, 429}
    elif who == "unknown keys":
        requests = [request_of("GET", "/chargers", new_key()) for _ in range(20)]
        expected = {403, 503}  # this number of unknown keys is looked up at once
    else:
        requests = [b"GET /chargers HTTP/1.1\r\nhost: tether\r\n\r\n"]
        expected = {403}
    found = []
    with many_files():
        for _ in range(TRIES):
            alone, beside, longest = run(serve_beside(server, key, requests, expected))
            if beside < max(10 * alone, 0.2) and longest < PATIENCE_S:
                return
            found.append((alone, beside, longest))
    raise AssertionError(f"it waits as long as the crowd: {found}")
