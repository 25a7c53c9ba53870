"""A partner cannot read, list, change, refer to or detect another partner's data."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from tests.api.helpers import (
    CHARGER,
    CONNECTED,
    VEHICLE,
    create_both,
    create_charger,
    create_event,
    create_vehicle,
    without_volatile,
)
from tests.conftest import Server


class Parties(NamedTuple):
    """Two partners, and the id of an event of the first."""

    owner: httpx.Client
    stranger: httpx.Client
    event_id: str


@pytest.fixture
def parties(server: Server) -> Iterator[Parties]:
    with server.client() as owner, server.client() as stranger:
        create_both(owner)
        yield Parties(owner, stranger, create_event(owner))


def everything(client: httpx.Client) -> list[str]:
    return [client.get(path).text for path in ("/chargers", "/vehicles", "/events")]


def shape(answer: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    """All that a client can see of an answer, without values that are new in every answer."""
    return answer.status_code, answer.content, without_volatile(answer.headers)


NOBODY = "0188ac4b-9dfa-7c3e-a51b-2f8e6d0b4c97"
PATCH_BODY: dict[str, Any] = {"chargePowers": [1]}
ATTEMPTS: list[tuple[str, str, str, dict[str, Any] | None, dict[str, str]]] = [
    # Method, path of the owner's, the same for something that nobody has, body, headers.
    *((method, f"/{kind}/{mine}", f"/{kind}/nobody", body, headers)
      for kind, mine in (("chargers", "C1"), ("vehicles", "V1"))
      for method, body, headers in (
          ("GET", None, {}),
          ("HEAD", None, {}),
          ("GET", None, {"If-None-Match": "*"}),
          ("GET", None, {"If-None-Match": '"1"'}),
          ("PATCH", PATCH_BODY, {}),
          ("PATCH", PATCH_BODY, {"If-Match": '"1"'}),
          ("PATCH", PATCH_BODY, {"If-Match": "*"}),
          ("PUT", VEHICLE if kind == "vehicles" else CHARGER, {"If-Match": '"1"'}),
          ("PUT", VEHICLE if kind == "vehicles" else CHARGER, {"If-Match": "*"}),
          ("DELETE", None, {}),
          ("OPTIONS", None, {}),
      )),
    ("GET", "/events/{event}", f"/events/{NOBODY}", None, {}),
    ("HEAD", "/events/{event}", f"/events/{NOBODY}", None, {}),
    ("GET", "/events?chargerId=C1", "/events?chargerId=nobody", None, {}),
    ("GET", "/events?vehicleId=V1&order=desc", "/events?vehicleId=nobody&order=desc", None, {}),
]  # fmt: skip


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_what_another_partner_has_answers_exactly_like_what_does_not_exist(
    parties: Parties, attempt: tuple[str, str, str, dict[str, Any] | None, dict[str, str]]
) -> None:
    method, theirs, nobodys, body, headers = attempt
    before = everything(parties.owner)
    theirs = theirs.format(event=parties.event_id)
    found = parties.stranger.request(method, theirs, json=body, headers=headers)
    missing = parties.stranger.request(method, nobodys, json=body, headers=headers)
    assert shape(found) == shape(missing)
    assert everything(parties.owner) == before
    assert everything(parties.stranger) == ["[]", "[]", "[]"]


def test_the_same_id_is_another_thing_for_another_partner(parties: Parties) -> None:
    owner, stranger, _ = parties
    before = everything(owner)
    created = stranger.put("/chargers/C1", json={"chargePowers": [1]})
    assert created.status_code == 201
    assert created.headers["etag"] == owner.get("/chargers/C1").headers["etag"]  # its first, too
    assert stranger.put("/chargers/C1", json={"chargePowers": [2]}).status_code == 200
    assert stranger.patch("/chargers/C1", json={"chargePowers": [3]}).status_code == 200
    create = stranger.put("/vehicles/V1", json=VEHICLE, headers={"If-None-Match": "*"})
    assert create.status_code == 201
    assert everything(owner) == before
    assert stranger.get("/chargers/C1").json()["chargePowers"] == [3]


def test_an_event_cannot_refer_to_what_another_partner_has(parties: Parties) -> None:
    stranger = parties.stranger
    foreign = stranger.post("/events", json=CONNECTED)
    missing = stranger.post("/events", json=CONNECTED | {"chargerId": "nobody"})
    assert shape(foreign) == shape(missing)
    assert foreign.status_code == 409
    create_charger(stranger, "mine")
    foreign = stranger.post("/events", json=CONNECTED | {"chargerId": "mine"})
    missing = stranger.post(
        "/events", json=CONNECTED | {"chargerId": "mine", "vehicleId": "nobody"}
    )
    assert shape(foreign) == shape(missing)
    assert foreign.status_code == 409


def test_the_same_event_of_another_partner_is_another_event(parties: Parties) -> None:
    owner, stranger, event_id = parties
    create_both(stranger)
    assert create_event(stranger) != event_id
    # With other values it would be a conflict, were it the same event.
    create_both_of_third = stranger.post(
        "/events", json=CONNECTED | {"type": "VEHICLE_DISCONNECTED", "stateOfCharge": 1}
    )
    assert create_both_of_third.status_code == 201
    assert create_event(owner, type="VEHICLE_DISCONNECTED", stateOfCharge=2)


def test_a_cursor_of_another_partner_shows_ones_own_things_only(parties: Parties) -> None:
    owner, stranger, _ = parties
    for number in range(5):
        create_charger(owner, f"D{number}")
        create_event(owner, timestamp=f"2023-05-12T00:00:0{number}Z")
    create_both(stranger)
    create_vehicle(stranger, "V2")
    mine = create_event(stranger, vehicleId="V2")
    for path in ("/chargers?limit=1", "/vehicles?limit=1", "/events?limit=1&order=desc"):
        query = owner.get(path).links.get("next", {}).get("url", path).partition("?")[2]
        answer = stranger.get(f"{path.partition('?')[0]}?{query}")
        assert answer.status_code == 200
        own = [{"C1"}, {"V1", "V2"}, {mine}]
        assert {entry["id"] for entry in answer.json()} <= set().union(*own)


def test_nothing_that_is_served_without_a_key_tells_of_partners_or_ids(
    parties: Parties, server: Server
) -> None:
    secret_id = "a-very-secret-charger"
    create_charger(parties.owner, secret_id)
    parties.owner.get(f"/nowhere/{secret_id}")
    for path in ("/", "/health", "/ready", "/metrics", "/openapi.json", "/docs"):
        text = httpx.get(server.url + path, verify=False).text
        assert secret_id not in text
        assert "partner " not in text or path != "/metrics"
        assert parties.owner.headers["x-api-key"][:17] not in text
