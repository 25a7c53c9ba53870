"""A damaged row of an outbox, or an event that cannot be stored, does not block the others."""

import json
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.scripted import Reply, ScriptedServer
from tests.conftest import Server
from tether.client import Charger, Client, Event, Outbox, Vehicle

DAMAGE = [
    "garbage", "", "{}", "[]", "null", "\0", '{"type":"VEHICLE_CONNECTED"}', b"\xff\xfe", b"",
    '{"type":"VEHICLE_CONNECTED","chargerId":"C1","vehicleId":"V1"}',  # when?
    '{"type":"SOMETHING","chargerId":"C1","vehicleId":"V1","timestamp":"2026-01-05T10:00:00Z"}',
    "[" * 100_000, 7, 1.5,
]  # fmt: skip


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """The SDK of a partner with a charger and a vehicle."""
    with Client(server.url, server.key()) as client:
        client.chargers.put(Charger(id="C1", charge_powers=[11]))
        client.vehicles.put(Vehicle(id="V1", charge_capacity=50, charge_powers=[11]))
        yield client


def event(number: int) -> Event:
    return Event(
        type="VEHICLE_CHARGE_UPDATED", charger_id="C1", vehicle_id="V1", state_of_charge=number
    )


def filled(path: Path, *, damaged: list[object]) -> None:
    """An outbox with events, damaged rows among them, and more events."""
    with Client("http://127.0.0.1:9", "key", timeout=1) as offline, Outbox(path, offline) as outbox:
        for number in range(3):
            outbox.put(event(number))
    with sqlite3.connect(path) as db:
        db.executemany("INSERT INTO waiting (body) VALUES (?)", [(body,) for body in damaged])
    with Client("http://127.0.0.1:9", "key", timeout=1) as offline, Outbox(path, offline) as outbox:
        for number in range(3, 6):
            outbox.put(event(number))
    db.close()


def test_damaged_rows_are_set_aside(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    filled(path, damaged=[*DAMAGE, *["x"] * 1500])
    with Outbox(path, client) as outbox:
        assert outbox.flush(30)
        assert [found.state_of_charge for found in client.events.list()] == [*range(6)]
        assert (outbox.error, outbox.refused, outbox.depth) == (None, [], 0)
        damaged = outbox.damaged
        assert len(damaged) == len(DAMAGE) + 1500
        assert damaged[0].content == b"garbage"
        assert outbox.delete(damaged[0])
        assert not outbox.delete(damaged[0])
        assert len(outbox.damaged) == len(damaged) - 1


def test_damage_to_what_was_refused_hides_no_other(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    with Outbox(path, client) as outbox:
        for number in (101, 102):
            outbox.put(event(number))
        assert outbox.flush(10)
    db = sqlite3.connect(path)
    db.execute("UPDATE refused SET body = x'ff', message = x'ff', at_ms = 1e30 WHERE number = 1")
    db.commit()
    db.close()
    with Outbox(path, client) as outbox:
        assert [refused.number for refused in outbox.refused] == [2]
        assert [damaged.number for damaged in outbox.damaged] == [1]


def test_what_makes_the_server_refuse_a_whole_request_holds_up_no_other(tmp_path: Path) -> None:
    """The server refuses every request with more than one event."""
    path = tmp_path / "outbox.db"
    filled(path, damaged=[])
    script = []
    for left in range(6, 0, -1):
        halvings = left.bit_length() - 1
        script += [Reply(413, b'{"message":"Too large"}')] * halvings
        script += [Reply(201, b'{"id":"E1"}')]
    with (
        ScriptedServer(*script) as server,
        Client(server.url, "key") as client,
        Outbox(path, client) as outbox,
    ):
        assert outbox.flush(10)
        assert outbox.refused == []
    sent = [json.loads(request.body) for request in server.requests if request.target == "/events"]
    assert [event["stateOfCharge"] for event in sent] == [*range(6)]


def test_its_files_are_its_owners_alone(client: Client, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with Outbox(tmp_path / "outbox.db", client) as outbox:
            outbox.put(event(1))
            assert outbox.flush(10)
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert set(modes) >= {"outbox.db", "outbox.db-turn"}
    assert set(modes.values()) == {0o600}
