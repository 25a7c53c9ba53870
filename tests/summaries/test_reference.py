"""Summaries and load curves are the same as in a slow implementation of the rules."""

from collections.abc import Iterator
from decimal import Decimal
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from tests.conftest import Server
from tests.derivation.helpers import prepare, read, read_all, send
from tests.derivation.streams import CHARGERS, stream
from tests.summaries import reference
from tests.summaries.reference import EVER, Site, ms_of
from tether.server.databases import is_postgres

STREAMS = {"sqlite": 500, "postgres": 100}  # the rules are the same, the sums are not
SHIFT_MS = 82 * 86_400_000  # to the night in which summer time begins in Europe
PLACES = {"A": (47.05, 8.31), "B": (47.09, 8.39)}
SITE = Site(len(CHARGERS), {"A": "8.3,47.0,8.4,47.1", "B": "8.3,47.0,8.4,47.1"})


class Fleet:
    """A partner with dirty sessions, and the lists of them."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.sessions = read_all(client, "/sessions")
        last = {
            vehicle["id"]: ms_of(vehicle["state"]["lastEvent"]["timestamp"])
            for vehicle in read_all(client, "/vehicles", include="state")
            if "lastEvent" in vehicle["state"]
        }
        events = read_all(client, "/events")
        self.stays = reference.stays_of(self.sessions, events, last.__getitem__)

    def buckets(self, unit: str, zone: str) -> list[reference.Bucket]:
        first = min(stay.start for stay in self.stays)
        last = max(stay.end for stay in self.stays)
        return reference.calendar(unit, ZoneInfo(zone), first, last)

    def rows(self, path: str, **query: Any) -> list[Any]:
        rows = read_all(self.client, path, **query)
        for row in rows:  # which have tests of their own
            row.pop("maximumPower", None)
            if path != "/energy":
                row.pop("averagePower", None)
        return rows


@pytest.fixture(scope="module")
def fleet(server: Server) -> Iterator[Fleet]:
    random = Random(16)
    streams = STREAMS["postgres" if is_postgres(server.database) else "sqlite"]
    with server.client(timeout=60) as client:
        vehicles = [f"V{number:03}" for number in range(streams)]
        prepare(client, vehicles)
        for charger, (latitude, longitude) in PLACES.items():
            position: Any = {"latitude": latitude, "longitude": longitude}
            assert client.put(f"/chargers/{charger}", json=CHARGERS[charger] | position).is_success
        bodies = [body for vehicle in vehicles for body in stream(random, vehicle)]
        for body in bodies:
            body["timestamp"] = reference.shown(ms_of(body["timestamp"]) + SHIFT_MS)
        send(client, bodies, random)
        yield Fleet(client)


@pytest.mark.parametrize("by", [None, "charger", "vehicle", "flag", "area"])
def test_all_time_together(fleet: Fleet, by: str | None) -> None:
    query = {"by": by, "limit": 40} if by else {}
    assert fleet.rows("/sessions/summary", **query) == reference.summaries(
        fleet.stays, [EVER], by, SITE
    )


@pytest.mark.parametrize(
    ("unit", "zone", "by"),
    [
        ("hour", "Europe/Berlin", None),
        ("hour", "Asia/Kathmandu", "flag"),
        ("hour", "Australia/Lord_Howe", "charger"),
        ("day", "Europe/Berlin", "vehicle"),
        ("day", "UTC", None),
        ("week", "America/St_Johns", "area"),
        ("month", "Pacific/Chatham", "charger"),
    ],
)
def test_by_time(fleet: Fleet, unit: str, zone: str, by: str | None) -> None:
    query = {"bucket": unit, "timeZone": zone, "limit": 37} | ({"by": by} if by else {})
    assert fleet.rows("/sessions/summary", **query) == reference.summaries(
        fleet.stays, fleet.buckets(unit, zone), by, SITE
    )


def total(rows: list[Any], name: str) -> Decimal:
    return sum((row.get(name, Decimal(0)) for row in rows), Decimal(0))


@pytest.mark.parametrize("filters", [
    {}, {"chargerId": "B"}, {"vehicleId": "V007"}, {"status": "ended"}, {"flag": "stop-missing"},
    {"endedTo": "2026-03-29T12:00:00Z", "overlappingTo": "2026-03-29T00:00:00Z"},
    {"estimated": "true"}, {"from": "2026-03-28T12:00:00Z", "to": "2026-03-29T12:00:00Z"},
])  # fmt: skip
@pytest.mark.parametrize("unit", ["hour", "day"])
def test_the_parts_add_up_to_the_list_to_the_digit(
    fleet: Fleet, filters: dict[str, str], unit: str
) -> None:
    listed = read_all(fleet.client, "/sessions", **filters)
    assert listed
    query = {"bucket": unit, "timeZone": "Europe/Berlin", **filters}
    for rows in (
        fleet.rows("/sessions/summary", **query, by="charger"),
        fleet.rows("/sessions/summary", **query),
        fleet.rows("/sessions/summary", **filters),
    ):
        assert total(rows, "sessions") == len(listed)
        for name in ("chargedEnergy", "chargedTime", "periodsWithoutEnergy"):
            assert total(rows, name) == total(listed, name), name
        if filters.get("status") == "ended":
            assert total(rows, "pluggedTime") == total(listed, "pluggedTime")


def test_each_flag_selects_the_sessions_that_carry_it(fleet: Fleet) -> None:
    carried = {
        session["id"]: {flag["name"] for flag in session["flags"]} for session in fleet.sessions
    }
    names = set().union(*carried.values())
    assert len(names) > 15
    for name in names:
        found = {session["id"] for session in read_all(fleet.client, "/sessions", flag=name)}
        assert found == {id for id, flags in carried.items() if name in flags}, name


@pytest.mark.parametrize(
    ("step", "zone", "by"),
    [
        ("900", None, None),
        ("3601", None, "charger"),
        ("hour", "Asia/Kathmandu", "area"),
        ("day", "Europe/Berlin", None),
    ],
)
def test_load_curves(fleet: Fleet, step: str, zone: str | None, by: str | None) -> None:
    from_ms, to_ms = ms_of("2026-03-28T11:07:00Z"), ms_of("2026-03-30T02:00:01Z")
    query = {"from": reference.shown(from_ms), "to": reference.shown(to_ms), "step": step}
    if zone is None:
        length = int(step) * 1000
        bounds = [(at_ms, at_ms + length) for at_ms in range(from_ms, to_ms, length)]
    else:
        bounds = reference.calendar(step, ZoneInfo(zone), from_ms, to_ms - 1)
        query["timeZone"] = zone
    cut = [(max(a, from_ms), min(b, to_ms)) for a, b in bounds]
    query |= {"limit": "50"} | ({"by": by} if by else {})
    assert fleet.rows("/energy", **query) == reference.load_curve(fleet.stays, cut, by, SITE.areas)


def test_a_curve_of_all_time_adds_up_to_the_list_to_the_digit(fleet: Fleet) -> None:
    window = {"from": "2026-03-01T00:00:00Z", "to": "2026-05-01T00:00:00Z", "step": "3600"}
    for by in ({}, {"by": "charger"}):
        rows = fleet.rows("/energy", **window, **by)
        assert total(rows, "chargedEnergy") == total(fleet.sessions, "chargedEnergy")


def test_powers(fleet: Fleet) -> None:
    (row,) = read(fleet.client.get("/sessions/summary"))
    highest = max(one["maximumPower"] for one in fleet.sessions if "maximumPower" in one)
    assert row["maximumPower"] == highest
    known = [charge for stay in fleet.stays for charge in stay.charges if charge.energy is not None]
    energy = sum((charge.energy or Decimal(0) for charge in known), Decimal(0))
    time = sum((charge.time for charge in known), Decimal(0))
    assert row["averagePower"] == round(energy * 3600 / time, 3)
