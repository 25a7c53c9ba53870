"""`Tether-Error`: the error for programs, from a closed list."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.helpers import (
    CONNECTED,
    ON_ONE_ENGINE,
    VEHICLE,
    create_both,
    error,
    openapi_document,
)
from tests.conftest import Server
from tether.domain.errors import Code
from tether.domain.keys import Rate
from tether.server.status_codes import STATUS

ROOT = Path(__file__).parents[2]
UPDATED = {**CONNECTED, "type": "VEHICLE_CHARGE_UPDATED"}
NO_EVENT = "/events/0188ac4b-9dfa-7c3e-a51b-2f8e6d0b4c97"
# A request, and its error: the code, and the wrong parameter if there is one.
CALLS: list[tuple[str, str, dict[str, Any], str]] = [
    ("POST", "/events", {"content": b""}, "body-malformed"),
    ("POST", "/events", {"content": b"[]"}, "body-malformed"),
    ("PUT", "/chargers/C2", {"content": b"{'chargePowers': [11]}"}, "body-malformed"),
    ("POST", "/events/bulk", {"content": b"\n"}, "body-malformed"),
    ("PUT", "/chargers/C2", {"content": b"x", "headers": {"Content-Encoding": "gzip"}},
     "body-malformed"),
    ("POST", "/events", {"json": {**CONNECTED, "type": "CONNECTED"}}, "parameter-invalid type"),
    ("POST", "/events", {"json": {**CONNECTED, "stateOfCharge": 149.1}},
     "parameter-invalid stateOfCharge"),
    ("POST", "/events", {"json": {}}, "parameter-missing type"),
    ("POST", "/events", {"json": UPDATED}, "parameter-missing stateOfCharge"),
    ("PUT", "/vehicles/V2", {"json": {"chargePowers": [11]}}, "parameter-missing chargeCapacity"),
    ("POST", "/events", {"json": {**CONNECTED, "soc": 22}}, "parameter-unknown soc"),
    ("PATCH", "/vehicles/V1", {"json": {"minChargePower": 11}}, "parameter-invalid chargePowerMax"),
    ("PUT", "/chargers/%20", {"json": {}}, "parameter-invalid id"),
    ("GET", "/events?limit=0", {}, "parameter-invalid limit"),
    ("GET", "/events?page=2", {}, "parameter-unknown page"),
    ("GET", "/events?cursor=abc", {}, "parameter-invalid cursor"),
    ("GET", "/capacity?from=2026-01-01T00:00:00Z", {}, "parameter-missing step"),
    ("GET", "/stream", {"headers": {"Last-Event-ID": "x"}}, "parameter-invalid Last-Event-ID"),
    ("GET", "/charger", {}, "path-unknown"),
    ("GET", "/static/nothing.js", {}, "path-unknown"),
    ("GET", "/chargers/C2", {}, "not-found"),
    ("GET", NO_EVENT, {}, "not-found"),
    ("GET", "/vehicles/V2/state", {}, "not-found"),
    ("PATCH", "/chargers/C2", {"json": {}}, "not-found"),
    ("PUT", "/events", {}, "method-not-allowed"),
    ("PURGE", "/chargers/C1", {}, "method-not-allowed"),
    ("POST", "/events", {"json": {**CONNECTED, "chargerId": "C2"}}, "charger-unknown chargerId"),
    ("POST", "/events", {"json": {**CONNECTED, "vehicleId": "V2"}}, "vehicle-unknown vehicleId"),
    ("POST", "/events", {"json": {**CONNECTED, "stateOfCharge": 25.6}}, "event-contradicts"),
    ("DELETE", "/vehicles/V1", {}, "has-events"),
    ("PUT", "/vehicles/V1", {"json": VEHICLE, "headers": {"If-Match": '"9"'}},
     "precondition-failed"),
    ("POST", "/events", {"content": b" " * 1_100_000}, "too-large"),
    ("POST", "/events", {"content": b"x", "headers": {"Content-Encoding": "br"}},
     "encoding-unsupported"),
]  # fmt: skip
IDS = [f"{said}-{number}" for number, (*_, said) in enumerate(CALLS)]


@pytest.fixture(scope="module")
def partner(server: Server) -> Any:
    with server.client() as client:
        create_both(client)
        assert client.post("/events", json=CONNECTED).status_code == 201
        yield client


@ON_ONE_ENGINE
@pytest.mark.parametrize(("method", "path", "options", "said"), CALLS, ids=IDS)
def test_an_error_says_its_code_and_what_is_to_blame(
    partner: httpx.Client, method: str, path: str, options: dict[str, Any], said: str
) -> None:
    answer = partner.request(method, path, **options)
    code, parameter = error(answer)
    assert f"{code} {parameter or ''}".strip() == said
    assert answer.status_code == STATUS[code]
    assert list(answer.json()) == ["message"]
    head = partner.request("HEAD", path, **options)
    if method == "GET":
        assert head.headers["tether-error"] == answer.headers["tether-error"]


@ON_ONE_ENGINE
def test_a_key_that_is_none_or_may_not_says_so(server: Server) -> None:
    with server.client("nonsense") as client:
        assert error(client.get("/nowhere")) == (Code.KEY_INVALID, None)
    with server.client(server.key(rate=Rate(1, 3600), read_only=True)) as client:
        assert client.get("/events").status_code == 200
        assert error(client.put("/chargers/C1")) == (Code.KEY_READ_ONLY, None)
        assert error(client.get("/events")) == (Code.RATE_LIMITED, None)


@ON_ONE_ENGINE
@pytest.mark.parametrize(
    "name", ['say "no"', "back\\slash", "a;b=c", "Ladezustand\u20ac", "two\r\nlines", "x" * 300]
)
def test_a_name_that_somebody_made_up_stays_in_its_string(partner: httpx.Client, name: str) -> None:
    answer = partner.put("/chargers/C2", json={name: 1})
    shown = name.encode("unicode_escape").decode()[:100]
    assert error(answer) == (Code.PARAMETER_UNKNOWN, shown)
    (item,) = partner.post("/events/bulk", json=[{**CONNECTED, name: 1}]).json()
    assert (item["code"], item["parameter"]) == ("parameter-unknown", shown)


def test_the_list_of_codes_is_the_same_everywhere() -> None:
    assert set(STATUS) == set(Code)
    components = openapi_document()["components"]
    schema = components["schemas"]["ErrorCode"]
    assert schema["enum"] == list(Code)
    pattern = components["headers"]["Tether-Error"]["schema"]["pattern"]
    assert pattern[2:].partition(")")[0].split("|") == list(Code)
    row = re.compile(r"^\| `([a-z-]+)` \| (\d+) \| (.+) \| (.+) \|$", re.MULTILINE)
    tables = [
        row.findall(text)
        for text in (schema["description"], (ROOT / "docs" / "errors.md").read_text())
    ]
    assert tables[0] == tables[1]
    assert {code: int(status) for code, status, *_ in tables[0]} == STATUS


def test_every_code_but_those_of_trouble_is_tried_here() -> None:
    tried = {Code(said.split()[0]) for *_, said in CALLS}
    elsewhere = {
        Code.EPOCH_CHANGED, Code.INTERNAL_ERROR, Code.UNAVAILABLE, Code.NOT_DERIVED,
        Code.TOO_MANY_AT_ONCE, Code.TOO_MANY_WEBHOOKS, Code.EVENT_EXPIRED,
        Code.KEY_INVALID, Code.KEY_READ_ONLY, Code.RATE_LIMITED,
        Code.REQUEST_MALFORMED, Code.REQUEST_TIMEOUT, Code.HEAD_TOO_LARGE,
    }  # fmt: skip
    assert tried | elsewhere == set(Code)
