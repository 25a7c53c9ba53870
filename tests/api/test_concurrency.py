"""Many clients do the same thing at the same time."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import httpx
import pytest

from tests.api.helpers import CHARGER, VEHICLE
from tests.conftest import Server

BODY: dict[str, dict[str, Any]] = {"chargers": CHARGER, "vehicles": VEHICLE}


@pytest.mark.parametrize("kind", ["chargers", "vehicles"])
def test_of_a_hundred_puts_of_a_new_id_exactly_one_creates_it(server: Server, kind: str) -> None:
    with server.client() as client, ThreadPoolExecutor(100) as threads:
        for entity_id in ("E1", "E2", "E3"):
            together = Barrier(100)

            def put(number: int, entity_id: str = entity_id, together: Barrier = together) -> int:
                together.wait()
                body = BODY[kind] | {"chargePowers": [number + 1]}
                return client.put(f"/{kind}/{entity_id}", json=body).status_code

            statuses = list(threads.map(put, range(100)))
            assert sorted(statuses) == [200] * 99 + [201]
        assert len(client.get(f"/{kind}").json()) == 3


def test_of_a_hundred_conditional_creations_one_succeeds(client: httpx.Client) -> None:
    def create(number: int) -> int:
        body = {"chargePowers": [number + 1]}
        headers = {"If-None-Match": "*"}
        return client.put("/chargers/C1", json=body, headers=headers).status_code

    with ThreadPoolExecutor(50) as threads:
        statuses = list(threads.map(create, range(100)))
    assert sorted(statuses) == [201] + [412] * 99
    winner = statuses.index(201)
    assert client.get("/chargers/C1").json()["chargePowers"] == [winner + 1]


def test_two_patches_at_once_lose_nothing(client: httpx.Client) -> None:
    path = "/chargers/C1"
    client.put(path, json=CHARGER | {"latitude": 0, "longitude": 0})
    changes = ({"latitude": 1}, {"longitude": 1}, {"dischargePowers": [1]}, {"chargePowers": [1]})
    with ThreadPoolExecutor(len(changes)) as threads:
        for number in range(1, 60):
            together = Barrier(len(changes))

            def patch(
                change: dict[str, Any], number: int = number, together: Barrier = together
            ) -> int:
                [(name, value)] = change.items()
                together.wait()
                new = [number] if isinstance(value, list) else number
                return client.patch(path, json={name: new}).status_code

            assert set(threads.map(patch, changes)) == {200}
            assert client.get(path).json() == {
                "id": "C1",
                "chargePowers": [number],
                "dischargePowers": [number],
                "latitude": number,
                "longitude": number,
            }


def test_many_patches_of_one_entity_are_all_applied_and_counted(client: httpx.Client) -> None:
    client.put("/vehicles/V1", json=VEHICLE)

    def patch(number: int) -> int:
        return client.patch("/vehicles/V1", json={"chargeCapacity": number + 1}).status_code

    with ThreadPoolExecutor(20) as threads:
        assert set(threads.map(patch, range(100))) == {200}
    assert client.get("/vehicles/V1").headers["etag"].startswith('"101-')


def test_a_patch_at_the_same_time_as_a_replacement_is_applied_before_or_after_it(
    client: httpx.Client,
) -> None:
    for number in range(1, 30):
        path = f"/chargers/C{number}"
        client.put(path, json={"chargePowers": [1], "latitude": 1, "longitude": 1})
        with ThreadPoolExecutor(2) as threads:
            put = threads.submit(client.put, path, json={"chargePowerMin": 1, "chargePowerMax": 9})
            patch = threads.submit(client.patch, path, json={"dischargePowers": [5]})
            assert put.result().status_code == patch.result().status_code == 200
        stored = client.get(path).json()
        replaced = {"id": f"C{number}", "chargePowerMin": 1, "chargePowerMax": 9}
        assert stored in (replaced, replaced | {"dischargePowers": [5]})
