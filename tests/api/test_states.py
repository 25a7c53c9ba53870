"""Live state over HTTP: the newest values in any order of arrival, and their age."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice, permutations
from typing import Any

import httpx
import pytest

from tests.api.helpers import (
    create_both,
    create_charger,
    create_event,
    create_vehicle,
    message,
    refused_parameter,
)
from tests.conftest import Server
from tests.lists import pages

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def stamp(minute: float) -> str:
    """So many minutes after noon, as answers show it."""
    moment = NOON + timedelta(minutes=minute)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def report(client: httpx.Client, kind: str, minute: float, **members: object) -> str:
    """An event of V1 at C1 so many minutes after noon; its id."""
    return create_event(client, type=f"VEHICLE_{kind}", timestamp=stamp(minute), **members)


def exact(answer: httpx.Response) -> Any:
    """The body; numbers are Decimals."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return json.loads(answer.text, parse_float=Decimal, parse_int=Decimal)


def vehicle_state(client: httpx.Client, vehicle: str = "V1") -> dict[str, Any]:
    found: dict[str, Any] = exact(client.get(f"/vehicles/{vehicle}/state"))
    return found


def charger_state(client: httpx.Client, charger: str = "C1") -> dict[str, Any]:
    found: dict[str, Any] = exact(client.get(f"/chargers/{charger}/state"))
    return found


def lasting(state: Any) -> Any:
    """The state without what depends on the moment at which it was read."""
    if isinstance(state, list):
        return [lasting(one) for one in state]
    if isinstance(state, dict):
        return {
            name: lasting(value)
            for name, value in state.items()
            if name != "asOf" and not name.endswith("Age")
        }
    return state


def test_of_what_nothing_was_reported_nothing_is_known(client: httpx.Client) -> None:
    create_both(client)
    vehicle = {"vehicleId": "V1", "pluggedIn": False, "charging": False}
    assert lasting(vehicle_state(client)) == vehicle
    charger = {"chargerId": "C1", "occupied": False, "charging": False, "vehicles": []}
    assert lasting(charger_state(client)) == charger


@pytest.mark.parametrize("path", ["/vehicles/V9/state", "/chargers/C9/state",
                                  "/vehicles/C1/state", "/chargers/../state", "/vehicles//state",
                                  "/vehicles/a%2Fb/state", "/vehicles/V1/states"])  # fmt: skip
def test_what_there_is_not_is_404(client: httpx.Client, path: str) -> None:
    create_both(client)
    answer = client.get(path)
    assert (answer.status_code, message(answer).partition(".")[0]) == (404, "Not Found")


def test_states_can_only_be_read(client: httpx.Client) -> None:
    create_both(client)
    assert client.head("/vehicles/V1/state").status_code == 200
    for method in ("PUT", "POST", "PATCH", "DELETE"):
        answer = client.request(method, "/vehicles/V1/state", json={})
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS"


def test_another_partner_sees_nothing(server: Server, client: httpx.Client) -> None:
    create_both(client)
    report(client, "CONNECTED", 0, stateOfCharge=20)
    with server.client() as other:
        assert other.get("/vehicles/V1/state").status_code == 404
        assert other.get("/chargers/C1/state").status_code == 404
        create_both(other)
        assert lasting(vehicle_state(other))["pluggedIn"] is False
        assert lasting(charger_state(other))["vehicles"] == []
        (listed,) = exact(other.get("/chargers?include=state"))
        assert listed["state"]["occupied"] is False


def test_whoever_has_the_201_sees_the_event_everywhere(client: httpx.Client) -> None:
    create_both(client)
    for minute in range(0, 40, 4):
        for step, (kind, members) in enumerate((
            ("CONNECTED", {}),
            ("CHARGE_STARTED", {"chargePower": 11}),
            ("CHARGE_UPDATED", {"stateOfCharge": minute + 20}),
            ("DISCONNECTED", {}),
        )):  # fmt: skip
            event = report(client, kind, minute + step, **members)
            state = vehicle_state(client)
            assert state["lastEvent"]["id"] == event
            assert state["pluggedIn"] is (kind != "DISCONNECTED")
            assert charger_state(client)["lastEvent"]["id"] == event
            (listed,) = exact(client.get("/vehicles?include=state"))
            assert lasting(listed["state"]) == lasting(state)
    assert len(client.get("/sessions").json()) == 10


def test_an_older_event_overwrites_nothing_and_fills_in_what_it_is_the_newest_source_for(
    client: httpx.Client,
) -> None:
    create_both(client)
    create_charger(client, "C2")
    newest = report(client, "CHARGE_UPDATED", 30, stateOfCharge=60)
    state = vehicle_state(client)
    assert (state["stateOfCharge"], state["pluggedInSince"]) == (60, stamp(30))
    assert "chargePower" not in state

    report(client, "CHARGE_STARTED", 10, stateOfCharge=41, chargePower=7.4)
    state = vehicle_state(client)
    assert (state["stateOfCharge"], state["stateOfChargeAt"]) == (60, stamp(30))
    assert (state["chargePower"], state["chargePowerAt"]) == (Decimal("7.4"), stamp(10))
    assert (state["chargingSince"], state["pluggedInSince"]) == (stamp(10), stamp(10))

    report(client, "CONNECTED", 5, stateOfCharge=40)
    report(client, "CONNECTED", 0, chargerId="C2", stateOfCharge=39)
    state = vehicle_state(client)
    assert (state["chargerId"], state["pluggedInSince"]) == ("C1", stamp(5))
    assert state["lastEvent"]["id"] == newest
    assert charger_state(client, "C2")["vehicles"] == []
    assert lasting(charger_state(client)["vehicles"]) == [lasting(state)]


def test_every_order_of_arrival_leads_to_the_same_state(server: Server) -> None:
    stream: list[tuple[str, float, dict[str, object]]] = [
        ("CONNECTED", 0, {"stateOfCharge": 20}),
        ("CHARGE_STARTED", 1, {"chargePower": 11}),
        ("CHARGE_STOPPED", 20, {"chargedEnergy": 3}),
        ("CONNECTED", 25, {"chargerId": "C2"}),
    ]
    found = []
    for order in islice(permutations(stream), 0, None, 3):
        with server.client() as client:
            create_both(client)
            create_charger(client, "C2")
            for kind, minute, members in order:
                report(client, kind, minute, **members)
                vehicle_state(client)  # so that it is derived before the next one arrives
            states = [vehicle_state(client), charger_state(client), charger_state(client, "C2")]
        text = json.dumps(lasting(states), default=str)
        for event in {states[0]["lastEvent"]["id"], states[1]["lastEvent"]["id"]}:
            text = text.replace(event, "id")
        found.append(text)
    assert len(set(found)) == 1


def test_each_value_says_how_old_it_is(client: httpx.Client) -> None:
    create_both(client)
    report(client, "CONNECTED", 0, stateOfCharge=20)
    report(client, "CHARGE_STARTED", 1.5, chargePower=-7)
    state = vehicle_state(client)
    now = datetime.fromisoformat(state["asOf"])
    assert abs(now - datetime.now(UTC)) < timedelta(minutes=1)
    for value in ("stateOfCharge", "chargePower"):
        measured = datetime.fromisoformat(state[f"{value}At"])
        assert state[f"{value}Age"] == Decimal((now - measured) // timedelta(milliseconds=1)) / 1000
    assert state["lastEventAge"] == state["chargePowerAge"]
    charger = charger_state(client)
    assert (charger["chargePower"], charger["charging"]) == (-7, True)
    assert charger["vehicles"][0]["asOf"] == charger["asOf"] >= state["asOf"]


def test_what_a_clock_that_is_ahead_has_stamped_is_of_age_0(client: httpx.Client) -> None:
    create_both(client)
    ahead = (datetime.now(UTC) + timedelta(hours=20)).isoformat()
    create_event(client, stateOfCharge=20, timestamp=ahead)
    state = vehicle_state(client)
    assert (state["stateOfChargeAge"], state["lastEventAge"]) == (0, 0)


def test_a_charger_shows_every_vehicle_at_it(client: httpx.Client) -> None:
    create_both(client)
    for number in (2, 3):
        create_vehicle(client, f"V{number}")
    report(client, "CONNECTED", 2)
    report(client, "CONNECTED", 1, vehicleId="V3")
    report(client, "CHARGE_STARTED", 3, vehicleId="V3", chargePower=7.4)
    report(client, "CHARGE_STARTED", 4, chargePower=11)
    report(client, "CONNECTED", 0, vehicleId="V2")
    state = charger_state(client)
    assert [there["vehicleId"] for there in state["vehicles"]] == ["V2", "V3", "V1"]
    assert (state["chargePower"], state["charging"]) == (Decimal("18.4"), True)
    assert state["lastEvent"]["timestamp"] == stamp(4)


# Lists ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["chargers", "vehicles"])
def test_lists_with_states_are_the_lists_and_the_states(client: httpx.Client, kind: str) -> None:
    for number in range(7):
        create_charger(client, f"C{number}")
        create_vehicle(client, f"V{number}")
    for number in (1, 3, 4):
        report(client, "CONNECTED", number, chargerId=f"C{number}", vehicleId=f"V{6 - number}")
    plain = client.get(f"/{kind}").json()
    for limit in (1, 3, 7, 100):
        found = [one for page in pages(client, f"/{kind}", include="state", limit=limit)
                 for one in page]  # fmt: skip
        assert all(list(one)[-1] == "state" for one in found)
        states = [one.pop("state") for one in found]
        assert found == plain
        for one, state in zip(found, states, strict=True):
            alone = json.loads(client.get(f"/{kind}/{one['id']}/state").text)
            assert lasting(state) == lasting(alone)


def test_nothing_else_can_be_included(client: httpx.Client) -> None:
    for query in (
        "include=",
        "include=events",
        "include=state,state",
        "include=state&include=state",
    ):
        for path in ("/chargers", "/vehicles"):
            assert refused_parameter(client.get(f"{path}?{query}")) == "include"
    assert refused_parameter(client.get("/events?include=state")) == "include"
    assert client.get("/chargers?include=state").json() == []


def test_a_state_and_a_session_have_one_parameter(client: httpx.Client) -> None:
    create_both(client)
    report(client, "CONNECTED", 0)
    (session,) = client.get("/sessions").json()
    for path in ("/chargers/C1/state", "/vehicles/V1/state", f"/sessions/{session['id']}"):
        assert client.get(f"{path}?stale=allowed").status_code == 200
        for query, name in (("stael=allowed", "stael"), ("stale=allowed&stale=x", "stale")):
            assert refused_parameter(client.get(f"{path}?{query}")) == name


def test_what_is_newest_at_a_charger_is_an_event_there_also_when_streams_are_dirty(
    client: httpx.Client,
) -> None:
    create_both(client)
    create_charger(client, "C2")
    report(client, "CONNECTED", 0)
    report(client, "DISCONNECTED", 1)
    connected = report(client, "CONNECTED", 2, chargerId="C2")
    late = report(client, "CHARGE_UPDATED", 3, stateOfCharge=40)  # of the charger that it has left
    state = charger_state(client, "C2")
    assert state["lastEvent"]["id"] == connected
    assert [there["lastEvent"]["id"] for there in state["vehicles"]] == [late]
    report(client, "DISCONNECTED", 4)
    left = report(client, "DISCONNECTED", 5, chargerId="C2")
    assert charger_state(client, "C2")["lastEvent"]["id"] == left
