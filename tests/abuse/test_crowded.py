"""A charger with thousands of vehicles, and sessions with a thousand periods, do no harm."""

import asyncio
import json
from collections.abc import Iterator
from time import perf_counter, sleep
from typing import Any, NamedTuple

import httpx
import pytest

from tests.conftest import Server
from tests.derivation.helpers import put_vehicles
from tests.wire import Wire, many_files, memory_mb, request_of, run

VEHICLES = 4_000
HEALTH = b"GET /health HTTP/1.1\r\nhost: tether\r\n\r\n"
PATHS = [
    "/chargers/C1/state",
    "/chargers?include=state",
    "/vehicles?include=state&limit=1000",
    "/sessions?limit=1000",
    "/sessions?vehicleId=V1",
    "/capacity",
    "/capacity?by=charger",
    "/capacity?from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z&step=3600",
    "/stream?cursor=start&chargerId=C1",
]


class Site(NamedTuple):
    """A server, and the key of a partner with one very crowded charger."""

    server: Server
    key: str


def report(client: httpx.Client, events: list[dict[str, Any]]) -> None:
    for start in range(0, len(events), 5000):
        body = "\n".join(json.dumps(event) for event in events[start : start + 5000])
        client.post("/events/bulk", content=body).raise_for_status()


def event(kind: str, vehicle: int, second: int, **members: Any) -> dict[str, Any]:
    instant = f"2026-01-01T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}Z"
    return {
        "type": f"VEHICLE_{kind}", "chargerId": "C1", "vehicleId": f"V{vehicle}",
        "timestamp": instant, **members,
    }  # fmt: skip


@pytest.fixture(scope="module")
def site(own_database: str) -> Iterator[Site]:
    server = Server(own_database, ["--log-level", "warning"]).start()
    key = server.key()
    with server.client(key) as client:
        names = [f"V{number}" for number in range(VEHICLES)]
        put_vehicles(client, names, {"chargePowers": [11], "chargeCapacity": 70})
        client.put("/chargers/C1", content=b'{"chargePowers":[11]}').raise_for_status()
        report(client, [event("CONNECTED", number, number) for number in range(VEHICLES)])
        # Three of them charge a thousand times.
        for vehicle in (1, 2, 3):
            report(
                client,
                [
                    event(
                        f"CHARGE_{'STOPPED' if turn % 2 else 'STARTED'}", vehicle,
                        5000 + 20 * turn, stateOfCharge=50,
                    )
                    for turn in range(2000)
                ],
            )  # fmt: skip
        while client.get("/sessions?limit=1", timeout=60).status_code != 200:
            sleep(0.1)
    yield Site(server, key)
    server.kill()
    assert server.failures() == []


def test_the_state_of_a_charger_has_the_last_vehicles_and_says_that_there_are_more(
    site: Site,
) -> None:
    with site.server.client(site.key) as client:
        answer = client.get("/chargers/C1/state")
        state = answer.json()
        assert len(answer.content) < 100_000
        assert state["moreVehicles"] is True
        assert state["occupied"] is True
        ids = [vehicle["vehicleId"] for vehicle in state["vehicles"]]
        assert ids == [f"V{number}" for number in range(VEHICLES - 100, VEHICLES)]
        (listed,) = client.get("/chargers?include=state").json()
        assert [one["vehicleId"] for one in listed["state"]["vehicles"]] == ids
        # The others are in the lists.
        address, count = "/sessions?chargerId=C1&status=active&limit=1000", 0
        while address:
            page = client.get(address)
            count += len(page.json())
            address = page.links.get("next", {}).get("url", "")
        assert count == VEHICLES
        capacity = client.get("/capacity?chargerId=C1").json()
        assert capacity["vehiclesPluggedIn"] == VEHICLES


def test_a_charger_with_some_vehicles_has_all_of_them(site: Site) -> None:
    with site.server.client() as client:
        client.put("/chargers/C1", content=b'{"chargePowers":[11]}')
        for number in range(12):
            body = b'{"chargeCapacity":70,"chargePowers":[11]}'
            client.put(f"/vehicles/V{number}", content=body)
        for count in range(1, 13):
            report(client, [event("CONNECTED", count - 1, count)])
            state = client.get("/chargers/C1/state").json()
            assert [one["vehicleId"] for one in state["vehicles"]] == [
                f"V{number}" for number in range(count)
            ]
            assert "moreVehicles" not in state


@pytest.mark.parametrize("path", PATHS)
def test_the_event_loop_is_not_busy_for_long(site: Site, path: str) -> None:
    before = memory_mb(site.server)

    async def scenario() -> None:
        crowd = await asyncio.gather(*(Wire.to(site.server) for _ in range(20)))
        good = await Wire.to(site.server)
        for wire in crowd:
            wire.send(request_of("GET", path, site.key) * 3)
        took = []
        for _ in range(60):
            began = perf_counter()
            assert (await good.ask(HEALTH)).status == 200
            took.append(perf_counter() - began)
            await asyncio.sleep(0.01)
        assert sorted(took)[len(took) // 2] < 0.3
        assert max(took) < 2
        assert memory_mb(site.server) < max(before, 80) + 120
        for wire in crowd:
            wire.writer.transport.abort()

    with many_files():
        run(scenario())


def patiently(client: httpx.Client, address: str) -> httpx.Response:
    """The answer, as soon as the server has finished the requests of clients that disconnected."""
    while (answer := client.get(address)).status_code == 429:
        sleep(0.2)
    return answer.raise_for_status()


def test_pages_of_large_sessions_are_short_and_whole(site: Site) -> None:
    with site.server.client(site.key) as client:
        address, found, largest = "/sessions?limit=1000", [], 0
        while address:
            page = patiently(client, address)
            largest = max(largest, len(page.content))
            found += [(one["vehicleId"], len(one["periods"])) for one in page.json()]
            address = page.links.get("next", {}).get("url", "")
        assert [vehicle for vehicle, _ in found] == [f"V{number}" for number in range(VEHICLES)]
        assert [periods for _, periods in found[:5]] == [0, 1000, 1000, 1000, 0]
        assert largest < 4_000_000
