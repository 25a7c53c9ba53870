"""Numbers in the wrong unit are stored, and a `Tether-Warning` names the member."""

from typing import Any

import httpx
import pytest

from tests.api.helpers import CONNECTED, VEHICLE

POWERS = [
    "chargePowers",
    "chargePowerMin",
    "chargePowerMax",
    "dischargePowers",
    "dischargePowerMin",
    "dischargePowerMax",
]


def warned(answer: httpx.Response) -> list[str]:
    """The members in the warnings of a successful answer."""
    assert answer.status_code in (200, 201), answer.text
    field = answer.headers.get("tether-warning")
    items = field.split(", ") if field else []
    assert all(item.startswith('unit; parameter="') for item in items)
    return [item[len('unit; parameter="') : -1] for item in items]


@pytest.fixture
def partner(client: httpx.Client) -> httpx.Client:
    client.put("/chargers/C1", json={"chargePowers": [11]})
    client.put("/vehicles/V1", json=VEHICLE)  # 74.8 kWh
    client.put("/vehicles/V2", json={"chargeCapacity": 10, "chargePowers": [11]})
    return client


def test_powers_and_capacities_of_another_unit_are_warned_of_and_stored(
    client: httpx.Client,
) -> None:
    watts = {"chargePowers": [7.4, 11000], "dischargePowerMin": 1, "dischargePowerMax": 11000}
    for path, more in (("/chargers/C1", {}), ("/vehicles/V1", {"chargeCapacity": 74800})):
        for _ in range(2):
            answer = client.put(path, json={**watts, **more})
            names = ["chargeCapacity"] * len(more) + ["chargePowers", "dischargePowerMax"]
            assert warned(answer) == names
        assert client.get(path).json() == {"id": path[-2:], **watts, **more}
        ranged = {"chargePowers": None, "chargePowerMin": 5001, "chargePowerMax": 5001}
        assert warned(client.patch(path, json=ranged)) == ["chargePowerMin", "chargePowerMax"]
        # Only of what is sent.
        assert warned(client.patch(path, json={"dischargePowerMin": 2})) == []


def test_what_a_vehicle_or_a_site_may_have_is_not_warned_of(client: httpx.Client) -> None:
    assert warned(client.put("/chargers/C1", json={"chargePowers": [0.1, 5000]})) == []
    truck = {"chargeCapacity": 2000, "chargePowerMin": 1, "chargePowerMax": 5000}
    assert warned(client.put("/vehicles/V1", json=truck)) == []
    assert warned(client.patch("/vehicles/V1", json={"chargeCapacity": 2000.001})) == [
        "chargeCapacity"
    ]
    assert "tether-warning" not in client.put("/vehicles/V1", json={}).headers  # 400


CASES: list[tuple[dict[str, Any], list[str]]] = [
    ({"chargePower": 5000, "chargedEnergy": 374}, []),
    ({"chargePower": -5000, "chargedEnergy": -374}, []),
    ({"chargePower": 11000}, ["chargePower"]),
    ({"chargePower": -11000}, ["chargePower"]),
    ({"chargedEnergy": 43000}, ["chargedEnergy"]),
    ({"chargedEnergy": 374.1}, ["chargedEnergy"]),
    ({"chargedEnergy": -374.1}, ["chargedEnergy"]),
    ({"chargedEnergy": 43000, "chargePower": 11000}, ["chargePower", "chargedEnergy"]),
    ({"vehicleId": "V2", "chargedEnergy": 50}, []),
    ({"vehicleId": "V2", "chargedEnergy": 50.1}, ["chargedEnergy"]),
    ({"chargedTime": 27658362}, []),
]


def event(number: int, members: dict[str, Any]) -> dict[str, Any]:
    at = f"2023-05-11T23:00:{number:02}.000Z"
    return {**CONNECTED, "type": "VEHICLE_CHARGE_UPDATED", "stateOfCharge": 50, **members,
            "timestamp": at}  # fmt: skip


def test_an_event_is_warned_of_alone_and_in_bulk(partner: httpx.Client) -> None:
    events = [event(number, members) for number, (members, _) in enumerate(CASES)]
    for one, (_, names) in zip(events, CASES, strict=True):
        for _ in range(2):  # also when it is sent again
            assert warned(partner.post("/events", json=one)) == names, one
    stored = partner.get("/events").json()
    assert [{name: kept[name] for name in one} for one, kept in zip(events, stored, strict=True)]
    refused = [{**event(59, {"chargePower": 11000}), "chargerId": "C9"}, {"chargePower": 11000}]
    answer = partner.post("/events/bulk", json=[*events, *refused])
    assert "tether-warning" not in answer.headers
    items = answer.json()
    assert [item["status"] for item in items] == [201] * len(events) + [409, 400]
    for item, (_, names) in zip(items, CASES, strict=False):
        found = [(one["code"], one["parameter"]) for one in item.get("warnings", [])]
        assert found == [("unit", name) for name in names]
    assert all("warnings" not in item for item in items if not item.get("warnings"))


def test_the_operator_sees_them_counted(partner: httpx.Client) -> None:
    def count(name: str) -> float:
        lines = partner.get("/metrics").text.splitlines()
        series = f'tether_doubted_units_total{{parameter="{name}"}} '
        return sum(float(line[len(series) :]) for line in lines if line.startswith(series))

    before = count("chargedEnergy")
    many = [event(number, {"chargedEnergy": 43000}) for number in range(5)]
    partner.post("/events/bulk", json=many)
    partner.post("/events", json=many[0])
    assert count("chargedEnergy") == before + 6


def test_a_session_whose_states_of_charge_are_fractions_is_flagged(partner: httpx.Client) -> None:
    def flags() -> list[str]:
        (session,) = partner.get("/sessions").json()
        return [flag["name"] for flag in session["flags"]]

    partner.post("/events", json=CONNECTED | {"stateOfCharge": 0.22})
    assert flags() == ["state-of-charge-tiny"]
    partner.post("/events", json=event(1, {"stateOfCharge": 1}))
    assert "state-of-charge-tiny" in flags()
    partner.post("/events", json=event(2, {"stateOfCharge": 23}))
    assert "state-of-charge-tiny" not in flags()
