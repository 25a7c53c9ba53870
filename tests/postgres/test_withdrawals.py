"""Events are stored and withdrawn through two nodes at once."""

import json
import threading
from collections.abc import Callable
from random import Random

import httpx

from tests.conftest import Server
from tests.derivation.helpers import prepare, read_all, sessions, states
from tests.derivation.load import derived
from tests.derivation.streams import Body, stream
from tests.wire import run

VEHICLES = [f"V{number}" for number in range(5)]
ROUNDS = 6


def test_two_nodes_report_and_take_back_events_of_the_same_vehicles(
    database: str, node: Callable[..., Server]
) -> None:
    nodes = [node(database=database) for _ in range(2)]
    key, plain_key, random = nodes[0].key(), nodes[0].key(), Random(3)
    clients = [one.client(key) for one in nodes]
    prepare(clients[0], VEHICLES)
    bodies = [body for vehicle in VEHICLES for body in stream(random, vehicle)]
    random.shuffle(bodies)
    gone = set(map(json.dumps, random.sample(bodies, len(bodies) // 3)))

    def work(client: httpx.Client, mine: list[Body], random: Random) -> None:
        """Posts these events and withdraws some; the other client posts some of them, too."""
        for place in range(ROUNDS):
            portion = mine[place::ROUNDS]
            found = client.post("/events/bulk", json=portion).json()
            assert {item["status"] for item in found} == {201}
            mistakes = [
                item["id"]
                for body, item in zip(portion, found, strict=True)
                if json.dumps(body) in gone
            ]
            if mistakes:
                taken = client.post("/events/withdraw", json=mistakes).json()
                assert {item["status"] for item in taken} == {204}
            if random.random() < 0.5:
                client.get("/sessions?limit=1")

    # Withdrawn events are posted through both nodes, so that the nodes compete.
    halves = [
        [body for place, body in enumerate(bodies) if json.dumps(body) in gone or place % 2 == half]
        for half in range(2)
    ]
    working = [
        threading.Thread(target=work, args=(client, half, Random(place)))
        for place, (client, half) in enumerate(zip(clients, halves, strict=True))
    ]
    for thread in working:
        thread.start()
    for thread in working:
        thread.join()
    left = [event["id"] for event in read_all(clients[1], "/events")]
    kept = [body for body in bodies if json.dumps(body) not in gone]
    assert len(left) == len(kept)
    with nodes[1].client(plain_key) as plain:
        prepare(plain, VEHICLES)
        plain.post("/events/bulk", json=kept)
        expected = sessions(plain), states(plain)
    for client in clients:
        assert (sessions(client), states(client)) == expected
        client.close()
    run(derived(database))
    assert [one.failures() for one in nodes] == [[], []]
