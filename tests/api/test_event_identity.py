"""Sending an event again: the same event is stored once, other values are a conflict."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.api.helpers import (
    CONNECTED,
    create_both,
    create_charger,
    create_event,
    create_vehicle,
    message,
)

OTHER_VALUES = (
    "An event of this type, charger, vehicle and timestamp is recorded with other values."
)
UPDATED: dict[str, Any] = CONNECTED | {
    "type": "VEHICLE_CHARGE_UPDATED",
    "stateOfCharge": 22.0,
    "chargePower": 11,
}


def test_an_event_sent_again_is_answered_with_its_first_id_and_recorded_once(
    client: httpx.Client,
) -> None:
    create_both(client)
    answers = [client.post("/events", json=UPDATED) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201] * 3
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(client.get("/events").json()) == 1


@pytest.mark.parametrize(
    "again",
    [
        '"stateOfCharge": 22, "chargePower": 11',
        '"stateOfCharge": 22.000, "chargePower": 11.0',
        '"chargePower": 1.1e1, "stateOfCharge": 2200e-2,',
    ],
)
@pytest.mark.parametrize(
    "timestamp",
    ["2023-05-11T22:06:40.738Z", "2023-05-12T00:06:40.7389+02:00", "2023-05-11t22:06:40.738z"],
)
def test_the_same_values_written_otherwise_are_the_same_event_which_stays_as_first_written(
    client: httpx.Client, again: str, timestamp: str
) -> None:
    create_both(client)
    first = client.post(
        "/events",
        content='{"type": "VEHICLE_CHARGE_UPDATED", "chargerId": "C1", "vehicleId": "V1", '
        '"stateOfCharge": 22.0, "chargePower": 11, "timestamp": "2023-05-11T22:06:40.738Z"}',
    )
    assert first.status_code == 201
    second = client.post(
        "/events",
        content=f'{{"timestamp": "{timestamp}", "vehicleId": "V1", "chargerId": "C1", '
        f'"type": "VEHICLE_CHARGE_UPDATED", {again}}}',
    )
    assert (second.status_code, second.json()) == (201, first.json())
    stored = client.get(f"/events/{first.json()['id']}").text
    assert '"stateOfCharge":22.0,"chargePower":11,' in stored


@pytest.mark.parametrize(
    "other",
    [
        {"stateOfCharge": 22.1},
        {"stateOfCharge": 22.0000000000001},
        {"chargePower": -11},
        {"chargePower": None},
        {"chargedEnergy": 0},
        {"chargedTime": 1},
    ],
)
def test_the_same_identity_with_other_values_is_a_conflict(
    client: httpx.Client, other: dict[str, Any]
) -> None:
    create_both(client)
    first = client.post("/events", json=UPDATED)
    changed = {name: value for name, value in (UPDATED | other).items() if value is not None}
    answer = client.post("/events", json=changed)
    assert (answer.status_code, message(answer)) == (409, OTHER_VALUES)
    assert client.post("/events", json=UPDATED).json() == first.json()
    assert len(client.get("/events").json()) == 1


def test_another_type_charger_vehicle_or_timestamp_is_another_event(client: httpx.Client) -> None:
    create_both(client)
    create_charger(client, "C2")
    create_vehicle(client, "V2")
    variants = [
        {},
        {"type": "VEHICLE_DISCONNECTED"},
        {"chargerId": "C2"},
        {"vehicleId": "V2"},
        {"timestamp": "2023-05-11T22:06:40.739Z"},
    ]
    assert len({create_event(client, **variant) for variant in variants}) == len(variants)


def test_an_event_without_a_timestamp_is_always_new_however_many_a_millisecond_brings(
    client: httpx.Client,
) -> None:
    create_both(client)
    body = {"type": "VEHICLE_CONNECTED", "chargerId": "C1", "vehicleId": "V1"}

    def post(_: int) -> str:
        answer = client.post("/events", json=body)
        assert answer.status_code == 201
        return str(answer.json()["id"])

    with ThreadPoolExecutor(20) as threads:
        ids = list(threads.map(post, range(300)))
    assert len(set(ids)) == 300
    stored = client.get("/events", params={"limit": 1000}).json()
    assert {event["id"] for event in stored} == set(ids)
    assert all(event["timestamp"].endswith("Z") for event in stored)


def test_fifty_identical_events_at_once_are_one_event(client: httpx.Client) -> None:
    create_both(client)
    for second in range(5):
        event = CONNECTED | {"timestamp": f"2023-05-11T22:06:0{second}.000Z"}

        def post(_: int, event: dict[str, str] = event) -> httpx.Response:
            return client.post("/events", json=event)

        with ThreadPoolExecutor(50) as threads:
            answers = list(threads.map(post, range(50)))
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert len(client.get("/events").json()) == second + 1


def test_of_contradicting_events_at_once_one_is_recorded_and_the_others_are_conflicts(
    client: httpx.Client,
) -> None:
    create_both(client)

    def post(value: int) -> httpx.Response:
        return client.post("/events", json=CONNECTED | {"stateOfCharge": value})

    with ThreadPoolExecutor(30) as threads:
        answers = list(threads.map(post, range(30)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 29
    [stored] = client.get("/events").json()
    assert answers[stored["stateOfCharge"]].status_code == 201


def test_good_and_bad_events_that_come_together_do_not_harm_one_another(
    client: httpx.Client,
) -> None:
    create_both(client)

    def post(number: int) -> int:
        charger = "C1" if number % 3 else "nobody"
        event = {"type": "VEHICLE_CONNECTED", "chargerId": charger, "vehicleId": "V1"}
        return client.post("/events", json=event).status_code

    with ThreadPoolExecutor(30) as threads:
        statuses = list(threads.map(post, range(150)))
    assert statuses == [201 if number % 3 else 409 for number in range(150)]
    assert len(client.get("/events", params={"limit": 1000}).json()) == 100


def test_an_event_id_is_a_version_7_uuid_and_ids_follow_the_order_of_receipt(
    client: httpx.Client,
) -> None:
    create_both(client)
    ids = [create_event(client, timestamp=f"2023-05-11T22:06:{s:02}Z") for s in range(20)]
    assert {UUID(event_id).version for event_id in ids} == {7}
    assert all(str(UUID(event_id)) == event_id for event_id in ids)
    assert ids == sorted(ids)


def test_events_of_a_charger_that_was_replaced_stay(client: httpx.Client) -> None:
    create_both(client)
    event_id = create_event(client)
    assert client.put("/chargers/C1", json={"chargePowers": [1]}).status_code == 200
    assert client.get(f"/events/{event_id}").status_code == 200
