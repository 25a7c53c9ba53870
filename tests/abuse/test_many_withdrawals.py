"""Withdrawing very many events at once costs little, and blocks nobody."""

import json
import threading
from collections.abc import Iterator
from statistics import median
from time import perf_counter, sleep
from typing import Any

import httpx
import pytest

from tests.api.helpers import ON_ONE_ENGINE, create_both
from tests.conftest import Server

pytestmark = ON_ONE_ENGINE
EVENTS = 10_000
PORTIONS = 20  # commits of 500


@pytest.fixture(scope="module")
def parties(server: Server) -> Iterator[list[httpx.Client]]:
    """Two partners."""
    clients = [server.client() for _ in range(2)]
    for client in clients:
        create_both(client)
    yield clients
    for client in clients:
        client.close()


def derived(client: httpx.Client, path: str) -> Any:
    """The answer when everything is derived, however long that takes."""
    while (answer := client.get(path)).status_code == 503:
        sleep(0.2)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_ten_thousand_events_of_a_vehicle_are_derived_once_a_portion(
    parties: list[httpx.Client],
) -> None:
    client, other = parties
    # Hourly stays: each has a plug-in, and updates all the time.
    lines = [
        json.dumps({
            "type": "VEHICLE_CHARGE_UPDATED" if number % 50 else "VEHICLE_CONNECTED",
            "chargerId": "C1", "vehicleId": "V1",
            "timestamp": f"2026-01-{1 + n // 1440:02}T{n // 60 % 24:02}:{n % 60:02}:{s:02}Z",
            **({"stateOfCharge": number % 90} if number % 50 else {}),
        })
        for number in range(EVENTS + 1)
        for n, s in [divmod(number * 60 // 10, 60)]
    ]  # fmt: skip
    ids = [item["id"] for start in (0, EVENTS) for item in client.post(
        "/events/bulk", content="\n".join(lines[start : start + EVENTS])).json()]  # fmt: skip
    assert derived(client, "/vehicles/V1/state")["lastEvent"]["id"] == ids[-1]
    (newest,) = derived(client, "/sessions?order=desc&limit=1")

    answers: list[httpx.Response] = []
    removal = threading.Thread(
        target=lambda: answers.append(client.post("/events/withdraw", json=ids[:-1], timeout=120))
    )
    removal.start()
    took: list[float] = []
    while removal.is_alive() or len(took) < 5:
        began = perf_counter()
        assert other.get("/vehicles/V1").status_code == 200
        assert other.post("/events", json=json.loads(lines[len(took)])).status_code == 201
        took.append(perf_counter() - began)
    removal.join()
    (answer,) = answers
    assert {item["status"] for item in answer.json()} == {204}
    assert median(took) < 1, "two requests, on a busy machine"

    (left,) = derived(client, "/sessions?limit=1000")
    assert left["lastEventAt"][:19] + "Z" == json.loads(lines[-1])["timestamp"]
    changes = derived(client, "/sessions?updatedFrom=2026-01-01T00:00:00Z&limit=1000")
    versions = max(session["version"] for session in changes) - newest["version"]
    assert versions <= 2 * PORTIONS, "each session changes with a portion at most"
