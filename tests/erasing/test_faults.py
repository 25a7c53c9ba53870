"""The server is killed while it erases: it continues after a restart, and others can write."""

import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.conftest import Server
from tests.derivation.load import derived
from tests.erasing.test_erasing import (
    GONE,
    VEHICLE,
    fleet,
    naming,
    plain,
    reported,
    under_way,
)
from tests.lists import everything
from tests.wire import run

KILLS = int(os.environ.get("TETHER_TEST_KILLS", "3"))
STAYS = 300  # of four events each


def test_killed_again_and_again(
    engine: str,
    new_server: Callable[..., Server],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    database = str(tmp_path / "tether.db")
    if engine == "postgres":
        database = request.getfixturevalue("new_postgres_database")()
    server = new_server(database=database)
    port = int(server.url.rpartition(":")[2])
    key, other_key = server.key(), server.key()
    with server.client(key) as client, server.client(other_key) as other:
        fleet(client, "V1")
        fleet(other, "V1")
    over, written = threading.Event(), list[str]()
    writer = threading.Thread(target=_write_until, args=(server, key, over, written), daemon=True)
    writer.start()
    chance, kills, erased = random.Random(7), 0, 0
    while kills < KILLS:
        with server.client(key) as client:
            client.put(f"/vehicles/{GONE}", json=VEHICLE).raise_for_status()
            reported(client, GONE, "C1", STAYS)
        erased += 1
        eraser = threading.Thread(target=_erase, args=(server, key))
        eraser.start()
        while kills < KILLS:
            eraser.join(chance.uniform(0, 0.3))
            if not eraser.is_alive():
                break
            server.kill()
            kills += 1
            server.start(port)
        eraser.join()
    over.set()
    writer.join()
    assert not under_way(server)
    with server.client(key) as client, server.client(other_key) as other:
        events = everything(client, "/events")
        assert [one["timestamp"] for one in events] == written
        for at in written:
            other.post("/events", json=_event(at)).raise_for_status()
        assert plain(everything(client, "/sessions")) == plain(everything(other, "/sessions"))
        assert len(everything(client, "/events/withdrawn")) == erased * STAYS * 4
        noted = client.get("/audit", params={"action": "vehicle.erase"}).json()
        assert len(noted) == erased  # each once, however often the erasure was resumed
    assert naming(server, GONE) == []
    run(derived(server.database))  # a rebuild finds no difference


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def _erase(server: Server, key: str) -> None:
    """Repeats the deletion until it is done, also when the server is killed meanwhile."""
    status = 0
    while status not in (204, 404):
        with suppress(httpx.TransportError), server.client(key) as client:
            answer = client.delete(f"/vehicles/{GONE}", params={"events": "erase"})
            status = answer.status_code
            assert status in (202, 204, 404, 503), answer.text
        time.sleep(0.02)


def _event(at: str) -> dict[str, object]:
    return {
        "type": "VEHICLE_CHARGE_UPDATED", "chargerId": "C1", "vehicleId": "V1",
        "stateOfCharge": 40, "timestamp": at,
    }  # fmt: skip


def _write_until(server: Server, key: str, over: threading.Event, written: list[str]) -> None:
    """Posts events of another vehicle at the same charger, each until it is acknowledged."""
    while not over.is_set():
        number, status = len(written), 0
        at = f"2026-01-02T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}.000Z"
        while status != 201:  # also the last one, which may be there without an answer
            with suppress(httpx.TransportError), server.client(key) as client:
                answer = client.post("/events", json=_event(at))
                status = answer.status_code
                assert status in (201, 503), answer.text
            time.sleep(0.02)
        written.append(at)
