"""No accepted number makes a read fail, whatever is derived from it."""

import json
import subprocess
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import TETHER, Server
from tests.sse import streaming
from tether.client import Client

NUMBERS = count()
EXTREMES = (
    "5e-324", "4.9E-324", "1e-324", "0", "0.0", "1e-30", "0.1", "99999999.9999999",
    "999999999.999999", "999999999", "1E+8", "123456789012345e-20", "9e-100",
)  # fmt: skip
KINDS = ("CONNECTED", "CHARGE_STARTED", "CHARGE_UPDATED", "CHARGE_STOPPED", "DISCONNECTED")
MEASURES = {
    "CONNECTED": (),
    "CHARGE_STARTED": ("chargePower",),
    "CHARGE_UPDATED": ("chargePower", "chargedEnergy", "chargedTime"),
    "CHARGE_STOPPED": ("chargedEnergy", "chargedTime"),
    "DISCONNECTED": (),
}

# Up to 15 digits, from the smallest number to just below 10**9.
scaled = st.builds(
    lambda digits, exponent: f"{digits}e{max(-324, exponent - len(str(digits)))}",
    st.integers(1, 10**15 - 1),
    st.integers(-324, 9),
)
positive = st.sampled_from([text for text in EXTREMES if float(text) or "324" in text]) | scaled
not_negative = st.sampled_from(EXTREMES) | scaled
signed = st.tuples(st.sampled_from(["", "-"]), not_negative).map("".join)
percent = st.sampled_from(["0", "100", "5e-324", "99.9999999999999", "1e-15", "50"])
RANGES = {"chargePower": signed, "chargedEnergy": signed, "chargedTime": not_negative}


@st.composite
def streams(draw: st.DrawFn) -> list[str]:
    """Some events of one vehicle, as JSON without the braces."""
    minute, found = 0, []
    for _ in range(draw(st.integers(2, 7))):
        kind = draw(st.sampled_from(KINDS))
        minute += draw(st.sampled_from((0, 0, 1, 60)))
        members = [f'"type":"VEHICLE_{kind}","chargerId":"{draw(st.sampled_from("AAB"))}"']
        members.append(f'"timestamp":"2026-01-05T{minute // 60:02}:{minute % 60:02}:00Z"')
        if kind == "CHARGE_UPDATED" or draw(st.booleans()):
            members.append(f'"stateOfCharge":{draw(percent)}')
        for name in MEASURES[kind]:
            if draw(st.booleans()):
                members.append(f'"{name}":{draw(RANGES[name])}')
        found.append(",".join(members))
    return found


@pytest.fixture(scope="module")
def key(server: Server) -> str:
    """Of a partner with two chargers."""
    return server.key()


@pytest.fixture(scope="module")
def partner(server: Server, key: str) -> Any:
    """Its client."""
    with server.client(key, timeout=60) as client:
        put(client, "/chargers/A", '{"chargePowers":[5e-324, 999999999.999999]}')
        put(client, "/chargers/B", '{"chargePowerMin":1e-300,"chargePowerMax":1e-299}')
        yield client


def put(client: httpx.Client, path: str, text: str) -> None:
    answer = client.put(path, content=text)
    assert answer.status_code in (200, 201), (text, answer.text)


def fine(answer: httpx.Response) -> Any:
    """The answer, which must be 2xx."""
    assert answer.status_code == 200, (answer.request.url, answer.text)
    return json.loads(answer.text)


READS = (
    "/sessions?limit=1000", "/sessions?status=active", "/sessions?updatedFrom=2026-01-01T00:00:00Z",
    "/vehicles?include=state&limit=1000", "/chargers?include=state", "/chargers/A/state",
    "/capacity", "/capacity?at=2026-01-05T01:00:30Z", "/capacity?maxAge=3600",
    "/capacity?from=2026-01-05T00:00:00Z&to=2026-01-05T08:00:00Z&step=1800",
    "/capacity?by=charger", "/capacity?chargerId=A", "/events?limit=1000",
)  # fmt: skip


@settings(
    max_examples=25,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    vehicles=st.lists(st.tuples(positive, positive, streams()), min_size=4, max_size=8),
    powers=st.tuples(positive, positive),
)
def test_whatever_is_accepted_can_be_read(
    partner: httpx.Client, vehicles: list[tuple[str, str, list[str]]], powers: tuple[str, str]
) -> None:
    put(partner, "/chargers/B", f'{{"chargePowers":[{powers[0]}],"dischargePowers":[{powers[1]}]}}')
    lines = {}
    for capacity, power, events in vehicles:
        vehicle = f"V{next(NUMBERS)}"
        put(
            partner,
            f"/vehicles/{vehicle}",
            f'{{"chargeCapacity":{capacity},"chargePowers":[{power}],"dischargePowers":[{power}]}}',
        )
        lines[vehicle] = [f'{{"vehicleId":"{vehicle}",{event}}}' for event in events]
    content = "\n".join(line for some in lines.values() for line in some)
    answers = fine(partner.post("/events/bulk", content=content))
    assert {item["status"] for item in answers} <= {201, 409}, answers  # the same with other values
    for path in READS:
        fine(partner.get(path))
    for vehicle in lines:
        fine(partner.get(f"/vehicles/{vehicle}/state"))
        for session in fine(partner.get("/sessions", params={"vehicleId": vehicle})):
            assert fine(partner.get(f"/sessions/{session['id']}")) == session


def test_it_can_be_followed_and_exported(
    partner: httpx.Client, key: str, server: Server, tmp_path: Path
) -> None:
    put(partner, "/vehicles/X", '{"chargeCapacity":5e-324,"chargePowers":[5e-324]}')
    with streaming(partner) as found:
        next(found)
        for number in ("5e-324", "-999999999.999999"):
            extreme = (
                '{"type":"VEHICLE_CHARGE_UPDATED","chargerId":"A","vehicleId":"X",'
                f'"stateOfCharge":5e-324,"chargePower":{number},"chargedEnergy":{number}}}'
            )
            assert partner.post("/events", content=extreme).status_code == 201
        states = (message for message in found if message.name == "state")
        assert next(states).data["vehicleId"] == "X"
    with Client(server.url, key) as sdk:
        assert list(sdk.sessions.list())
        assert list(sdk.vehicles.list_with_state())
        assert sdk.capacity.get()
    words = [
        *(["export", "sessions", "--output", f"s.{form}"] for form in ("csv", "ndjson", "parquet")),
        *(["export", "events", "--output", f"e.{form}"] for form in ("csv", "parquet")),
        ["sessions", "list"], ["state", "vehicles"], ["capacity"], ["capacity", "--by-charger"],
    ]  # fmt: skip
    for command in words:
        environment = {"HOME": str(tmp_path), "TETHER_URL": server.url, "TETHER_API_KEY": key}
        done = subprocess.run(
            [str(TETHER), *command], capture_output=True, text=True, cwd=tmp_path,
            env=environment, timeout=240, check=False,
        )  # fmt: skip
        too_fine = "parquet" in command[-1] and "too fine for Parquet's 18 places" in done.stderr
        assert done.returncode == 0 or too_fine, (command, done.stderr[-2000:])
