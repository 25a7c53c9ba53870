"""The server is killed while it delivers: no message is lost, doubled or out of order."""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.conftest import SECRET_KEY, Server
from tests.webhooks.conftest import INSIDE, fill
from tests.webhooks.receiver import Receiver
from tests.webhooks.test_delivery import add, wait

KILLS = int(os.environ.get("TETHER_TEST_KILLS", "3"))


def in_order(ids: list[str]) -> list[str]:
    """The ids without repetitions, in the order of their first occurrence."""
    return list(dict.fromkeys(ids))


def post_until(client_of: Callable[[], httpx.Client], stop: threading.Event) -> list[str]:
    """Posts events, each until it is acknowledged; returns the ids in the order of the posts."""
    ids: list[str] = []
    number = 0
    while not stop.is_set():
        number += 1
        event = {
            "type": "VEHICLE_CHARGE_UPDATED", "chargerId": "C1", "vehicleId": "V1",
            "stateOfCharge": 40, "timestamp": f"2026-01-01T00:{number // 60:02}:{number % 60:02}Z",
        }  # fmt: skip
        while True:
            try:
                with client_of() as client:
                    answer = client.post("/events", json=event)
                if answer.status_code == 201:
                    break
            except httpx.TransportError:
                pass
            if stop.is_set():
                return ids
            time.sleep(0.02)
        ids.append(f"event_created_{answer.json()['id']}")
        time.sleep(0.02)
    return ids


def test_killed_again_and_again(
    new_server: Callable[..., Server], receiver: Receiver, path: str
) -> None:
    server = new_server(*INSIDE)
    key = server.key()
    with server.client(key) as client:
        fill(client)
        add(client, receiver.url + path, types=["event.created"])
    stop, posted = threading.Event(), list[str]()
    thread = threading.Thread(
        target=lambda: posted.extend(post_until(lambda: server.client(key), stop))
    )
    thread.start()
    chance = random.Random(7)
    port = int(server.url.rpartition(":")[2])
    for _ in range(KILLS):
        count = len(receiver.at(path))
        receiver.wait_for(path, count + 3)
        time.sleep(chance.random() / 4)
        server.kill()
        server.start(port)
    stop.set()
    thread.join()
    wait(lambda: len({one.id for one in receiver.at(path)}) >= len(posted), 120)
    told = [one.id for one in receiver.at(path)]
    assert in_order(told) == posted  # nothing that was not committed, nothing missing, in order
    with server.client(key) as client:
        stored = [f"event_created_{one['id']}" for one in client.get("/events?limit=1000").json()]
    assert stored == posted


@pytest.fixture(scope="module")
def nodes(new_postgres_database: Callable[[], str]) -> Iterator[list[Server]]:
    database, secret = new_postgres_database(), {"TETHER_SECRET_KEY": SECRET_KEY}
    servers = [Server(database, INSIDE, secret).start() for _ in range(2)]
    yield servers
    for server in servers:
        if server.process is not None and server.process.poll() is None:
            server.kill()


def test_two_nodes(nodes: list[Server], receiver: Receiver, path: str) -> None:
    first, second = nodes
    key = first.key()
    posted: list[str] = []

    def post(client: httpx.Client, number: int) -> None:
        event: dict[str, Any] = {
            "type": "VEHICLE_CHARGE_UPDATED", "chargerId": "C1", "vehicleId": "V1",
            "stateOfCharge": 40, "timestamp": f"2026-01-01T00:{number // 60:02}:{number % 60:02}Z",
        }  # fmt: skip
        answer = client.post("/events", json=event)
        assert answer.status_code == 201
        posted.append(f"event_created_{answer.json()['id']}")

    with first.client(key) as one, second.client(key) as other:
        fill(one)
        add(one, receiver.url + path, types=["event.created"])
        for number in range(40):
            post((one, other)[number % 2], number)
        told = [received.id for received in receiver.wait_for(path, 40)]
        assert told == posted  # in order, and none twice
        first.kill()
        began = time.monotonic()
        post(other, 40)
        wait(lambda: posted[-1] in {received.id for received in receiver.at(path)})
        taken_s = time.monotonic() - began
        for number in range(41, 60):
            post(other, number)
    wait(lambda: len({received.id for received in receiver.at(path)}) == 60)
    assert in_order([received.id for received in receiver.at(path)]) == posted
    assert taken_s < 30  # 10 s on an idle machine
