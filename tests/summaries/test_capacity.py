"""Capacity at past moments is the same as in a slow implementation of the rules."""

from collections.abc import Iterator
from random import Random
from typing import Any

import httpx
import pytest

from tests.conftest import Server
from tests.derivation.helpers import prepare, read, read_all, send
from tests.derivation.streams import stream
from tests.replay.table import rows
from tests.summaries import reference
from tests.summaries.capacity import Fleet, shown
from tests.summaries.reference import ms_of
from tests.summaries.reference import shown as instant
from tests.summaries.test_reference import Fleet as Listed
from tether.domain.models import to_json
from tether.server.databases import is_postgres
from tether.simulator.replay import chargers_of, events_of, sessions_of, vehicle_of

STREAMS = {"sqlite": 500, "postgres": 60}  # the rules are the same, but the reads differ
MOMENTS = 60
DAY_MS = 86_400_000


def fleet_of(client: httpx.Client) -> Fleet:
    """The partner's chargers, vehicles and events in the lists."""
    events = [
        {**event, "ms": ms_of(event["timestamp"]), "kind": event["type"].removeprefix("VEHICLE_")}
        for event in read_all(client, "/events")
    ]
    return Fleet(read_all(client, "/chargers"), read_all(client, "/vehicles"), events)


@pytest.fixture(scope="module")
def dirty(server: Server) -> Iterator[httpx.Client]:
    """The client of a partner with dirty streams, in which a vehicle has one event of an instant:
    of several powers of one instant the slow reading knows which charge each is of.
    """
    random = Random(17)
    streams = STREAMS["postgres" if is_postgres(server.database) else "sqlite"]
    with server.client(timeout=60) as client:
        vehicles = [f"V{number:03}" for number in range(streams)]
        prepare(client, vehicles)
        bodies = [body for vehicle in vehicles for body in stream(random, vehicle)]
        apart = {(body["vehicleId"], body["timestamp"]): body for body in bodies}
        send(client, list(apart.values()), random)
        yield client


def check(client: httpx.Client, fleet: Fleet, moments: range) -> None:
    """Compares the total, and each charger, with the fleet at each moment."""
    read_all(client, "/sessions", vehicleId="nobody")  # is answered when all is derived
    step = str(moments.step // 1000)
    window = {"from": instant(moments.start), "to": instant(moments.stop), "step": step}
    whole = {ms_of(row["asOf"]): row for row in read(client.get("/capacity", params=window))}
    assert list(whole) == list(moments)
    each: dict[tuple[int, str], Any] = {
        (ms_of(row["asOf"]), row["chargerId"]): row
        for row in read_all(client, "/capacity", **window, by="charger")
    }
    for at_ms in moments:
        by_charger = fleet.at(at_ms)
        names = {name for figures in by_charger.values() for name in figures}
        total = {name: sum(one.get(name, 0) for one in by_charger.values()) for name in names}
        assert shown(whole[at_ms]) == total, whole[at_ms]["asOf"]
        assert {charger for ms, charger in each if ms == at_ms} == set(by_charger)
        for charger, figures in by_charger.items():
            assert shown(each[at_ms, charger]) == figures, (whole[at_ms]["asOf"], charger)


@pytest.mark.parametrize("length_s", [400, 4_000])
def test_dirty_streams(dirty: httpx.Client, length_s: int) -> None:
    fleet = fleet_of(dirty)
    first_ms = fleet.first_ms // 1000 * 1000 - 5_000
    check(dirty, fleet, range(first_ms, first_ms + MOMENTS * length_s * 1000, length_s * 1000))


def test_moments_are_those_of_the_series(dirty: httpx.Client) -> None:
    fleet = fleet_of(dirty)
    for at_ms in range(fleet.first_ms, fleet.first_ms + 36_000_000, 3_000_001):
        by_charger = read_all(dirty, "/capacity", at=instant(at_ms), by="charger")
        assert {row["chargerId"]: shown(row) for row in by_charger} == fleet.at(at_ms)


def test_real_data(sqlite_server: Server) -> None:
    sessions = sessions_of(rows())
    with sqlite_server.client(timeout=60) as client:
        for path, things in (
            ("/chargers/bulk", chargers_of(sessions)),
            ("/vehicles/bulk", map(vehicle_of, sessions)),
            ("/events/bulk", (event for one in sessions for event in events_of(one))),
        ):
            answer = client.post(path, content=b"\n".join(map(to_json, things)))
            assert {one["status"] for one in read(answer)} <= {200, 201}
        fleet = fleet_of(client)
        moments = range(fleet.first_ms, fleet.first_ms + 300 * DAY_MS, 69_993_000)
        check(client, fleet, moments)
        listed = Listed(client)
        months = listed.buckets("month", "Europe/Berlin")
        query = {"bucket": "month", "timeZone": "Europe/Berlin", "by": "charger"}
        site = reference.Site(len(chargers_of(sessions)), {})
        assert listed.rows("/sessions/summary", **query) == reference.summaries(
            listed.stays, months, "charger", site
        )
        days = [(at_ms, at_ms + DAY_MS) for at_ms in moments[:: len(moments) // 10]]
        for day in days:
            window = {"from": instant(day[0]), "to": instant(day[1]), "step": "3600"}
            hours = [(at_ms, at_ms + 3_600_000) for at_ms in range(*day, 3_600_000)]
            curve = reference.load_curve(listed.stays, hours, None, site.areas)
            assert listed.rows("/energy", **window) == curve
