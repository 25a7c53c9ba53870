"""All examples of the public reference work as printed."""

import json
import re
import subprocess
from typing import Any

import httpx
import pytest

from tests.api import reference_examples as reference
from tests.api.helpers import create_charger, create_vehicle
from tests.conftest import Server

HOST, KEY = "https://api.tetherev.io", "{your-api-key}"
ALIASES = {
    "minChargePower": "chargePowerMin",
    "maxChargePower": "chargePowerMax",
    "chargeTime": "chargedTime",
}


def curl(command: str) -> tuple[int, str]:
    """Runs the command in a shell; returns the status and the body of the answer."""
    command += " --silent --show-error --write-out '\\n%{http_code}'"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def as_printed(example: reference.Curl, server: Server, client: httpx.Client) -> tuple[int, str]:
    """Runs the reference's command with host and key replaced, and nothing else."""
    command = example.command.replace(HOST, server.url)
    return curl(command.replace(KEY, client.headers["x-api-key"]))


def parsed(text: str) -> dict[str, Any]:
    """An example as a strict parser reads it once its stray comma is gone."""
    value: dict[str, Any] = json.loads(re.sub(r",(\s*})", r"\1", text))
    return value


def in_output_names(example: dict[str, Any]) -> dict[str, Any]:
    return {ALIASES.get(name, name): value for name, value in example.items()}


@pytest.mark.parametrize(
    "examples", [reference.CHARGER_CURLS, reference.VEHICLE_CURLS], ids=["chargers", "vehicles"]
)
def test_every_curl_example_of_an_entity_works_as_printed_one_after_the_other(
    server: Server, client: httpx.Client, examples: list[reference.Curl]
) -> None:
    for example in examples:
        status, body = as_printed(example, server, client)
        assert status == example.status, body
        if example.body:
            assert json.loads(body) == json.loads(example.body)
            assert list(json.loads(body)) == list(json.loads(example.body))
        else:
            assert body == ""


def test_every_curl_example_of_an_event_works_as_printed_with_the_id_that_was_answered(
    server: Server, client: httpx.Client
) -> None:
    create_charger(client, "C1408")
    create_vehicle(client, "V0313")
    create, get = reference.EVENT_CURLS
    status, body = as_printed(create, server, client)
    assert (status, list(json.loads(body))) == (201, ["id"])
    event_id = json.loads(body)["id"]

    printed_id = json.loads(create.body)["id"]
    with_our_id = reference.Curl(get.command.replace(printed_id, event_id), get.status)
    status, body = as_printed(with_our_id, server, client)
    assert status == 200
    assert json.loads(body) == json.loads(get.body) | {"id": event_id}
    assert list(json.loads(body)) == list(json.loads(get.body))


@pytest.mark.parametrize("kind", ["chargers", "vehicles"])
@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", None])
def test_every_body_printed_for_put_is_accepted_whatever_its_type_and_answered_by_get(
    client: httpx.Client, kind: str, content_type: str | None
) -> None:
    bodies = reference.CHARGERS_PUT if kind == "chargers" else reference.VEHICLES_PUT
    headers = {"content-type": content_type} if content_type else {}
    for number, body in enumerate(bodies):
        entity_id = parsed(body).get("id", f"E{number}")
        answer = client.put(f"/{kind}/{entity_id}", content=body, headers=headers)
        assert (answer.status_code, answer.json()) == (201, {"id": entity_id})
        stored = client.get(f"/{kind}/{entity_id}").json()
        assert stored == in_output_names(parsed(body)) | {"id": entity_id}


@pytest.mark.parametrize("kind", ["chargers", "vehicles"])
def test_every_body_printed_for_patch_is_accepted_on_an_entity_that_it_suits(
    client: httpx.Client, kind: str
) -> None:
    bodies = reference.CHARGERS_PATCH if kind == "chargers" else reference.VEHICLES_PATCH
    for number, body in enumerate(bodies):
        is_range = "minChargePower" in body
        before: dict[str, Any] = (
            {"chargePowerMin": 5, "chargePowerMax": 40} if is_range else {"chargePowers": [3]}
        )
        before |= {"latitude": 1, "longitude": 2} if kind == "chargers" else {"chargeCapacity": 9}
        path = f"/{kind}/E{number}"
        assert client.put(path, json=before).status_code == 201
        answer = client.patch(path, content=body)
        assert (answer.status_code, answer.content) == (200, b"")
        assert client.get(path).json() == (
            before | in_output_names(parsed(body)) | {"id": f"E{number}"}
        )


@pytest.mark.parametrize("kind", ["chargers", "vehicles"])
def test_every_body_printed_for_get_can_be_put_and_comes_back_in_that_shape(
    client: httpx.Client, kind: str
) -> None:
    bodies = reference.CHARGERS_GET if kind == "chargers" else reference.VEHICLES_GET
    for body in bodies:
        path = f"/{kind}/{parsed(body)['id']}"
        assert client.put(path, content=body).status_code == 201
        answer = client.get(path)
        assert answer.json() == in_output_names(parsed(body))
        assert list(answer.json()) == list(in_output_names(parsed(body)))


@pytest.mark.parametrize("body", reference.EVENTS_POST, ids=lambda body: parsed(body)["type"])
def test_every_body_printed_for_an_event_type_is_accepted_and_answered_by_get(
    client: httpx.Client, body: str
) -> None:
    create_charger(client, "C1408")
    create_vehicle(client, "V0313")
    created = client.post("/events", content=body)
    assert created.status_code == 201
    stored = client.get(f"/events/{created.json()['id']}").json()
    assert stored == in_output_names(parsed(body)) | created.json()


def test_an_event_comes_back_with_the_members_in_the_order_of_the_reference(
    client: httpx.Client,
) -> None:
    create_charger(client, "C1408")
    create_vehicle(client, "V0313")
    printed = parsed(reference.EVENT_GET)
    event_id = client.post(
        "/events", json={name: value for name, value in printed.items() if name != "id"}
    ).json()["id"]
    assert list(client.get(f"/events/{event_id}").json()) == list(printed)
