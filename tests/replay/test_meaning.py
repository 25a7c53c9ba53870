"""The replayed events, compared with the rows of the data and with the API's rules."""

import json
from collections import defaultdict
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from tests.replay.table import rows
from tether.domain.errors import SetupError
from tether.domain.models import Charger, Event, Vehicle, to_json
from tether.domain.validation import new_entity, new_event
from tether.ingest.json_reader import decode_document
from tether.simulator.replay import chargers_of, events_of, sessions_of, vehicle_of

NOW_MS = 1_800_000_000_000
TABLE = rows()
SESSIONS = sessions_of(TABLE)


def sent(thing: Charger | Vehicle | Event) -> dict[str, Any]:
    return decode_document(to_json(thing))


def test_the_station_has_1878_sessions_at_two_plugs() -> None:
    assert len(SESSIONS) == 1878
    assert [charger.id for charger in chargers_of(SESSIONS)] == ["CCS1", "CCS2"]
    assert len({vehicle_of(session).id for session in SESSIONS}) == 1878


def test_everything_obeys_the_rules_and_keeps_its_digits() -> None:
    for charger in chargers_of(SESSIONS):
        assert new_entity(Charger, charger.id, sent(charger)) == charger
    for session in SESSIONS:
        vehicle = vehicle_of(session)
        assert new_entity(Vehicle, vehicle.id, sent(vehicle)) == vehicle
        for event in events_of(session):
            assert new_event(sent(event), NOW_MS) == event


def test_a_session_is_told_as_its_row_tells_it() -> None:
    of_row = {session.number: session for session in SESSIONS}
    for row in TABLE:
        session = of_row[int(row["session"])]
        vehicle, events = vehicle_of(session), events_of(session)
        arrival, departure = (f"{row[name]}.000Z" for name in ("arrival", "departure"))
        assert {event.charger_id for event in events} == {row["plug"]}
        assert {event.vehicle_id for event in events} == {vehicle.id}
        power_w = vehicle.charge_powers[0] * 1000
        assert 0 <= power_w - Decimal(row["power_max_w"]) < 1000
        assert abs(vehicle.charge_capacity * 1000 - Decimal(row["battery_capacity_wh"])) <= 1
        connected, started, updated, stopped, disconnected = events
        assert [e.type.removeprefix("VEHICLE_") for e in events] == [
            "CONNECTED", "CHARGE_STARTED", "CHARGE_UPDATED", "CHARGE_STOPPED", "DISCONNECTED",
        ]  # fmt: skip
        assert connected.timestamp == started.timestamp == arrival
        assert stopped.timestamp == disconnected.timestamp == departure
        assert updated.at_ms - started.at_ms == stopped.at_ms - updated.at_ms
        assert connected.state_of_charge == Decimal(row["soc_arrival_pct"])
        assert disconnected.state_of_charge == Decimal(row["soc_departure_pct"])
        assert stopped.charged_energy == Decimal(row["energy_wh"]) / 1000
        assert stopped.charged_time == int(row["stay_min"]) * 60


def test_halfway_lies_between_arrival_and_departure() -> None:
    for session in SESSIONS:
        updated = events_of(session)[2]
        assert updated.state_of_charge is not None
        assert updated.charge_power is not None
        assert session.soc_arrival <= updated.state_of_charge <= session.soc_departure
        assert 0 < updated.charge_power * 1000 <= session.power_max_w


def test_the_data_are_as_the_docstring_says() -> None:
    """The data have no anomalies that need a decision."""
    at_plug = defaultdict(list)
    for session in SESSIONS:
        at_plug[session.plug].append(session)
        assert 0 <= session.soc_arrival < session.soc_departure <= 100
        assert session.energy_wh > 0
        assert session.power_max_w > 0
        assert session.stay_min >= 5
        assert session.stay_min * 60_000 == session.departure_ms - session.arrival_ms + 60_000
    for stays in at_plug.values():
        for one, next_one in pairwise(stays):
            assert one.departure_ms < next_one.arrival_ms
    readings_kw = [session.power_max_w / 1000 for session in SESSIONS]
    above = [power for power in readings_kw if power > Decimal("172.5")]
    assert (len(above), max(above)) == (9, Decimal("174.846"))
    full = [s for s in SESSIONS if s.energy_kwh > vehicle_of(s).charge_capacity]
    assert len(full) == 15
    assert full == [s for s in SESSIONS if s.soc_departure - s.soc_arrival > 95]
    for session in SESSIONS:
        rise = (session.soc_departure - session.soc_arrival) / 100
        assert round(session.capacity_wh * rise / session.energy_wh, 9) == Decimal("0.95")


def test_the_energy_is_exact_to_the_last_digit() -> None:
    # In whole numbers of 1e-15 kWh, so that no rounding of ours can hide in the sum.
    expected = sum(int(Decimal(row["energy_wh"]).scaleb(12)) for row in TABLE)
    bodies = [
        json.loads(to_json(events_of(s)[3]), parse_float=str, parse_int=str) for s in SESSIONS
    ]
    total = sum(int(Decimal(body["chargedEnergy"]).scaleb(15)) for body in bodies)
    assert total == expected == 60_441_935_574_999_999_800


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"energy_wh": ""}, "a number is not a number"),
        ({"energy_wh": "NaN"}, "'NaN' is not a number"),
        ({"arrival": "yesterday"}, "yesterday"),
        ({"departure": "2021-01-01T00:00:00"}, "departs before it arrives"),
        ({"stay_min": "0"}, "stay_min"),
        ({"session": "one"}, "'one'"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(change: dict[str, str], complaint: str) -> None:
    with pytest.raises(SetupError, match=f"Row 2 of .*{complaint}"):
        sessions_of([TABLE[0], TABLE[1] | change])


def test_a_missing_column_and_a_repeated_session_are_named() -> None:
    with pytest.raises(SetupError, match="no column 'plug'"):
        sessions_of([{name: value for name, value in TABLE[0].items() if name != "plug"}])
    with pytest.raises(SetupError, match="Row 3 of the sessions repeats session 1"):
        sessions_of([*TABLE[:2], TABLE[0]])


def test_a_stay_without_length_still_has_five_events() -> None:
    row = TABLE[0] | {"departure": TABLE[0]["arrival"], "stay_min": "1"}
    events = events_of(sessions_of([row])[0])
    assert len({(event.type, event.timestamp) for event in events}) == 5
