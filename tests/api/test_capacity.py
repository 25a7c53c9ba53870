"""`GET /capacity` (an addition to the reference): docs/capacity.md has the rules."""

import json
import random
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from tests.api.helpers import (
    CHARGER,
    create_both,
    create_charger,
    create_event,
    create_vehicle,
    message,
    openapi_document,
    refused_parameter,
)
from tests.conftest import Server
from tests.lists import pages
from tests.store.test_capacity import CHARGERS, VEHICLES, dirty_stream
from tether.domain.models import to_json
from tether.domain.timestamps import format_instant, parse_instant
from tether.domain.views import Capacity, UnknownCapacity
from tether.http.handlers.capacity import LIST_PARAMETERS, NDJSON

DOCUMENT = (Path(__file__).parents[2] / "docs" / "capacity.md").read_text()
API = openapi_document()
POWERS = (
    "chargePower",
    "chargePowerAvailable",
    "dischargePower",
    "dischargePowerAvailable",
    "energyStored",
    "energyRoom",
)


def read(client: httpx.Client, **query: Any) -> Any:
    """The answer with exact numbers."""
    answer = client.get("/capacity", params=query)
    assert answer.status_code == 200, answer.text
    return json.loads(answer.text, parse_float=Decimal, parse_int=Decimal)


def without_moment(capacity: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in capacity.items() if name != "asOf"}


# The document -----------------------------------------------------------------------------------


def load_example(client: httpx.Client) -> None:
    """Stores the chargers, vehicles and events of the worked example."""
    blocks = dict(re.findall(r"^```ndjson (\w+)\n(.*?)^```$", DOCUMENT, re.DOTALL | re.M))
    for kind in ("chargers", "vehicles"):
        for line in blocks[kind].splitlines():
            target = f"/{kind}/{json.loads(line)['id']}"
            assert client.put(target, content=line).status_code == 201
    done = client.post("/events/bulk", content=blocks["events"])
    assert {item["status"] for item in done.json()} == {201}


def test_the_document_s_example_is_computed_as_it_says(client: httpx.Client) -> None:
    load_example(client)
    calls = re.findall(
        r"^```http\nGET (\S+)\n```\n\n```json\n(.*?)^```$", DOCUMENT, re.DOTALL | re.M
    )
    assert len(calls) == 4
    for target, printed in calls:
        answer = client.get(target)
        assert json.dumps(answer.json(), indent=2) == printed.rstrip("\n")
    now = read(client)
    assert without_moment(now) == without_moment(read(client, at="2026-01-05T08:30:00Z"))
    sums = re.search(r"^\| \*\*sum\*\* \|(.*)\|", DOCUMENT, re.M)
    assert sums is not None
    assert re.findall(r"[\d.]+", sums[1]) == [str(now[name]) for name in POWERS]


@pytest.mark.parametrize("struct", [Capacity, UnknownCapacity])
def test_the_schema_has_the_members_of_the_struct(struct: type[msgspec.Struct]) -> None:
    schema = API["components"]["schemas"][struct.__name__]
    fields = msgspec.structs.fields(struct)
    assert list(schema["properties"]) == [field.encode_name for field in fields]
    assert schema["required"] == [field.encode_name for field in fields if field.required]
    table = re.findall(r"^\| `(\w+)` \|", DOCUMENT, re.M)
    assert {field.encode_name for field in fields} - {"chargerId", "area"} <= set(table)


def test_the_parameters_are_those_of_the_api_s_document() -> None:
    listed = [
        one["$ref"].rpartition("/")[2] for one in API["paths"]["/capacity"]["get"]["parameters"]
    ]
    parameters = [API["components"]["parameters"][name] for name in listed]
    assert tuple(one["name"] for one in parameters) == LIST_PARAMETERS


# Moments ----------------------------------------------------------------------------------------


def furnish(client: httpx.Client) -> None:
    for kind, entities in (("chargers", CHARGERS), ("vehicles", VEHICLES)):
        for entity in entities.values():
            answer = client.put(f"/{kind}/{entity.id}", content=to_json(entity))
            assert answer.status_code == 201


def test_past_moments_say_what_was_said_of_them_when_they_were_now(client: httpx.Client) -> None:
    furnish(client)
    events = list(dirty_stream(random.Random(11), 500))
    said: dict[str, Any] = {}
    for start in range(0, len(events), 50):
        part = events[start : start + 50]
        done = client.post("/events/bulk", content=b"\n".join(map(to_json, part)))
        assert {item["status"] for item in done.json()} <= {201, 409}
        later = events[start + 50 : start + 51]
        if later and later[0].at_ms == part[-1].at_ms:
            continue
        moment = format_instant(part[-1].at_ms)
        said[moment] = read(client), read(client, by="charger")
    assert len(said) > 5
    for moment, (total, by_charger) in said.items():
        assert read(client, at=moment) == {**total, "asOf": moment}
        assert read(client, at=moment, by="charger") == [
            {**one, "asOf": moment} for one in by_charger
        ]
    first, last = min(said), max(said)
    step = (parse_instant(last) - parse_instant(first)) // 15_000
    series = read(client, **{"from": first}, to=last, step=step)
    assert len(series) == 16
    assert series == [read(client, at=one["asOf"]) for one in series]
    assert len({json.dumps(without_moment(one), default=str) for one in series}) > 10
    area: dict[str, Any] = {"bbox": "-4,2,0,90", "from": first, "to": last, "step": step}
    assert read(client, **area) == [
        read(client, at=one["asOf"], bbox="-4,2,0,90") for one in series
    ]


def test_an_event_is_in_the_figures_as_soon_as_it_is_answered(client: httpx.Client) -> None:
    create_both(client)
    assert read(client)["vehiclesPluggedIn"] == 0
    create_event(client)
    assert read(client)["vehiclesPluggedIn"] == 1
    assert read(client, at=read(client)["asOf"])["vehiclesPluggedIn"] == 1
    create_event(client, type="VEHICLE_DISCONNECTED", timestamp="2023-05-11T23:06:40.738Z")
    assert read(client)["chargersOccupied"] == 0
    assert read(client, at="2023-05-11T23:06:40.737Z")["vehiclesPluggedIn"] == 1
    assert read(client, at="2023-05-11T23:06:40.738Z")["vehiclesPluggedIn"] == 0


def test_a_state_of_charge_from_before_is_not_known_any_more(client: httpx.Client) -> None:
    create_both(client)
    create_event(client, stateOfCharge=50)
    create_event(client, type="VEHICLE_DISCONNECTED", timestamp="2023-05-11T23:06:40.738Z")
    create_event(client, timestamp="2023-05-12T23:06:40.738Z")
    assert read(client)["unknown"]["stateOfCharge"] == 1
    assert read(client, at="2023-05-13T00:00:00Z")["unknown"]["stateOfCharge"] == 1
    assert read(client, at="2023-05-11T23:00:00Z")["energyStored"] == Decimal("37.4")


def test_only_powers_of_a_charge_are_its_power(client: httpx.Client) -> None:
    """A late stop shows that a charge was running; earlier updates do not belong to it."""
    create_both(client)
    for kind, minute, members in (
        ("CONNECTED", 0, {}),
        ("CHARGE_STARTED", 5, {"chargePower": 22}),
        ("CHARGE_STOPPED", 30, {}),
        ("CHARGE_UPDATED", 31, {"stateOfCharge": 50, "chargePower": 11}),
        ("CHARGE_UPDATED", 33, {"stateOfCharge": 51}),
        ("CHARGE_STOPPED", 50, {"chargedTime": 1199}),
    ):
        when = f"2026-01-05T08:{minute:02}:00.000Z"
        create_event(client, type=f"VEHICLE_{kind}", timestamp=when, **members)
    for minute, power, unknown in ((29, 22, 0), (31, 0, 1), (32, 0, 1), (40, 0, 1), (50, 0, 0)):
        one = read(client, at=f"2026-01-05T08:{minute}:00Z")
        assert (one["chargePower"], one["unknown"]["chargePower"]) == (power, unknown), minute
    window = {"from": "2026-01-05T08:00:00Z", "to": "2026-01-05T09:00:00Z", "step": 60}
    series = read(client, **window)
    assert series == [read(client, at=one["asOf"]) for one in series]


# Selections -------------------------------------------------------------------------------------


def test_by_charger_comes_in_pages_that_add_up(client: httpx.Client) -> None:
    for number in range(1, 8):
        create_charger(client, f"C{number}")
        create_vehicle(client, f"V{number}")
    for number in (1, 2, 4, 5, 6):
        ids = {"chargerId": f"C{number}", "vehicleId": f"V{number}"}
        create_event(client, **ids, stateOfCharge=10 * number)
    create_event(client, chargerId="C5", vehicleId="V7", stateOfCharge=100)
    expected = ["C1", "C2", "C4", "C5", "C6"]
    for at in ({}, {"at": "2023-05-12T00:00:00Z"}):
        total = read(client, **at)
        for limit in (1, 2, 4, 5, 6, 1000):
            found = list(pages(client, "/capacity", by="charger", limit=limit, **at))
            assert [one["chargerId"] for page in found for one in page] == expected
            assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
            assert found[-1]
        listed = read(client, by="charger", **at)
        for name in (*POWERS, "vehiclesPluggedIn", "chargersOccupied"):
            assert sum(one[name] for one in listed) == total[name]
        assert [one["vehiclesPluggedIn"] for one in listed] == [1, 1, 1, 2, 1]
        assert [read(client, chargerId=id, **at)["energyStored"] for id in expected] == [
            one["energyStored"] for one in listed
        ]


TEN_THOUSAND: dict[str, Any] = {
    "from": "2026-01-05T08:00:00Z",
    "to": "2026-01-05T10:46:40Z",
    "step": 1,
}


def lines(client: httpx.Client, **query: Any) -> list[dict[str, Any]]:
    """The objects of an answer as NDJSON."""
    answer = client.get("/capacity", params=query, headers={"Accept": NDJSON})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == NDJSON
    assert not answer.text or answer.text.endswith("\n")
    return [
        json.loads(line, parse_float=Decimal, parse_int=Decimal)
        for line in answer.text.splitlines()
    ]


def test_series_by_charger_and_area_are_what_each_moment_says(client: httpx.Client) -> None:
    load_example(client)
    window: dict[str, Any] = {
        "from": "2026-01-05T07:55:00Z",
        "to": "2026-01-05T09:00:00Z",
        "step": 420,
    }
    moments = [one["asOf"] for one in read(client, **window)]
    for by, order in (("charger", "chargerId"), ("area", "area")):
        each = [one for at in moments for one in read(client, at=at, by=by)]
        expected = sorted(each, key=lambda one: (one.get(order, ""), one["asOf"]))
        assert len({one.get(order) for one in expected}) > 2
        for limit in (1, 3, 1000):
            found = list(pages(client, "/capacity", by=by, limit=limit, **window))
            listed = [one for page in found for one in page]
            assert [one["asOf"] for one in listed] == [one["asOf"] for one in expected]
            assert [one.get(order) for one in listed] == [one.get(order) for one in expected]
            assert all(len(page) == limit for page in found[:-1])
        assert lines(client, by=by, **window) == expected
        total = read(client, **window)
        for moment in total:
            there = [one for one in expected if one["asOf"] == moment["asOf"]]
            for name in (*POWERS, "vehiclesPluggedIn", "chargersOccupied"):
                assert sum(one[name] for one in there) == moment[name]
        assert [without_moment(one) for one in lines(client, by=by)] == [
            without_moment(one) for one in read(client, by=by)
        ]
    areas = {one.get("area") for one in read(client, by="area", at="2026-01-05T08:30:00Z")}
    assert areas == {"17.3,62.3,17.4,62.4", "17.4,62.2,17.5,62.3", None}


def test_ten_thousand_moments_come_as_lines(client: httpx.Client) -> None:
    load_example(client)
    window: dict[str, Any] = {
        "from": "2026-01-05T08:00:00Z",
        "to": "2026-01-05T10:46:40Z",
        "step": 1,
    }
    found = lines(client, **window)
    assert [one["asOf"] for one in found] == [
        format_instant(1_767_600_000_000 + 1000 * second) for second in range(10_000)
    ]
    assert found[::600] == read(client, **{**window, "step": 600})
    assert len(lines(client, by="charger", **window)) > 20_000
    alone = lines(client, by="charger", chargerId="C2", **window)
    assert [one["asOf"] for one in alone] == [one["asOf"] for one in found[600:]]
    (now,) = lines(client)
    assert without_moment(now) == without_moment(read(client))
    assert lines(client, by="charger", bbox="0,0,1,1", **window) == []
    refused: list[dict[str, Any]] = [
        {"by": "charger", "limit": 3},
        {**window, "to": "2026-01-05T10:46:41Z"},
    ]
    for query in refused:
        answer = client.get("/capacity", params=query, headers={"Accept": NDJSON})
        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/json"
    assert client.head("/capacity", params=window, headers={"Accept": NDJSON}).text == ""
    too_many = client.get("/capacity", params=window)
    assert "10000 with Accept: application/x-ndjson" in message(too_many)


def test_areas_times_moments_have_a_bound(client: httpx.Client) -> None:
    for number in range(3):
        create_vehicle(client, f"V{number}")
        position: dict[str, Any] = {"latitude": number, "longitude": number}
        client.put(f"/chargers/C{number}", json={"chargePowers": [11], **position})
        create_event(client, chargerId=f"C{number}", vehicleId=f"V{number}")
    window: dict[str, Any] = {
        "from": "2026-01-05T08:00:00Z",
        "to": "2026-01-05T10:46:40Z",
        "step": 1,
    }
    for headers in ({}, {"Accept": NDJSON}):
        answer = client.get("/capacity", params={"by": "area", **window}, headers=headers)
        assert refused_parameter(answer) == "by"
    two = lines(client, by="area", bbox="0,0,1,1", **window)
    assert len(two) == 20_000


def test_a_box_selects_by_position(client: httpx.Client) -> None:
    positions = {"C1": (17.3, 62.39), "C2": (17.45, 62.27), "C3": (179.5, 0), "C4": (-179.5, 0)}
    for number, (longitude, latitude) in enumerate(positions.values(), start=1):
        place = {"longitude": longitude, "latitude": latitude}
        client.put(f"/chargers/C{number}", json={**CHARGER, **place})
    create_charger(client, "C5")
    for number in range(1, 6):
        create_vehicle(client, f"V{number}")
        create_event(client, chargerId=f"C{number}", vehicleId=f"V{number}")
    for box, expected in (
        ("-180,-90,180,90", ["C1", "C2", "C3", "C4"]),
        ("17.3,62.27,17.45,62.39", ["C1", "C2"]),
        ("17.3,62.3,17.5,62.39", ["C1"]),
        ("179,-1,-179,1", ["C3", "C4"]),
        ("-179,-1,179,1", []),
        ("0,0,1,1", []),
        (f"{1.1 - 1},62.27,17.449999999999999289457264239899814128875732421875,63", ["C1"]),
    ):
        for at in ({}, {"at": "2023-05-12T00:00:00Z"}):
            listed = read(client, bbox=box, by="charger", **at)
            assert [one["chargerId"] for one in listed] == expected
            assert read(client, bbox=box, **at)["vehiclesPluggedIn"] == len(expected)
    assert read(client, bbox="17,62,18,63", chargerId="C2")["vehiclesPluggedIn"] == 1
    assert read(client, bbox="0,0,1,1", chargerId="C2")["vehiclesPluggedIn"] == 0
    first = client.get("/capacity?by=charger&bbox=-180,-90,180,90&limit=1")
    assert "C2" in client.get(first.links["next"]["url"]).text


def test_partners_see_nothing_of_each_other(server: Server, client: httpx.Client) -> None:
    load_example(client)
    with server.client() as stranger:
        create_both(stranger)
        window = {"from": "2026-01-05T08:00:00Z", "to": "2026-01-05T09:00:00Z", "step": 1800}
        for query in ({}, {"chargerId": "C1"}, {"at": "2026-01-05T08:30:00Z"}, window):
            found = read(stranger, **query)
            for one in found if isinstance(found, list) else [found]:
                assert (one["vehiclesPluggedIn"], one["energyStored"]) == (0, 0)
        assert read(stranger, by="charger") == []


def test_what_is_not_there_is_nothing(client: httpx.Client) -> None:
    assert read(client)["chargersOccupied"] == 0
    assert read(client, by="charger") == []
    assert read(client, chargerId="C1", at="2020-01-01T00:00:00Z")["vehiclesPluggedIn"] == 0
    head = client.head("/capacity")
    assert (head.status_code, head.content) == (200, b"")


# What is refused --------------------------------------------------------------------------------

WINDOW = "from=2026-01-05T08:00:00Z&to=2026-01-05T09:00:00Z"


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("at=yesterday", "at"),
        ("at=2026-01-05T08:00:00", "at"),
        ("at=1999-12-31T23:59:59Z", "at"),
        ("at=2999-01-01T00:00:00Z", "at"),
        ("chargerId=a%20b", "chargerId"),
        ("chargerId=", "chargerId"),
        ("by=vehicle", "by"),
        ("limit=5", "limit"),
        ("cursor=QzE", "cursor"),
        ("by=charger&limit=0", "limit"),
        ("by=charger&cursor=!", "cursor"),
        ("by=charger&cursor=YSBi", "cursor"),
        ("bbox=1,2,3", "bbox"),
        ("bbox=1,2,3,4,5,6", "bbox"),
        ("bbox=1,2,3,x", "bbox"),
        ("bbox=1,2,3,1e1", "bbox"),
        ("bbox=NaN,2,3,4", "bbox"),
        ("bbox=-181,2,3,4", "bbox"),
        ("bbox=1,2,180.1,4", "bbox"),
        ("bbox=1,2,3,90.5", "bbox"),
        ("bbox=1,5,3,4", "bbox"),
        ("to=2026-01-05T09:00:00Z", "from"),
        ("step=60", "from"),
        ("from=2026-01-05T08:00:00Z", "step"),
        (f"{WINDOW}&step=0", "step"),
        (f"{WINDOW}&step=-1", "step"),
        (f"{WINDOW}&step=1.5", "step"),
        (f"{WINDOW}&step=9999999999", "step"),
        (f"{WINDOW}&step=3", "step"),
        (f"{WINDOW}&step=60&at=2026-01-05T08:00:00Z", "at"),
        (f"{WINDOW}&step=60&by=vehicle", "by"),
        ("by=", "by"),
        ("by=area&limit=0", "limit"),
        ("by=area&cursor=YSBi", "cursor"),
        (f"{WINDOW}&step=60&limit=5", "limit"),
        ("from=2026-01-05T08:00:00Z&to=2999-01-01T00:00:00Z&step=86400000", "to"),
        ("from=2999-01-01T00:00:00Z&step=60", "from"),
        ("from=2026-01-05T08:00:00Z&to=2026-01-05T08:00:00Z&step=60", "from"),
        ("vehicleId=V1", "vehicleId"),
        ("at=2026-01-05T08:00:00Z&at=2026-01-05T08:00:00Z", "at"),
    ],
)
def test_bad_queries_are_refused(shared: httpx.Client, query: str, parameter: str) -> None:
    assert refused_parameter(shared.get(f"/capacity?{query}")) == parameter


def test_too_fine_a_step_is_told_which_would_do(shared: httpx.Client) -> None:
    day = "from=2026-01-05T00:00:00Z&to=2026-01-06T00:00:00Z"
    refused = shared.get(f"/capacity?{day}&step=86")
    assert "It must be at least 87" in message(refused)
    assert len(read(shared, **dict(re.findall(r"(\w+)=([^&]+)", f"{day}&step=87")))) == 994


def test_a_vehicle_whose_unplug_was_lost_is_left_out_when_it_was_not_heard_of(
    client: httpx.Client,
) -> None:
    client.put("/chargers/C1", json={"chargePowers": [11]})
    for vehicle, day in (("V1", "01-05"), ("V2", "07-05")):
        client.put(f"/vehicles/{vehicle}", json={"chargeCapacity": 60, "chargePowers": [11]})
        for kind, more in (("CONNECTED", {"stateOfCharge": 50}), ("CHARGE_STARTED", POWER)):
            body = {"type": f"VEHICLE_{kind}", "chargerId": "C1", "vehicleId": vehicle, **more}
            body["timestamp"] = f"2026-{day}T08:00:00Z"
            assert client.post("/events", json=body).status_code == 201
    at = "2026-07-05T08:30:00.000Z"
    everybody = read(client, at=at)
    assert (everybody["vehiclesPluggedIn"], everybody["chargePower"]) == (2, 22)
    assert everybody["unknown"]["powerAboveCharger"] == 1
    for figures in (
        read(client, at=at, maxAge="86400"),
        read(client, at=at, maxAge="86400", by="charger")[0],
        read(client, **{"from": "2026-07-05T08:30:00Z", "to": "2026-07-05T08:31:00Z"}, step="60",
             maxAge="86400")[0],
    ):  # fmt: skip
        assert (figures["vehiclesPluggedIn"], figures["chargePower"]) == (1, 11)
        assert figures["unknown"]["stale"] == 1
        assert figures["unknown"]["powerAboveCharger"] == 0
    assert read(client, maxAge="1")["unknown"]["stale"] == 2
    for wrong in ("0", "-1", "1.5", "1h", ""):
        answer = client.get("/capacity", params={"maxAge": wrong})
        assert answer.status_code == 400
        assert "Parameter {maxAge} is invalid. It must be a whole number of seconds" in answer.text


POWER = {"chargePower": 11}
