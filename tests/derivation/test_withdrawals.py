"""After a withdrawal, derived data are as if the events had never been sent."""

import asyncio
from collections.abc import Iterator
from itertools import count
from random import Random
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Server
from tests.derivation.helpers import prepare, read, read_all, send, sessions
from tests.derivation.streams import VEHICLE, Body, stream
from tether.domain.keys import digest_of
from tether.server.store import open_store

NUMBERS = count()
VALUES = ("stateOfCharge", "chargePower", "chargedEnergy", "chargedTime")


@pytest.fixture(scope="module")
def partners(server: Server) -> Iterator[list[httpx.Client]]:
    """Two partners; one of them never withdraws events."""
    clients = [server.client() for _ in range(2)]
    for client in clients:
        prepare(client, [])
    yield clients
    for client in clients:
        client.close()


@settings(
    max_examples=12,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.integers(0, 10**6))
def test_what_is_taken_back_leaves_no_trace(
    partners: list[httpx.Client], server: Server, seed: int
) -> None:
    plain, changing = partners
    order = Random(seed)
    vehicle = f"V{next(NUMBERS)}"
    bodies = stream(order, vehicle)[:40]
    for client in partners:
        assert client.put(f"/vehicles/{vehicle}", json=VEHICLE).status_code == 201
    kept = report_and_take_back(changing, bodies, order)
    if kept:
        assert plain.post("/events/bulk", json=kept).status_code == 200
    instants = sorted({one["timestamp"] for one in kept})[::5]
    assert picture(changing, vehicle, instants) == picture(plain, vehicle, instants)
    assert differing(server, changing, vehicle) == 0


def report_and_take_back(client: httpx.Client, bodies: list[Body], order: Random) -> list[Body]:
    """Posts events in random order and withdraws some meanwhile; returns the remaining ones."""
    waiting = order.sample(bodies, len(bodies))
    mistaken = [one for one in waiting if order.random() < 0.2]
    kept: list[Body] = []
    while waiting:
        size = order.choice((1, 3, 8, 40))
        portion, waiting = waiting[:size], waiting[size:]
        kept += (body := wrong(one, order) if one in mistaken else one for one in portion)
        send(client, kept[-len(portion) :], order, 8)
        if order.random() < 0.4:  # a read in between, so that everything is derived
            read(client.get("/sessions", params={"limit": 1}))
        gone = [body for body in kept if order.random() < 0.15]
        take_back(client, gone, order)
        kept = [body for body in kept if body not in gone]
        for body in gone:
            chance = order.random()
            if chance < 0.3:  # the same once more, or a corrected one
                waiting.append(body)
            elif chance < 0.5:
                waiting.append(wrong(body, order))
    return kept


def wrong(body: Body, order: Random) -> Body:
    """The same event with other values."""
    changed = {name: value for name, value in body.items() if name not in VALUES}
    changed["stateOfCharge"] = order.randint(1, 100)
    if "chargedEnergy" in body:
        changed["chargedEnergy"] = order.randint(0, 60)
    return changed


def take_back(client: httpx.Client, gone: list[Body], order: Random) -> None:
    for body in gone:
        # Sent again it is the same event, so the answer has its id.
        event = client.post("/events", json=body).json()["id"]
        for _ in range(order.choice((1, 1, 2))):
            assert client.delete(f"/events/{event}").status_code == 204
        assert client.get(f"/events/{event}").status_code == 404


def picture(client: httpx.Client, vehicle: str, instants: list[str]) -> dict[str, Any]:
    """All derived data of a vehicle, without values that depend on the order of arrival."""
    state = read(client.get(f"/vehicles/{vehicle}/state"))
    state.get("lastEvent", {}).pop("id", None)
    events = read_all(client, "/events", vehicleId=vehicle)
    week = {"from": "2026-01-05T00:00:00Z", "to": "2026-01-12T00:00:00Z", "step": "hour"}
    return {
        "sessions": sessions(client, vehicleId=vehicle),
        "state": {n: v for n, v in state.items() if n != "asOf" and not n.endswith("Age")},
        "events": sorted(str({**event, "id": None}) for event in events),
        "capacity": [read(client.get("/capacity", params={"at": at})) for at in instants],
        "energy": read(client.get("/energy", params={**week, "vehicleId": vehicle})),
    }


def differing(server: Server, client: httpx.Client, vehicle: str) -> int:
    """The number of the vehicle's sessions that a rebuild finds wrong."""

    async def check() -> int:
        async with open_store(server.database) as store:
            key = await store.keys.find(digest_of(client.headers["x-api-key"]))
            assert key is not None
            found = store.rebuilder.check(key.partner, repair=False)
            return sum([one.differing async for one in found if one.vehicle_id == vehicle])

    return asyncio.run(check())
