"""`GET /sessions/summary` and `GET /energy`: the example of the document, and refused requests."""

import json
import re
from base64 import urlsafe_b64encode
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.helpers import (
    ON_ONE_ENGINE,
    create_charger,
    create_vehicle,
    message,
    refused_parameter,
)
from tests.conftest import Server
from tests.derivation.helpers import read, read_all

DOCUMENT = (Path(__file__).parents[2] / "docs" / "summaries.md").read_text()
DAY = "from=2026-01-05T00:00:00Z&to=2026-01-06T00:00:00Z"


def post(
    client: httpx.Client, *events: tuple[str, str], vehicle: str = "V1", **members: Any
) -> None:
    """Posts events of these types and times; the last one has these members."""
    for place, (kind, timestamp) in enumerate(events):
        last = members if place == len(events) - 1 else {}
        body = {"type": f"VEHICLE_{kind}", "chargerId": "C1", "vehicleId": vehicle}
        answer = client.post("/events", json={**body, "timestamp": timestamp, **last})
        assert answer.status_code == 201, answer.text


def test_the_example_of_the_document(client: httpx.Client) -> None:
    create_charger(client)
    create_vehicle(client)
    stream, table = re.findall(r"```events\n(.*?)```.*?(\| 08:00 .*?)\n\n", DOCUMENT, re.S)[0]
    for hour, kind, rest in re.findall(r"^(\S+) (\w+) +C1(.*)$", stream, re.M):
        name = ("" if "connected" in kind else "CHARGE_") + kind.upper()
        told = {name: json.loads(value) for name, value in re.findall(r"(\w+)=(\S+)", rest)}
        post(client, (name, f"2026-01-05T{hour}:00Z"), **told)
    question = re.findall(r"^GET (/energy.*)$", DOCUMENT, re.M)[0]
    rows = read(client.get(question))
    expected = [[cell.strip() for cell in line.split("|")[1:5]] for line in table.splitlines()]
    names = ("chargedEnergy", "spreadEnergy", "averagePower")
    assert expected == [[row["from"][11:16], *(str(row[name]) for name in names)] for row in rows]


def test_what_cannot_be_divided_exactly_is_in_the_last_bucket(client: httpx.Client) -> None:
    create_charger(client)
    create_vehicle(client)
    post(client, ("CONNECTED", "2026-01-05T23:40:00Z"), ("CHARGE_STARTED", "2026-01-05T23:40:00Z"),
         ("CHARGE_STOPPED", "2026-01-06T00:10:00Z"), chargedEnergy=10)  # fmt: skip
    post(client, ("DISCONNECTED", "2026-01-06T06:00:00Z"))
    first, second = read(client.get("/sessions/summary?bucket=day"))
    assert (str(first["chargedEnergy"]), str(second["chargedEnergy"])) == ("6.666666", "3.333334")
    assert (first["sessions"], second["sessions"]) == (1, 0)
    assert (first["chargedTime"], second["chargedTime"]) == (1200, 600)
    assert (first["pluggedTime"], second["pluggedTime"]) == (1200, 21_600)
    assert (str(first["utilisation"]), second["utilisation"]) == ("0.013889", Decimal("0.25"))
    assert "flag" not in first


def test_a_charge_of_no_length_is_in_the_bucket_of_its_instant(client: httpx.Client) -> None:
    create_charger(client)
    create_vehicle(client)
    end = "2026-01-05T10:00:00Z"
    post(client, ("CONNECTED", "2026-01-05T08:30:00Z"), ("CHARGE_STARTED", end))
    post(client, ("CHARGE_STOPPED", end), chargedEnergy=5)
    post(client, ("DISCONNECTED", end))
    for by in ({}, {"by": "charger"}):
        rows = read_all(client, "/sessions/summary", bucket="hour", **by)
        hours = [(row["from"][11:13], str(row["chargedEnergy"])) for row in rows]
        assert hours == [("08", "0"), ("09", "0"), ("10", "5")], by


def test_energies_of_any_fineness_and_size_add_up(client: httpx.Client) -> None:
    create_charger(client)
    energies = ["0.000000123456789", "1e-324", "999999999.999999", "-0.3", "28.9999999999999"]
    for number, energy in enumerate(energies):
        create_vehicle(client, f"V{number}")
        vehicle = f"V{number}"
        post(client, ("CONNECTED", "2026-01-05T23:00:00Z"),
             ("CHARGE_STARTED", "2026-01-05T23:00:00.001Z"), vehicle=vehicle)  # fmt: skip
        body = {"type": "VEHICLE_CHARGE_STOPPED", "chargerId": "C1", "vehicleId": vehicle,
                "timestamp": "2026-01-07T01:00:00Z"}  # fmt: skip
        text = json.dumps(body)[:-1] + f', "chargedEnergy": {energy}}}'
        assert client.post("/events", content=text).status_code == 201
        post(client, ("DISCONNECTED", "2026-01-07T02:00:00Z"), vehicle=vehicle)
    listed = read_all(client, "/sessions")
    for question in (
        "/sessions/summary?bucket=hour",
        "/sessions/summary?bucket=day&by=vehicle",
        "/energy?from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z&step=7777",
    ):
        path, _, query = question.partition("?")
        rows = read_all(client, path, **dict(one.split("=") for one in query.split("&")))
        by_hand = sum((Decimal(energy) for energy in energies), Decimal(0))
        listed_sum = sum((one["chargedEnergy"] for one in listed), Decimal(0))
        assert sum((row["chargedEnergy"] for row in rows), Decimal(0)) == listed_sum == by_hand


def test_pages_of_groups_go_on_while_any_group_does(client: httpx.Client) -> None:
    create_charger(client)
    for vehicle, until in (("V1", "2026-01-05T12:30:00Z"), ("V2", "2026-01-05T10:45:00Z")):
        create_vehicle(client, vehicle)
        post(client, ("CONNECTED", "2026-01-05T10:30:00Z"), ("DISCONNECTED", until),
             vehicle=vehicle)  # fmt: skip
    hours = {"bucket": "hour", "by": "vehicle"}
    expected = [("10", "V1", 1800), ("10", "V2", 900), ("11", "V1", 3600), ("12", "V1", 1800)]
    for limit in (1, 2, 3, 100):
        rows = read_all(client, "/sessions/summary", **hours, limit=limit)
        found = [(row["from"][11:13], row["vehicleId"], row["pluggedTime"]) for row in rows]
        assert found == expected


def test_an_hour_that_comes_twice_is_two(client: httpx.Client) -> None:
    create_charger(client)
    create_vehicle(client)
    post(client, ("CONNECTED", "2026-10-24T23:30:00Z"), ("DISCONNECTED", "2026-10-25T02:30:00Z"))
    rows = read(client.get("/sessions/summary?bucket=hour&timeZone=Europe/Berlin"))
    assert [row["from"][11:16] for row in rows] == ["23:00", "00:00", "01:00", "02:00"]
    (day,) = read(client.get("/sessions/summary?bucket=day&timeZone=Europe/Berlin"))
    assert (day["from"], day["to"]) == ("2026-10-24T22:00:00.000Z", "2026-10-25T23:00:00.000Z")
    assert day["utilisation"] == Decimal("0.12")


def test_what_goes_on_is_counted_up_to_its_newest_event(client: httpx.Client) -> None:
    create_charger(client)
    create_vehicle(client)
    assert client.get("/sessions/summary").json() == []
    post(client, ("CONNECTED", "2026-01-05T08:00:00Z"), ("CHARGE_STARTED", "2026-01-05T08:00:00Z"),
         ("CHARGE_UPDATED", "2026-01-05T09:00:00Z"), chargePower=11, stateOfCharge=50)  # fmt: skip
    (row,) = read(client.get("/sessions/summary"))
    assert (row["pluggedTime"], row["chargedTime"], row["chargedEnergy"]) == (3600, 3600, 11)
    assert (row["estimatedEnergy"], row["averagePower"], row["maximumPower"]) == (11, 11, 11)
    assert not {"from", "to", "utilisation"} & row.keys()
    (step,) = read(client.get(f"/energy?{DAY}&step=day"))
    assert (step["chargedEnergy"], step["estimatedEnergy"], step["spreadEnergy"]) == (11, 11, 0)


def test_years_without_a_session_are_skipped(client: httpx.Client) -> None:
    create_charger(client)
    create_vehicle(client)
    for year in (2011, 2019, 2026):
        post(client, ("CONNECTED", f"{year}-01-05T08:30:00Z"),
             ("DISCONNECTED", f"{year}-01-05T10:30:00Z"))  # fmt: skip
    answer = client.get("/sessions/summary?bucket=hour&limit=2")
    pages = [answer.json()]
    while "next" in answer.links:
        answer = client.get(answer.links["next"]["url"])
        pages.append(answer.json())
    hours = [row["from"][:13] for page in pages for row in page]
    assert hours == [f"{y}-01-05T{h}" for y in (2011, 2019, 2026) for h in ("08", "09", "10")]
    assert len(pages) <= 6


def test_each_partner_has_its_own(client: httpx.Client, server: Server) -> None:
    create_charger(client)
    create_vehicle(client)
    post(client, ("CONNECTED", "2026-01-05T08:00:00Z"))
    with server.client() as stranger:
        assert stranger.get("/sessions/summary").json() == []
        (step,) = read(stranger.get(f"/energy?{DAY}&step=day"))
        assert step["chargedEnergy"] == 0


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("by=hour", "by"),
        ("bucket=year", "bucket"),
        ("bucket=day&timeZone=Berlin", "timeZone"),
        ("bucket=day&timeZone=../../../etc/passwd", "timeZone"),
        ("bucket=day&timeZone=right/Europe/Berlin", "timeZone"),
        ("timeZone=UTC", "timeZone"),
        ("order=desc", "order"),
        ("updatedFrom=2026-01-05T00:00:00Z", "updatedFrom"),
        ("limit=1001", "limit"),
        ("flag=none", "flag"),
        ("from=2026-01-06T00:00:00Z&to=2026-01-05T00:00:00Z", "from"),
        ("cursor=x", "cursor"),
    ],
)
@ON_ONE_ENGINE
def test_refused_sums(shared: httpx.Client, query: str, parameter: str) -> None:
    assert refused_parameter(shared.get(f"/sessions/summary?{query}")) == parameter


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("to=2026-01-06T00:00:00Z&step=900", "from"),
        ("from=2026-01-06T00:00:00Z&step=900", "to"),
        (DAY, "step"),
        (f"{DAY}&step=0", "step"),
        (f"{DAY}&step=1.5", "step"),
        (f"{DAY}&step=1000000000", "step"),
        (f"{DAY}&step=year", "step"),
        (f"{DAY}&step=900&timeZone=UTC", "timeZone"),
        (f"{DAY}&step=day&timeZone=Mars", "timeZone"),
        (f"{DAY}&step=900&by=vehicle", "by"),
        (f"{DAY}&step=900&status=ended", "status"),
        ("from=2026-01-06T00:00:00Z&to=2026-01-06T00:00:00Z&step=900", "from"),
        ("from=2026-01-06T00:00:00Z&to=9999-12-31T23:59:59Z&step=month", "to"),
        (f"{DAY}&step=900&chargerId=%20", "chargerId"),
    ],
)
@ON_ONE_ENGINE
def test_refused_curves(shared: httpx.Client, query: str, parameter: str) -> None:
    answer = shared.get(f"/energy?{query}")
    assert refused_parameter(answer) == parameter
    assert "Internal" not in message(answer)


@pytest.mark.parametrize("place", ["0 ", "1 x", "999999999999999 ", "252460800000000 C1", "5 \n"])
@ON_ONE_ENGINE
def test_a_cursor_that_nobody_gave_does_no_harm(client: httpx.Client, place: str) -> None:
    create_charger(client)
    create_vehicle(client)
    post(client, ("CONNECTED", "2026-01-05T08:00:00Z"), ("DISCONNECTED", "2026-01-05T09:00:00Z"))
    epoch = client.get("/sessions").headers.get("tether-epoch", "")
    text = f"{epoch}/{place}" if epoch else place
    cursor = urlsafe_b64encode(text.encode()).decode().rstrip("=")
    for question in ("/sessions/summary?bucket=day&by=charger&", f"/energy?{DAY}&step=hour&",
                     f"/energy?{DAY}&step=900&by=charger&", "/sessions/summary?"):  # fmt: skip
        answer = client.get(f"{question}cursor={cursor}")
        assert answer.status_code == 200 or refused_parameter(answer) == "cursor"


@pytest.mark.parametrize("by", ["", "&by=charger"])
@ON_ONE_ENGINE
def test_steps_of_a_millisecond_are_gone_through_one_by_one(client: httpx.Client, by: str) -> None:
    create_charger(client)
    create_vehicle(client)
    post(client, ("CONNECTED", "2026-01-05T08:00:00Z"), ("DISCONNECTED", "2026-01-05T11:00:00Z"))
    window = "from=2026-01-05T08:59:59.999Z&to=2026-01-05T10:00:00.001Z"
    steps: list[str] = []
    link: str | None = f"/energy?{window}&step=hour&limit=1{by}"
    for _ in range(5):
        if link is not None:
            answer = client.get(link)
            steps += [step["from"] for step in answer.json()]
            link = answer.links.get("next", {}).get("url")
    assert steps == [f"2026-01-05T{at}Z" for at in ("08:59:59.999", "09:00:00.000", "10:00:00.000")]
    assert link is None


@ON_ONE_ENGINE
def test_a_curve_of_thousands_of_years_ends_page_by_page(client: httpx.Client) -> None:
    window = "from=2000-01-01T00:00:00Z&to=9000-01-01T00:00:00Z"
    answer = client.get(f"/energy?{window}&step=1&limit=1000")
    assert len(answer.json()) == 1000
    answer = client.get(f"/energy?{window}&step=1&by=charger")
    assert answer.json() == []
    assert 'partial="true"' in answer.headers["link"]
    answer = client.get(f"/energy?{window}&step=month&timeZone=Europe/Berlin&limit=1000")
    assert answer.json()[0]["to"] == "2000-01-31T23:00:00.000Z"
