"""A partner that asks for much at once does not delay others: partners take turns."""

import asyncio
import json
from collections.abc import Callable, Iterator
from time import perf_counter, sleep
from typing import NamedTuple

import pytest

from tests.conftest import Server
from tests.wire import Answer, Wire, many_files, metric, request_of, run

EVENTS = 10_000
SCANS = [
    "/events?type=VEHICLE_CHARGE_UPDATED&limit=1",
    "/events?from=2020-01-01T00:00:00Z&type=VEHICLE_CHARGE_UPDATED&order=desc",
    "/events?limit=1000",
    "/sessions?limit=1000",
    "/sessions?updatedFrom=2020-01-01T00:00:00Z&vehicleId=V999",
    "/vehicles?include=state&limit=1000",
    "/capacity?from=2026-01-01T00:00:00Z&to=2026-01-01T10:00:00Z&step=60",
]
READS = ["/chargers/C1", "/events?limit=10", "/sessions?limit=10", "/vehicles/V1/state"]


class Site(NamedTuple):
    """A server on which one partner has much, another little."""

    server: Server
    busy: str
    quiet: str


def fill(server: Server, key: str, count: int) -> None:
    """Sessions of a hundred vehicles, one event of some vehicle each second."""
    with server.client(key) as client:
        for number in range(100):
            client.put(f"/chargers/C{number}", content=b'{"chargePowers":[11]}')
            client.put(f"/vehicles/V{number}", content=b'{"chargeCapacity":70,"chargePowers":[11]}')
        for start in range(0, count, 10_000):
            lines = [
                json.dumps(
                    {
                        "type": "VEHICLE_DISCONNECTED" if n // 100 % 2 else "VEHICLE_CONNECTED",
                        "chargerId": f"C{n % 100}",
                        "vehicleId": f"V{n % 100}",
                        "timestamp": f"2026-01-01T{n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}Z",
                    }
                )
                for n in range(start, min(count, start + 10_000))
            ]
            statuses = {503}
            while 503 in statuses:  # a busy machine may ask for patience
                answer = client.post("/events/bulk", content="\n".join(lines), timeout=120)
                statuses = {503}
                if answer.status_code != 503:
                    statuses = {item["status"] for item in answer.raise_for_status().json()}
            assert statuses == {201}
        while client.get("/sessions?limit=1").status_code != 200:
            sleep(0.05)


@pytest.fixture(scope="module")
def site(own_database: str) -> Iterator[Site]:
    server = Server(own_database, ["--log-level", "warning"]).start()
    busy, quiet = server.key(), server.key()
    fill(server, busy, EVENTS)
    fill(server, quiet, 500)
    yield Site(server, busy, quiet)
    server.kill()
    assert server.failures() == []


@pytest.mark.parametrize("path", SCANS)
def test_another_partner_is_served_meanwhile(site: Site, path: str) -> None:
    asked: list[int] = []

    async def ask_on(done: asyncio.Event) -> None:
        wire = await Wire.to(site.server)
        while not done.is_set():
            asked.append((await wire.ask(request_of("GET", path, site.busy))).status)

    async def scenario() -> None:
        done = asyncio.Event()
        busy = [asyncio.create_task(ask_on(done)) for _ in range(60)]
        await asyncio.sleep(0.3)
        wire = await Wire.to(site.server)
        took = []
        for _ in range(5):
            for read in READS:
                began = perf_counter()
                assert (await wire.ask(request_of("GET", read, site.quiet))).status == 200
                took.append(perf_counter() - began)
        done.set()
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
        assert sorted(took)[len(took) // 2] < 1
        assert max(took) < 5

    with many_files():
        run(scenario())
    assert set(asked) <= {200, 429}  # it is still busy with earlier requests


def test_too_many_at_once_are_refused_and_only_to_who_asks_for_them(site: Site) -> None:
    path = "/events?type=VEHICLE_CHARGE_UPDATED&limit=1"

    async def scenario(number: int) -> list[Answer]:
        wires = await asyncio.gather(*(Wire.to(site.server) for _ in range(number)))
        answers = asyncio.gather(*(wire.ask(request_of("GET", path, site.busy)) for wire in wires))
        wire = await Wire.to(site.server)
        for read in READS * 3:
            assert (await wire.ask(request_of("GET", read, site.quiet))).status == 200
        found = await answers
        refused = [answer for answer in found if answer.status == 429]
        assert {answer.status for answer in found} <= {200, 429}
        assert all(answer.headers["retry-after"] == "1" for answer in refused)
        page = (await wire.ask(b"GET /metrics HTTP/1.1\r\nhost: tether\r\n\r\n")).body.decode()
        assert metric(page, "tether_refused_total", reason="reads") >= len(refused)
        return refused

    with many_files():
        # On a busy machine the first ones may be answered before the last ones are sent.
        assert any(run(scenario(number)) for number in (300, 600, 1200, 1500))


def test_reads_whose_clients_hung_up_end_before_their_next_portion(site: Site) -> None:
    """Otherwise the server would read everything for nobody before the next request."""
    path = SCANS[-1]  # one at a time, each of which takes a while

    async def abandoned() -> float:
        wire = await Wire.to(site.server)
        page = (await wire.ask(b"GET /metrics HTTP/1.1\r\nhost: tether\r\n\r\n")).body.decode()
        line = 'tether_request_seconds_count{method="GET",route="/capacity",status="499"}'
        return sum(float(one.split()[-1]) for one in page.splitlines() if one.startswith(line))

    async def scenario() -> None:
        before = await abandoned()
        wires = await asyncio.gather(*(Wire.to(site.server) for _ in range(150)))
        for wire in wires:
            wire.send(request_of("GET", path, site.busy))
        first = await Wire.to(site.server)
        await first.ask(request_of("GET", "/chargers/C1", site.quiet))  # they have arrived
        for wire in wires:
            wire.reset()
        for _ in range(300):
            if await abandoned() >= before + 20:  # most had to wait for their turn
                return
            await asyncio.sleep(0.2)
        raise AssertionError("They were worked off.")

    with many_files():
        run(scenario())


def test_streams_from_the_start_delay_nobody(site: Site) -> None:
    path = "/stream?cursor=start&type=VEHICLE_CHARGE_UPDATED"

    async def scenario() -> None:
        wires = await asyncio.gather(*(Wire.to(site.server) for _ in range(40)))
        for wire in wires:
            wire.send(request_of("GET", path, site.busy))
        good = await Wire.to(site.server)
        for read in READS * 10:
            began = perf_counter()
            assert (await good.ask(request_of("GET", read, site.quiet))).status == 200
            assert perf_counter() - began < 5
        for wire in wires:
            wire.writer.transport.abort()

    with many_files():
        run(scenario())


def test_a_short_page_says_that_more_follows(server_with_constants: Callable[..., Server]) -> None:
    server = server_with_constants(
        "tether.storage.events.READ_AT_ONCE=500", "tether.storage.events.PORTIONS=2"
    )
    key = server.key()
    fill(server, key, 3000)
    with server.client(key) as client:
        event = {"type": "VEHICLE_CHARGE_UPDATED", "chargerId": "C1", "vehicleId": "V1"}
        client.post("/events", json={**event, "stateOfCharge": 50}).raise_for_status()
        address, pages, found = "/events?type=VEHICLE_CHARGE_UPDATED", 0, []
        while address:
            answer = client.get(address)
            found += answer.json()
            pages += 1
            partial = not answer.json() and "next" in answer.links
            assert partial == answer.headers.get("link", "").endswith('; partial="true"')
            address = answer.links.get("next", {}).get("url", "")
        assert len(found) == 1
        assert pages > 3
