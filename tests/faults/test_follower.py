"""The order of events is the order of commits, and following them costs no memory."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.conftest import Server
from tests.wire import Partner, Wire, event, memory_mb, post_events, run

WRITERS = 8
CONNECTIONS = 4  # for each writer, which posts events of one vehicle on each
EACH = 3_124
STORED, ALONE, IN_BULK = 100_000, 10_000, 5_000


@pytest.fixture(scope="module")
def partner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Partner]:
    server = Server(str(tmp_path_factory.mktemp("follower") / "tether.db")).start()
    yield Partner(server)
    assert server.stop() == 0


async def write(partner: Partner, vehicle: str) -> list[str]:
    """Reports events of a vehicle one after the other; their ids in the order of the answers."""
    wire, ids = await Wire.to(partner.server), []
    for number in range(EACH // CONNECTIONS):
        answer = await wire.ask(partner.post(number, vehicle=vehicle))
        assert answer.status == 201
        ids.append(answer.json()["id"])
    return ids


async def follow(partner: Partner, wanted: int) -> list[dict[str, Any]]:
    """Follows the list from its beginning, until this number of events were seen."""
    wire = await Wire.to(partner.server)
    seen: list[dict[str, Any]] = []
    path = "/events?limit=1000"
    while len(seen) < wanted:
        answer = await wire.ask(partner.request("GET", path))
        assert answer.status == 200
        page = answer.json()
        seen += page
        if page:
            link = answer.headers["link"]
            path = httpx.URL(link[1 : link.index(">")]).raw_path.decode()
        else:
            assert "link" not in answer.headers
            await asyncio.sleep(0.01)
    assert (await wire.ask(partner.request("GET", path))).json() == []
    return seen


def test_a_follower_misses_and_repeats_nothing_while_eight_clients_write_25000_events(
    partner: Partner,
) -> None:
    vehicles = [f"W{number}" for number in range(WRITERS * CONNECTIONS)]
    for vehicle in vehicles:
        body = '{"chargeCapacity":50,"chargePowers":[11]}'
        assert partner.client.put(f"/vehicles/{vehicle}", content=body).status_code == 201

    async def scenario() -> tuple[list[dict[str, Any]], list[list[str]]]:
        following = asyncio.create_task(follow(partner, WRITERS * EACH))
        written = await asyncio.gather(*(write(partner, vehicle) for vehicle in vehicles))
        return await following, written

    seen, written = run(scenario(), seconds=300)
    assert seen == partner.events()
    ids = [found["id"] for found in seen]
    assert len(set(ids)) == WRITERS * EACH == len(ids)
    for vehicle, own in zip(vehicles, written, strict=True):
        assert [found["id"] for found in seen if found["vehicleId"] == vehicle] == own
    backwards = partner.client.get("/events?order=desc&limit=1000").json()
    assert backwards == seen[:-1001:-1]


def test_a_hundred_thousand_events_leave_the_server_under_100_mb(partner: Partner) -> None:
    """Some events are posted one by one by many clients, the others in bulk, which is faster."""
    number = run(post_events(partner, ALONE, connections=64), seconds=300)
    while number < STORED:
        body = b"\n".join(map(event, range(number, number + IN_BULK)))
        answer = partner.client.post("/events/bulk", content=body)
        assert {item["status"] for item in answer.json()} == {201}
        number += IN_BULK
    assert len(partner.client.get("/events?limit=1000&order=desc").json()) == 1000
    assert memory_mb(partner.server) < 100
