"""How long a partner's data are kept, and what is refused after that, on each engine."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Command
from tests.conftest import Server
from tests.console.visitors import partner_number
from tests.erasing.test_erasing import fleet
from tether.client import Client, Conflict, Event
from tether.domain.timestamps import parse_instant
from tether.server.store import open_store

HORIZON = "2026-03-01T00:00:00.000Z"
OLD = {"type": "VEHICLE_CONNECTED", "chargerId": "C1", "vehicleId": "V1",
       "timestamp": "2026-02-28T23:59:59.999Z"}  # fmt: skip
EXPIRED = 'event-expired; parameter="timestamp"'


def move(server: Server, key: str, horizon: str = HORIZON) -> None:
    """Moves the partner's horizon, as the server does once an hour."""
    number = partner_number(server, key)

    async def run() -> None:
        async with open_store(server.database) as store:
            await store.retention.move_horizon(number, parse_instant(horizon))

    asyncio.run(run())


def test_events_before_the_horizon_are_refused_and_others_are_not(server: Server) -> None:
    key = server.key()
    with server.client(key) as client, server.client() as other:
        for one in (client, other):
            fleet(one, "V1")
        recorded = {**OLD, "timestamp": "2026-01-01T00:00:00.000Z"}
        id = client.post("/events", json=recorded).json()["id"]
        move(server, key)
        move(server, key, "2026-01-15T00:00:00.000Z")  # it never goes back
        answer = client.post("/events", json=OLD)
        assert (answer.status_code, answer.headers["tether-error"]) == (409, EXPIRED)
        assert HORIZON in answer.json()["message"]
        nowhere = client.post("/events", json={**OLD, "chargerId": "nowhere"})
        assert nowhere.headers["tether-error"] == EXPIRED
        kinds: list[dict[str, Any]] = [
            OLD, {**OLD, "timestamp": HORIZON}, recorded, {**recorded, "stateOfCharge": 7},
            {name: value for name, value in OLD.items() if name != "timestamp"},
        ]  # fmt: skip
        results = client.post("/events/bulk", json=kinds).json()
        assert [one["status"] for one in results] == [409, 201, 201, 409, 201]
        assert results[0]["message"] == answer.json()["message"]
        assert (results[0]["code"], results[0]["parameter"]) == ("event-expired", "timestamp")
        assert results[2]["id"] == client.post("/events", json=recorded).json()["id"] == id
        assert results[3]["code"] == "event-contradicts"
        assert len(client.get("/events").json()) == 3
        assert other.post("/events", json=OLD).status_code == 201
    with Client(server.url, key) as sdk, pytest.raises(Conflict) as caught:
        sdk.events.post(
            Event(type=OLD["type"], charger_id="C1", vehicle_id="V1", timestamp=OLD["timestamp"])
        )
    assert caught.value.code == "event-expired"


def test_the_operator_says_for_how_long(server: Server, tmp_path: Path) -> None:
    command, key = Command(tmp_path, server.database), server.key("kept")
    shown = command.ok("partners", "retention", "kept")
    assert "as the server says: --event-days" in shown
    assert "none yet" in shown
    asked = ("--events", "400d", "--requests", "forever", "--attempts", "36h")
    shown = command.ok("partners", "retention", "kept", *asked)
    assert "400 days" in shown
    assert "1.5 days" in shown
    move(server, key)
    assert command.json("partners", "retention", "kept", "--attempts", "default") == {
        "partner": "kept", "eventDays": 400, "requestDays": 0, "attemptDays": None,
        "horizon": HORIZON,
    }  # fmt: skip
    with server.client(key) as client:
        fleet(client, "V1")
        assert client.post("/events", json={**OLD, "timestamp": HORIZON}).status_code == 201
    shorter = ("partners", "retention", "kept", "--events", "90d")
    status, seen = command.in_terminal(*shorter, answer="n\n")
    assert status == 1
    assert "what is older of kept: 1 event." in seen
    assert command.json("partners", "retention", "kept")["eventDays"] == 400
    assert "of kept: 1 event." in command(*shorter).stderr
    assert command.json("partners", "retention", "kept")["eventDays"] == 90
    command.ok("partners", "retention", "kept", "--events", "400d")
    said = command.refused("partners", "retention", "kept", "--events", "3h", status=2)
    assert "a day at least" in said
    said = command.refused("partners", "retention", "kept", "--events", "1y", status=2)
    assert "forever and default" in said
    assert "no partner" in command.refused("partners", "retention", "nobody", "--events", "9d")
    with server.client(key) as client:
        found = client.get("/audit", params={"action": "retention.change"}).json()
    server_says = "as the server says"
    assert [one["after"] for one in found][:-2] == [
        {"events": "400 days", "requests": "for ever", "attempts": "1.5 days"},
        {"attempts": server_says},
    ]
    assert found[1]["before"] == {"attempts": "1.5 days"}
    assert found[0]["actor"] == "operator"
