"""The five types of events: their members, and the charger and vehicle that they name."""

from typing import Any

import httpx
import pytest

from tests.api.helpers import (
    CONNECTED,
    ID_RULE,
    ON_ONE_ENGINE,
    create_both,
    create_charger,
    create_vehicle,
    message,
    refused_parameter,
)

pytestmark = ON_ONE_ENGINE

# Copied from the reference's tables, one line each: the other members of each type.
REQUIRED = ["type", "chargerId", "vehicleId"]
MEMBERS = {
    "VEHICLE_CONNECTED": ["stateOfCharge", "timestamp"],
    "VEHICLE_DISCONNECTED": ["stateOfCharge", "timestamp"],
    "VEHICLE_CHARGE_STARTED": ["stateOfCharge", "chargePower", "timestamp"],
    "VEHICLE_CHARGE_STOPPED": ["stateOfCharge", "chargedEnergy", "chargedTime", "timestamp"],
    "VEHICLE_CHARGE_UPDATED": [
        "stateOfCharge", "chargePower", "chargedEnergy", "chargedTime", "timestamp",
    ],
}  # fmt: skip
VALUES: dict[str, Any] = {
    "stateOfCharge": 49.1,
    "chargePower": 11.5,
    "chargedEnergy": 58.3,
    "chargedTime": 27658.362,
    "timestamp": "2023-05-11T22:06:40.738Z",
}
TYPES = list(MEMBERS)
ANY_MEMBER = [*VALUES, "chargeTime", "id", "chargeCapacity", "chargePowers", "soc"]


def smallest(kind: str) -> dict[str, Any]:
    """The event of this type with only the required members."""
    event = {"type": kind, "chargerId": "C1", "vehicleId": "V1"}
    return event | ({"stateOfCharge": 1} if kind == "VEHICLE_CHARGE_UPDATED" else {})


def belongs(kind: str, member: str) -> bool:
    return {"chargeTime": "chargedTime"}.get(member, member) in MEMBERS[kind]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("member", ANY_MEMBER)
def test_a_type_accepts_the_members_of_its_own_table_and_names_any_other(
    client: httpx.Client, kind: str, member: str
) -> None:
    create_both(client)
    value = VALUES.get({"chargeTime": "chargedTime"}.get(member, member), 1)
    answer = client.post("/events", json=smallest(kind) | {member: value})
    if belongs(kind, member):
        assert answer.status_code == 201, answer.text
        stored = client.get(f"/events/{answer.json()['id']}").json()
        assert stored[{"chargeTime": "chargedTime"}.get(member, member)] == value
    else:
        said = message(answer)
        assert said.startswith(f"Parameter {{{member}}} is invalid. It is not a member of a {kind}")
        owners = [other for other in TYPES if belongs(other, member)]
        if member != "chargeTime" and owners:  # an older name
            assert all(owner in said for owner in owners)
            assert not any(other in said for other in TYPES if other not in {*owners, kind})
        assert client.get("/events").json() == []


@pytest.mark.parametrize("kind", TYPES)
def test_an_event_with_all_members_of_its_table_comes_back_whole(
    client: httpx.Client, kind: str
) -> None:
    create_both(client)
    event = smallest(kind) | {name: VALUES[name] for name in MEMBERS[kind]}
    created = client.post("/events", json=event).json()
    assert client.get(f"/events/{created['id']}").json() == event | created


@pytest.mark.parametrize("kind", TYPES)
def test_an_event_needs_its_required_members(client: httpx.Client, kind: str) -> None:
    required = REQUIRED + (["stateOfCharge"] if kind == "VEHICLE_CHARGE_UPDATED" else [])
    for name in required:
        event = {member: value for member, value in smallest(kind).items() if member != name}
        answer = client.post("/events", json=event)
        assert (answer.status_code, message(answer)) == (
            400, f"Parameter {{{name}}} is invalid. It is required.",
        )  # fmt: skip


@pytest.mark.parametrize("kind", [None, 1, "", "CONNECTED", "vehicle_connected", [], {}, True])
def test_a_type_is_one_of_five_words(client: httpx.Client, kind: object) -> None:
    answer = client.post("/events", json=CONNECTED | {"type": kind})
    assert message(answer) == (
        "Parameter {type} is invalid. It must be one of VEHICLE_CONNECTED, VEHICLE_DISCONNECTED, "
        "VEHICLE_CHARGE_STARTED, VEHICLE_CHARGE_STOPPED, VEHICLE_CHARGE_UPDATED."
    )


def test_the_type_is_looked_at_before_the_other_members(client: httpx.Client) -> None:
    assert refused_parameter(client.post("/events", json={})) == "type"
    assert refused_parameter(client.post("/events", json={"colour": 1})) == "type"


BAD_VALUES: list[tuple[str, str, object, str]] = [
    ("VEHICLE_CONNECTED", "stateOfCharge", -0.1, "It must be a number from 0 to 100 (%)."),
    ("VEHICLE_CONNECTED", "stateOfCharge", 100.1, "It must be a number from 0 to 100 (%)."),
    ("VEHICLE_CONNECTED", "stateOfCharge", "22", "It must be a number (%), without quotes."),
    ("VEHICLE_CONNECTED", "stateOfCharge", None, "It must be a number (%)."),
    ("VEHICLE_CONNECTED", "stateOfCharge", True, "It must be a number (%)."),
    ("VEHICLE_CHARGE_UPDATED", "stateOfCharge", None, "It must be a number (%)."),
    ("VEHICLE_CHARGE_STARTED", "chargePower", "11", "It must be a number (kW), without quotes."),
    ("VEHICLE_CHARGE_STARTED", "chargePower", [11], "It must be a number (kW)."),
    ("VEHICLE_CHARGE_STOPPED", "chargedEnergy", {}, "It must be a number (kWh)."),
    ("VEHICLE_CHARGE_STOPPED", "chargedTime", -1, "It must be a number not below 0 (seconds)."),
    ("VEHICLE_CHARGE_STOPPED", "chargeTime", -1, "It must be a number not below 0 (seconds)."),
    ("VEHICLE_CONNECTED", "chargerId", 1, 'It must be text in quotes, such as "C1408".'),
    ("VEHICLE_CONNECTED", "chargerId", None, ID_RULE),
    ("VEHICLE_CONNECTED", "chargerId", "", ID_RULE),
    ("VEHICLE_CONNECTED", "vehicleId", "a b", ID_RULE),
    ("VEHICLE_CONNECTED", "vehicleId", "..", ID_RULE),
    ("VEHICLE_CONNECTED", "vehicleId", "V1\n", ID_RULE),
    ("VEHICLE_CONNECTED", "vehicleId", "x" * 129, ID_RULE),
]


@pytest.mark.parametrize(("kind", "member", "value", "hint"), BAD_VALUES)
def test_a_bad_value_is_named_and_the_message_says_what_would_be_valid(
    client: httpx.Client, kind: str, member: str, value: object, hint: str
) -> None:
    answer = client.post("/events", json=smallest(kind) | {member: value})
    assert (answer.status_code, message(answer)) == (
        400, f"Parameter {{{member}}} is invalid. {hint}",
    )  # fmt: skip


def test_a_state_of_charge_reaches_from_0_to_100(client: httpx.Client) -> None:
    create_both(client)
    for value in ("0", "0.0", "-0", "100", "100.000"):
        body = f'{{"type":"VEHICLE_CONNECTED","chargerId":"C1","vehicleId":"V1",\
"stateOfCharge":{value}}}'
        assert client.post("/events", content=body).status_code == 201


def test_power_and_energy_may_be_negative_because_vehicles_feed_back(client: httpx.Client) -> None:
    create_both(client)
    event = smallest("VEHICLE_CHARGE_UPDATED") | {"chargePower": -11.5, "chargedEnergy": -58.3}
    created = client.post("/events", json=event).json()
    stored = client.get(f"/events/{created['id']}").json()
    assert (stored["chargePower"], stored["chargedEnergy"]) == (-11.5, -58.3)


def test_charged_time_under_both_of_its_names_is_refused(client: httpx.Client) -> None:
    event = smallest("VEHICLE_CHARGE_STOPPED") | {"chargedTime": 1, "chargeTime": 1}
    assert message(client.post("/events", json=event)) == (
        "Parameter {chargeTime} is invalid. It is another name of chargedTime: only one of them "
        "may be given."
    )


# Event constraints 1 and 2 ----------------------------------------------------------------------


def test_an_event_must_refer_to_an_existing_charger(client: httpx.Client) -> None:
    create_vehicle(client)
    answer = client.post("/events", json=CONNECTED)
    assert (answer.status_code, message(answer)) == (
        409, "Parameter {chargerId} is invalid. It must refer to an existing charger.",
    )  # fmt: skip
    assert client.get("/events").json() == []


def test_an_event_must_refer_to_an_existing_vehicle(client: httpx.Client) -> None:
    create_charger(client)
    answer = client.post("/events", json=CONNECTED)
    assert (answer.status_code, message(answer)) == (
        409, "Parameter {vehicleId} is invalid. It must refer to an existing vehicle.",
    )  # fmt: skip


def test_a_vehicle_is_not_a_charger_though_it_has_the_id(client: httpx.Client) -> None:
    create_vehicle(client, "X")
    answer = client.post("/events", json=CONNECTED | {"chargerId": "X", "vehicleId": "X"})
    assert answer.status_code == 409
    assert "chargerId" in message(answer)


def test_ids_are_compared_letter_by_letter(client: httpx.Client) -> None:
    create_both(client)
    assert client.post("/events", json=CONNECTED | {"chargerId": "c1"}).status_code == 409


def test_the_refused_event_is_accepted_once_its_charger_exists(client: httpx.Client) -> None:
    create_vehicle(client)
    assert client.post("/events", json=CONNECTED).status_code == 409
    create_charger(client)
    assert client.post("/events", json=CONNECTED).status_code == 201
