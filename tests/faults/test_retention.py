"""The server is killed while events expire: it continues, and followers end with its data."""

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from random import Random

import httpx
import pytest

from tests.conftest import Server
from tests.console.visitors import partner_number
from tests.derivation.helpers import prepare, read_all, sessions
from tests.derivation.load import derived
from tests.derivation.streams import stream
from tests.faults.test_withdrawals import Followers
from tests.wire import run
from tether.domain.timestamps import parse_instant
from tether.server.store import open_store

KILLS = int(os.environ.get("TETHER_TEST_KILLS", "3"))
VEHICLES = [f"V{number}" for number in range(30)]


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_kills_while_events_expire(
    engine: str, new_server: Callable[..., Server], request: pytest.FixtureRequest
) -> None:
    database = None
    if engine == "postgres":
        database = request.getfixturevalue("new_postgres_database")()
    server = new_server("--log-level", "warning", database=database)
    random, followers, stop, posted = Random(5), Followers(), threading.Event(), list[str]()
    whole_key, key, other_key = [server.key() for _ in range(3)]
    partner = partner_number(server, key)
    bodies = [body for vehicle in VEHICLES for body in stream(random, vehicle)]
    instants = sorted(parse_instant(body["timestamp"]) for body in bodies)
    for one in (whole_key, key, other_key):
        with server.client(one) as client:
            prepare(client, VEHICLES)
            content = "\n".join(map(json.dumps, bodies if one != other_key else bodies[:1]))
            assert client.post("/events/bulk", content=content).status_code == 200
    with server.client(key) as client:
        followers.catch_up(client)
    writing = threading.Thread(target=write, args=(server, other_key, stop, posted))
    writing.start()
    port = int(server.url.rpartition(":")[2])
    for kill in range(KILLS):
        server.kill()
        run(move(server.database, partner, instants[(kill + 1) * len(instants) * 4 // (5 * KILLS)]))
        server.start(port)
        time.sleep(random.uniform(0, 0.6))
        if kill % 3 == 0:
            with server.client(key) as client:
                followers.catch_up(client)
    server.kill()
    horizon_ms = instants[-len(instants) // 10]
    run(move(server.database, partner, horizon_ms))
    server.start(port)
    run(expired(server.database, partner, horizon_ms))
    stop.set()
    writing.join()
    with server.client(whole_key) as whole, server.client(key) as client:
        wanted, found = sessions(whole), sessions(client)
        assert all(wanted[id] == one for id, one in found.items())
        gone = [one for id, one in wanted.items() if id not in found]
        assert gone
        assert all(parse_instant(one["disconnectedAt"]) < horizon_ms for one in gone)
        followers.catch_up(client)
        there = {event["id"] for event in read_all(client, "/events")}
        assert followers.events.keys() == followers.streamed.keys() == there
        assert followers.sessions.keys() == found.keys()
    with server.client(other_key) as client:
        assert set(posted) <= {event["id"] for event in read_all(client, "/events")}
    run(derived(server.database, 100))  # a rebuild finds no difference
    assert server.failures() == []


def write(server: Server, key: str, stop: threading.Event, posted: list[str]) -> None:
    """Posts events of another partner whenever the server runs."""
    body = {"type": "VEHICLE_CHARGE_UPDATED", "chargerId": "A", "vehicleId": "V1", "chargePower": 5}
    while not stop.is_set():
        with suppress(httpx.TransportError), server.client(key) as client:
            answer = client.post("/events", json=body)
            if answer.status_code == 201:
                posted.append(answer.json()["id"])
        time.sleep(0.02)


async def move(database: str, partner: int, horizon_ms: int) -> None:
    """Sets a horizon: older events are not kept."""
    async with open_store(database) as store:
        await store.retention.release_all()  # as if the lease of the killed server had expired
        await store.retention.move_horizon(partner, horizon_ms)


async def expired(database: str, partner: int, horizon_ms: int) -> None:
    """Returns when all old events are deleted."""
    async with open_store(database) as store:
        while (await store.retention.get(partner)).expired_ms != horizon_ms:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
