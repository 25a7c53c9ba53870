"""docs/sessions.md is right: its worked example, its flags, the real data."""

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.helpers import ON_ONE_ENGINE
from tests.replay.table import rows
from tether.domain import session_record
from tether.domain.models import EXACT
from tether.domain.session_builder import SessionBuilder
from tether.domain.session_views import FLAGS, StoredSession, session_of
from tether.domain.timestamps import parse_instant
from tether.domain.views import EnergySource, Session
from tether.simulator.replay import chargers_of, events_of, sessions_of, vehicle_of

DOCUMENT = (Path(__file__).parents[2] / "docs" / "sessions.md").read_text()
FLAG = re.compile(r"^### (\S+)\n\n(.*?)\n\n(?:.*?\n)??```events\n(.*?)^```$", re.M | re.DOTALL)
EVENT = re.compile(r"(\d\d):(\d\d) (\w+) +(C\d)((?: \w+=[\d.]+)*)( and so on.*)?")
SECTIONS = {name: (sentence, stream) for name, sentence, stream in FLAG.findall(DOCUMENT)}
KINDS = {
    "connected": "CONNECTED",
    "started": "CHARGE_STARTED",
    "updated": "CHARGE_UPDATED",
    "stopped": "CHARGE_STOPPED",
    "disconnected": "DISCONNECTED",
}


def section(title: str) -> str:
    return DOCUMENT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def events_in(stream: str) -> Iterator[dict[str, Any]]:
    """The events of an example. A line with "and so on" repeats up to the line behind it."""
    lines = [EVENT.fullmatch(line) for line in stream.splitlines()]
    repeated = next((place for place, line in enumerate(lines) if line and line[6]), None)
    order = list(range(len(lines)))
    if repeated is not None:
        order = order[:repeated] + [repeated, repeated + 1] * 1001
    for place, number in enumerate(order):
        line = lines[number]
        assert line, stream
        minute = int(line[1]) * 60 + int(line[2])
        if repeated is not None and place > repeated + 1:
            minute += place - number
        day, hour = 5 + minute // 1440, minute // 60 % 24
        measured = dict(one.split("=") for one in line[5].split())
        yield {
            "type": f"VEHICLE_{KINDS[line[3]]}",
            "chargerId": line[4],
            "vehicleId": "V1",
            **{name: json.loads(value) for name, value in measured.items()},
            "timestamp": f"2026-01-{day:02}T{hour:02}:{minute % 60:02}:00Z",
        }


@pytest.fixture
def told(client: httpx.Client) -> Any:
    """Sends a stream of the document; returns the sessions, with exact numbers."""

    def tell(stream: str) -> list[dict[str, Any]]:
        vehicle = {"chargeCapacity": 50, "chargePowerMin": 1.4, "chargePowerMax": 22}
        client.put("/vehicles/V1", json=vehicle)
        client.put("/chargers/C1", json={"chargePowers": [11]})
        client.put("/chargers/C2", json={"chargePowers": [50]})
        content = "\n".join(map(json.dumps, events_in(stream)))
        answer = client.post("/events/bulk", content=content)
        assert {item["status"] for item in answer.json()} == {201}
        text = client.get("/sessions").text
        found: list[dict[str, Any]] = json.loads(text, parse_float=Decimal, parse_int=Decimal)
        return found

    return tell


def table(text: str, title: str) -> list[list[str]]:
    """The cells of the table whose first title this is."""
    lines = text.split(f"| {title} |")[1].splitlines()[2:]
    found = []
    for line in lines:
        if not line.startswith("|"):
            break
        found.append([cell.strip().strip("`") for cell in line.strip("|").split(" | ")])
    return found


@ON_ONE_ENGINE
def test_the_worked_example_is_what_a_server_makes_of_it(told: Any) -> None:
    text = section("Energy")
    stream = re.findall(r"^```events\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    (session,) = told(stream[0])
    periods = [
        [
            f"{period['startedAt'][11:16]} to {period['stoppedAt'][11:16]}",
            str(period["chargedTime"]),
            str(period["chargedEnergy"]),
            period["energySource"],
        ]
        for period in session["periods"]
    ]
    assert [row[:4] for row in table(text, "period")] == periods
    for name, value, _ in table(text, "of the example"):
        assert Decimal(value) == session[name], name
    assert session["estimated"] is True
    assert session["flags"] == []


def test_every_source_of_energy_is_explained() -> None:
    assert [name for name, _ in table(section("Energy"), "`energySource`")] == list(EnergySource)


def test_the_document_has_every_flag_with_its_sentence() -> None:
    sentences = {name: text.split("\n\n")[0].replace("\n", " ") for name, (text, _) in
                 SECTIONS.items()}  # fmt: skip
    assert sentences == FLAGS


@ON_ONE_ENGINE
@pytest.mark.parametrize("name", FLAGS)
def test_the_example_of_a_flag_makes_that_flag_and_no_other(told: Any, name: str) -> None:
    found = told(SECTIONS[name][1])
    flags = [flag for session in found for flag in session["flags"]]
    names = [name, name] if name == "vehicle-shared" else [name]  # the sessions at both chargers
    assert flags == [{"name": flag, "message": FLAGS[flag]} for flag in names]
    if name == "periods-merged":
        assert len(found[0]["periods"]) == session_record.MAX_PERIODS


@ON_ONE_ENGINE
def test_the_example_of_a_late_event(client: httpx.Client, told: Any) -> None:
    (first,) = told("08:05 started C1 chargePower=11")
    assert [flag["name"] for flag in first["flags"]] == ["connect-missing"]
    (second,) = told("08:00 connected C1")
    assert second["flags"] == []
    assert (second["connectedAt"][11:16], second["periods"][0]["startedAt"][11:16]) == (
        "08:00", "08:05",
    )  # fmt: skip
    changes = client.get("/sessions?updatedFrom=2020-01-01T00:00:00Z").json()
    status = {session["id"]: session["status"] for session in changes}
    assert status == {first["id"]: "removed", second["id"]: "active"}
    assert client.get(f"/sessions/{first['id']}").status_code == 404


# The real data ----------------------------------------------------------------------------------


def real_sessions() -> list[Session]:
    """The derived sessions of the real data, as a server makes them."""
    table = sessions_of(rows())
    chargers = {charger.id: charger for charger in chargers_of(table)}
    found = []
    for row in table:
        events = enumerate(events_of(row), start=1)
        timeline = SessionBuilder().take(
            sorted(session_record.ordered_event(seq, event.at_ms, event) for seq, event in events)
        )
        ((stay, _),) = timeline.begun
        charger = chargers[stay.charger_id]
        found.append(session_of(StoredSession(stay.id, stay, vehicle_of(row), charger, 1, 0)))
    return found


def test_what_is_said_of_the_real_data_is_so() -> None:
    said = " ".join(section("What the real data get").split())
    found = real_sessions()
    flagged = [session for session in found if session.flags]
    assert {flag.name for session in flagged for flag in session.flags} == {"energy-above-capacity"}
    energy = EXACT.create_decimal(0)
    for session in found:
        (period,) = session.periods
        assert period.energy_source is EnergySource.REPORTED
        energy = EXACT.add(energy, period.charged_energy or 0)
    assert f"{len(found):,} sessions, one period each, all `reported`: {energy:,} kWh" in said
    assert f"{len(flagged)} sessions carry `energy-above-capacity`" in said
    for number, session in enumerate(found):
        (period,) = session.periods
        assert period.stopped_at is not None
        between_ms = parse_instant(period.stopped_at) - parse_instant(period.started_at)
        assert period.charged_time * 1000 - between_ms == 60_000, number
    for session in flagged:
        assert session.state_of_charge_start is not None
        assert session.state_of_charge_end is not None
        assert session.state_of_charge_start <= 3
        assert session.state_of_charge_end >= 98
