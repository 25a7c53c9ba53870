"""`DELETE /events/{id}`, `/events/withdraw`, `/events/withdrawn`, and withdrawals in `/stream`."""

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import httpx
import pytest

from tests.api.helpers import (
    ON_ONE_ENGINE,
    create_both,
    create_event,
    create_vehicle,
    error,
    message,
    ndjson,
    refused_parameter,
)
from tests.conftest import Server
from tests.lists import pages
from tests.sse import streaming, up_to, without_age

NEVER = "0188ac4b-9dfa-7c3e-a51b-2f8e6d0b4c97"


@pytest.fixture
def site(client: httpx.Client) -> httpx.Client:
    """A partner with a charger and two vehicles."""
    create_both(client)
    create_vehicle(client, "V2")
    return client


def report(client: httpx.Client, count: int, **members: object) -> list[str]:
    return [
        create_event(client, timestamp=f"2026-01-05T{n // 60:02}:{n % 60:02}:00Z", **members)
        for n in range(count)
    ]


def withdraw(client: httpx.Client, *ids: object) -> Any:
    answer = client.post("/events/withdraw", json=ids)
    assert answer.status_code == 200, answer.text
    return answer.json()


def withdrawn(client: httpx.Client, **query: str) -> list[str]:
    found = pages(client, "/events/withdrawn", limit=2, **query)
    return [entry["id"] for page in found for entry in page]


def test_an_event_is_gone_and_may_be_sent_corrected(site: httpx.Client) -> None:
    body = {
        "type": "VEHICLE_CHARGE_STOPPED",
        "chargerId": "C1",
        "vehicleId": "V1",
        "timestamp": "2026-01-05T08:00:00Z",
    }
    first = site.post("/events", json={**body, "chargedEnergy": 256}).json()["id"]
    assert site.post("/events", json={**body, "chargedEnergy": 25.6}).status_code == 409
    assert site.get("/sessions").json()[0]["chargedEnergy"] == 256
    answer = site.delete(f"/events/{first}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert site.delete(f"/events/{first.upper()}").status_code == 204
    assert site.get(f"/events/{first}").status_code == 404
    assert site.get("/events").json() == []
    assert site.get("/events?vehicleId=V1").json() == site.get("/events?chargerId=C1").json() == []
    (removed,) = site.get("/sessions?updatedFrom=2020-01-01T00:00:00Z").json()
    assert removed["status"] == "removed"
    assert site.get(f"/sessions/{removed['id']}").status_code == 404
    assert site.get("/vehicles/V1/state").json()["pluggedIn"] is False
    assert "lastEvent" not in site.get("/chargers/C1/state").json()

    second = site.post("/events", json={**body, "chargedEnergy": 256}).json()["id"]
    assert second != first
    assert site.delete(f"/events/{first}").status_code == 204  # that event was withdrawn
    assert [event["id"] for event in site.get("/events").json()] == [second]
    site.delete(f"/events/{second}")
    third = site.post("/events", json={**body, "chargedEnergy": 25.6}).json()["id"]
    assert [one["chargedEnergy"] for one in site.get("/sessions").json()] == [25.6]
    assert site.get("/vehicles/V1/state").json()["lastEvent"]["id"] == third
    assert withdrawn(site) == [first, second]


@ON_ONE_ENGINE
def test_what_the_partner_never_had_is_404(server: Server, site: httpx.Client) -> None:
    (event,) = report(site, 1)
    with server.client() as stranger:
        for id in (event, NEVER, "x", "bulk"):
            answer = stranger.delete(f"/events/{id}")
            assert answer.status_code in (404, 405)
        assert [one["status"] for one in withdraw(stranger, event, NEVER, "x")] == [404] * 3
        assert withdrawn(stranger) == []
    assert site.get(f"/events/{event}").status_code == 200
    with server.client(server.key(read_only=True)) as reader:
        assert reader.delete(f"/events/{event}").status_code == 403
        assert reader.post("/events/withdraw", json=[event]).status_code == 403
        assert reader.get("/events/withdrawn").json() == []


def test_many_at_once(site: httpx.Client) -> None:
    events = report(site, 6)
    found = withdraw(site, events[0], events[3], events[0], NEVER, 7, {"id": events[1]}, "")
    assert [one["status"] for one in found] == [204, 204, 204, 404, 400, 400, 404]
    assert [one.get("id") for one in found[:3]] == [events[0], events[3], events[0]]
    assert found[3] == {"status": 404, "message": "Not Found", "code": "not-found"}
    assert found[4]["message"] == "The id of an event must be a JSON string."
    lines = "\n".join(map(json.dumps, events[3:5])) + "\nnonsense\n"
    answer = site.post("/events/withdraw", content=lines)
    assert [one["status"] for one in answer.json()] == [204, 204, 400]
    left = [event["id"] for event in site.get("/events").json()]
    assert left == [events[1], events[2], events[5]]
    assert withdrawn(site) == [events[0], events[3], events[4]]
    for body in ("", "[]", "[1", '["a" "b"]'):
        answer = site.post("/events/withdraw", content=body)
        assert answer.status_code == 400, body
        message(answer)
    answer = site.post("/events/withdraw", json=[NEVER] * 10_001)
    assert error(answer).code == "too-large"
    assert message(answer) == "Payload Too Large: a body has at most 10,000 event ids."


def test_the_list_is_in_order_and_goes_on(site: httpx.Client) -> None:
    events = [*report(site, 4), *report(site, 2, vehicleId="V2")]
    assert site.get("/events/withdrawn").json() == []
    behind = site.get("/events").links["next"]["url"]
    order = [events[4], events[1], events[0], events[5], events[2]]
    for event in order:
        assert site.delete(f"/events/{event}").status_code == 204
    assert withdrawn(site) == order
    assert withdrawn(site, order="desc") == order[::-1]
    assert withdrawn(site, vehicleId="V2") == [events[4], events[5]]
    assert withdrawn(site, type="VEHICLE_DISCONNECTED", chargerId="C1") == []
    (first,) = site.get("/events/withdrawn?limit=1").json()
    assert list(first) == ["id", "type", "chargerId", "vehicleId", "timestamp", "withdrawnAt"]
    assert first["timestamp"] == "2026-01-05T00:00:00.000Z"
    # Cursors of events also lead to later withdrawals, and cursors of withdrawals to later events.
    cursor = httpx.URL(behind).params["cursor"]
    assert withdrawn(site, cursor=cursor) == order
    last = site.get("/events/withdrawn").links["next"]["url"]
    assert site.get(last).json() == site.get(behind).json() == []
    new = create_event(site, timestamp="2026-01-06T00:00:00Z")
    assert [event["id"] for event in site.get(behind).json()] == [new]
    assert site.delete(f"/events/{new}").status_code == 204
    assert [entry["id"] for entry in site.get(last).json()] == [new]
    assert refused_parameter(site.get("/events/withdrawn?cursor=x")) == "cursor"
    assert refused_parameter(site.get("/events/withdrawn?from=2026-01-01T00:00:00Z")) == "from"


def test_an_id_is_a_place_also_when_it_is_taken_back(site: httpx.Client) -> None:
    events = report(site, 5)
    withdraw(site, events[1], events[2])

    def ids_behind(path: str, id: str, **query: str) -> list[str]:
        return [one["id"] for one in site.get(path, params={"cursor": id, **query}).json()]

    assert ids_behind("/events", events[0]) == ids_behind("/events", events[2]) == events[3:]
    assert ids_behind("/events", events[2], order="desc") == [events[0]]
    assert ids_behind("/events/withdrawn", events[1]) == [events[2]]
    for path, id in (("/events", NEVER), ("/events/withdrawn", events[0])):
        answer = site.get(path, params={"cursor": id})
        assert refused_parameter(answer) == "cursor"


def test_the_stream_tells_of_it_with_the_state_that_follows(site: httpx.Client) -> None:
    first, second = report(site, 2)
    site.get("/vehicles?include=state")  # waits until all is derived
    with streaming(site) as found:
        next(found)
        assert site.delete(f"/events/{second}").status_code == 204
        told, state = next(found), next(found)
    assert (told.name, told.data) == ("withdrawal", site.get("/events/withdrawn").json()[0])
    assert (state.name, state.data["lastEvent"]["id"]) == ("state", first)


def test_cut_anywhere_the_stream_goes_on(site: httpx.Client) -> None:
    events = [*report(site, 3), *report(site, 3, vehicleId="V2")]
    site.get("/vehicles?include=state")  # waits until all is derived
    withdraw(site, events[0], events[4])
    report(site, 1)
    withdraw(site, events[1])
    state = {id: without_age(site.get(f"/vehicles/{id}/state").json()) for id in ("V1", "V2")}
    with streaming(site) as found:
        end = next(found).id
    with streaming(site, cursor="start") as found:
        whole = up_to(found, end)
    told = [(one.name, one.data["id"]) for one in whole if one.name != "state"]
    new = told[5][1]
    assert told == [
        *(("event", id) for id in (events[2], events[3], events[5])),
        ("withdrawal", events[0]), ("withdrawal", events[4]), ("event", new),
        ("withdrawal", events[1]),
    ]  # fmt: skip
    for cut in range(1, len(whole) + 1):
        with streaming(site, last_id=whole[cut - 1].id) as found:
            if whole[cut - 1].id == end:
                continue
            rest = up_to(found, end)
        both = [*whole[:cut], *rest]
        assert [(one.name, one.data["id"]) for one in both if one.name != "state"] == told
        states = {one.data["vehicleId"]: one.data for one in both if one.name == "state"}
        assert {id: without_age(one) for id, one in states.items()} == state
    with streaming(site, cursor="start", vehicleId="V2") as found:
        shown = (one for one in found if one.name in ("event", "withdrawal"))
        of_v2 = [(one.name, one.data["id"]) for one in islice(shown, 3)]
    assert of_v2 == [one for one in told if one[1] in events[3:]]


def test_many_are_reported_and_withdrawn_by_several_requests(site: httpx.Client) -> None:
    def withdraw_unknown(batch: int) -> set[int]:
        ids = [f"01a22753-7248-73d1-8737-{batch:02x}{number:010x}" for number in range(2_000)]
        return {item["status"] for item in withdraw(site, *ids)}

    def report_many(batch: int) -> set[int]:
        lines = ndjson([
            {"type": "VEHICLE_CONNECTED", "chargerId": "C1", "vehicleId": "V1",
             "timestamp": f"2026-01-{1 + batch:02}T{n // 60:02}:{n % 60:02}:00Z"}
            for n in range(1_000)
        ])  # fmt: skip
        return {item["status"] for item in site.post("/events/bulk", content=lines).json()}

    with ThreadPoolExecutor(8) as threads:
        gone, new = threads.map(withdraw_unknown, range(20)), threads.map(report_many, range(6))
        assert [*gone, *new] == [{404}] * 20 + [{201}] * 6
    create_event(site)
