"""Sessions and states depend only on the set of events, not on their order of arrival."""

from collections.abc import Callable, Iterator
from itertools import count
from random import Random

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Server
from tests.derivation.helpers import prepare, read, send, sessions, states
from tests.derivation.streams import VEHICLE, stream

NUMBERS = count()


@pytest.fixture(scope="module")
def partners(server: Server) -> Iterator[list[httpx.Client]]:
    """Three partners that get the same events in different ways."""
    clients = [server.client() for _ in range(3)]
    for client in clients:
        prepare(client, [])
    yield clients
    for client in clients:
        client.close()


@settings(
    max_examples=20,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.integers(0, 10**6), order=st.randoms(use_true_random=False), data=st.data())
def test_any_order_any_duplicates_and_any_batching_mean_the_same(
    partners: list[httpx.Client], seed: int, order: Random, data: st.DataObject
) -> None:
    vehicle = f"V{next(NUMBERS)}"
    bodies = stream(Random(seed), vehicle)[:30]
    found = []
    for place, client in enumerate(partners):
        assert client.put(f"/vehicles/{vehicle}", json=VEHICLE).status_code == 201
        if place == 0:  # as they happened, in one piece
            if bodies:
                assert client.post("/events/bulk", json=bodies).status_code == 200
        else:
            looks = data.draw(st.booleans()) if bodies else False
            half = len(bodies) // 2 if looks else 0
            shuffled = order.sample(bodies, len(bodies))
            send(client, shuffled[:half], order, 8)
            if looks:  # a read in between, so that everything is derived
                read(client.get("/sessions", params={"vehicleId": vehicle}))
            send(client, shuffled[half:] + shuffled[: half // 2], order, 8)
        state = read(client.get(f"/vehicles/{vehicle}/state"))
        mine = sessions(client, vehicleId=vehicle)
        lasting = {n: v for n, v in state.items() if n != "asOf" and not n.endswith("Age")}
        lasting.get("lastEvent", {}).pop("id", None)
        found.append((mine, lasting))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_restarts_in_between_change_nothing(
    engine: str, new_server: Callable[..., Server], request: pytest.FixtureRequest
) -> None:
    database = None
    if engine == "postgres":
        database = request.getfixturevalue("new_postgres_database")()
    server = new_server("--log-level", "warning", database=database)
    random = Random(3)
    vehicles = [f"V{number}" for number in range(40)]
    bodies = [body for vehicle in vehicles for body in stream(random, vehicle)]
    keys = [server.key(), server.key()]
    with server.client(keys[0]) as client:
        prepare(client, vehicles)
        send(client, bodies, random)
        expected = sessions(client), states(client)
    random.shuffle(bodies)
    for place in range(4):
        with server.client(keys[1]) as client:
            if place == 0:
                prepare(client, vehicles)
            send(client, bodies[place::4], random, 60)
        server.kill() if place % 2 else server.stop()
        server.start()
    with server.client(keys[1]) as client:
        assert (sessions(client), states(client)) == expected
    assert len(expected[0]) > len(vehicles)
    assert server.failures() == []


def test_the_newest_event_at_a_charger_does_not_depend_on_which_came_last(
    partners: list[httpx.Client],
) -> None:
    vehicles = [f"tie-{number}" for number in range(4)]
    bodies = [
        {
            "type": f"VEHICLE_{kind}",
            "chargerId": "tie",
            "vehicleId": vehicle,
            "timestamp": f"2026-01-05T0{hour}:00:00.000Z",
        }
        for hour, kind in ((8, "CONNECTED"), (9, "DISCONNECTED"))
        for vehicle in vehicles
    ]
    found = []
    for client, one in zip(partners, (bodies, bodies[::-1], bodies[2:] + bodies[:2]), strict=True):
        assert client.put("/chargers/tie", json={"chargePowers": [11]}).status_code == 201
        for vehicle in vehicles:
            assert client.put(f"/vehicles/{vehicle}", json=VEHICLE).status_code == 201
        for body in one:
            assert client.post("/events", json=body).status_code == 201
        found.append(read(client.get("/chargers/tie/state"))["lastEvent"]["vehicleId"])
    assert len(set(found)) == 1, found
