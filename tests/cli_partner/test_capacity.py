"""`tether capacity`: its requests, and its output for people and programs."""

import json
from typing import Any

import pytest

from tests.cli_partner.conftest import Site

DAY = "2026-01-05T"


@pytest.fixture
def charging(site: Site) -> Site:
    """V1 at C1 from ten on, and from half past it takes 7.4 kW of 11."""
    site.report("CONNECTED", "10:00", stateOfCharge=50)
    site.report("CHARGE_STARTED", "10:30", chargePower=7.4)
    return site


def lines(site: Site, *options: str) -> list[Any]:
    return [json.loads(line) for line in site.ok("capacity", *options).splitlines()]


def test_a_program_gets_the_api_s_objects(charging: Site) -> None:
    (now,) = lines(charging)
    with charging.client() as client:
        there = client.get("/capacity").json()
    assert {**now, "asOf": ""} == {**there, "asOf": ""}
    assert (now["chargePower"], now["chargePowerAvailable"]) == (7.4, 3.6)
    (then,) = lines(charging, "--at", f"{DAY}10:15:00Z", "--charger", "C1")
    assert (then["chargePower"], then["chargePowerAvailable"]) == (0, 11)
    assert [one["chargerId"] for one in lines(charging, "--by-charger")] == ["C1"]
    series = ("--from", f"{DAY}09:30:00Z", "--to", f"{DAY}11:00:00Z", "--step", "30m")
    assert [one["vehiclesPluggedIn"] for one in lines(charging, *series)] == [0, 1, 1]
    by_charger = lines(charging, *series, "--by", "charger")
    assert [(one["chargerId"], one["asOf"][11:16]) for one in by_charger] == [
        ("C1", "10:00"), ("C1", "10:30"),
    ]  # fmt: skip
    assert len(lines(charging, *series, "--by", "area", "--limit", "1")) == 1


def test_people_get_a_table(charging: Site) -> None:
    status, shown = charging.in_terminal("capacity", "--at", f"{DAY}11:00:00Z")
    assert status == 0
    assert "Plugged in       1 vehicle at 1 charger, 1 charging" in shown
    assert "Charge power     7.4 kW taken, 3.6 kW more available" in shown
    assert "Not known" not in shown
    status, shown = charging.in_terminal("capacity", "--by-charger")
    assert status == 0
    assert shown.split("\n")[-2].split() == ["C1", "1", "7.4", "3.6", "0", "0", "37.4", "37.4"]
    _, shown = charging.in_terminal("capacity", "--by-charger", "--bbox", "0,0,1,1")
    assert shown == "No vehicle is plugged in.\n"


def test_what_is_not_known_is_said(site: Site) -> None:
    site.report("CONNECTED", "10:00")
    _, shown = site.in_terminal("capacity")
    assert "Not known        state of charge of 1 vehicle" in shown
    _, shown = site.in_terminal("capacity", "--by-charger")
    assert shown.split("\n")[-2].split()[-1] == "1/0/0/0/0/0"


def test_the_table_of_a_large_fleet_loses_nothing_in_a_narrow_terminal(site: Site) -> None:
    powers = {"chargePowers": [55555.5], "dischargePowers": [99999.5]}
    events: list[dict[str, Any]] = [
        {"type": "VEHICLE_CONNECTED", "vehicleId": "V1"},
        {"type": "VEHICLE_CONNECTED", "vehicleId": "V2", "stateOfCharge": 30},
        {"type": "VEHICLE_CONNECTED", "vehicleId": "V3", "stateOfCharge": 30},
        {"type": "VEHICLE_CHARGE_STARTED", "vehicleId": "V2", "chargePower": -2345.6},
        {"type": "VEHICLE_CHARGE_STARTED", "vehicleId": "V3", "chargePower": 1234.6},
    ]
    with site.client() as client:
        client.put("/chargers/C1", json=powers).raise_for_status()
        for id in ("V1", "V2", "V3"):
            vehicle = {"chargeCapacity": 1234567.8, **powers}
            client.put(f"/vehicles/{id}", json=vehicle).raise_for_status()
        for event in events:
            sent = {**event, "chargerId": "C1", "timestamp": f"{DAY}10:01:00Z"}
            client.post("/events", json=sent).raise_for_status()
    window = ("--from", f"{DAY}10:01:00Z", "--to", f"{DAY}10:02:00Z", "--step", "30s")
    _, shown = site.in_terminal("capacity", *window)
    figures = ["3", "1,235", "54,321", "2,346", "97,654", "740,741", "1,728,395"]
    *moments, courses = shown.split("\n\n")
    assert [line.split()[-2:] for line in courses.splitlines()] == [
        ["1,235", "kW"], ["54,321", "kW"], ["2,346", "kW"], ["97,654", "kW"], ["740,741", "kWh"],
    ]  # fmt: skip
    assert max(map(len, shown.splitlines())) <= 80
    for moment, time in zip(moments, ("10:01:00", "10:01:30"), strict=True):  # names and values
        values = [line.split()[-1] for line in moment.splitlines()]
        assert values == [time, *figures, "1/0/0/0/0/0"]
    _, shown = site.in_terminal("capacity", *window, columns=85)
    assert shown.splitlines()[3].split() == ["2026-01-05", *figures, "1/0/0/0/0/0"]


def test_a_time_without_a_vehicle_has_a_table_and_no_graph(site: Site) -> None:
    window = ("--from", "2026-01-05", "--to", "2026-01-06", "--step", "12h")
    status, shown = site.in_terminal("capacity", *window)
    assert (status, len(shown.splitlines())) == (0, 5), shown


def test_options_that_do_not_fit_are_a_mistake(site: Site) -> None:
    for options, said in (
        (("--from", "2026-01-05"), "--from and --step"),
        (("--from", "2026-01-05", "--step", "1h", "--at", "2026-01-05"), "go without"),
        (("--bbox", "1,2,3"), "four numbers"),
        (("--limit", "3"), "goes with --by."),
    ):
        assert said in site.refused("capacity", *options, status=2)


def test_what_the_server_refuses_is_said_in_its_words(site: Site) -> None:
    assert "{at}" in site.refused("capacity", "--at", "2999-01-01")
    window = ("--from", "2026-01-05", "--to", "2026-01-06")
    assert "at least 9:" in site.refused("capacity", *window, "--step", "1s")
