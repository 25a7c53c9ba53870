import threading
from collections.abc import Callable

import httpx
import pytest

from tests.commands import Command
from tests.conftest import FAST, Server
from tests.fleet import put_fleet
from tests.sql import query
from tether.server.databases import is_postgres

CHARGER = {"chargePowers": [11]}
VEHICLE = {"chargeCapacity": 74.8, "chargePowers": [11]}
CONNECTED = {"type": "VEHICLE_CONNECTED", "chargerId": "C1", "vehicleId": "V1"}


@pytest.fixture
def command(server: Server, tether_on: Callable[[str], Command]) -> Command:
    """The command on the shared server's database, of each engine in turn."""
    return tether_on(server.database)


def test_show_tells_what_a_partner_has(server: Server, command: Command) -> None:
    key = command.key("shown", rate=FAST)
    empty = command.json("partners", "show", "shown")
    assert (empty["events"], empty["firstEventAt"], empty["lastEventAt"]) == (0, None, None)
    with server.client(key) as client:
        _fill(client, events=3)
    shown = command.json("partners", "show", "shown")
    assert [shown[name] for name in ("chargers", "vehicles", "events")] == [1, 1, 3]
    assert shown["firstEventAt"] == "2024-01-01T00:00:00.000Z"
    assert shown["lastEventAt"] == "2024-01-01T00:00:02.000Z"
    assert [one["prefix"] for one in shown["keys"]] == [key[:17]]
    text = command.ok("partners", "show", "shown")
    assert "Events    3 (first received: 2024-01-01, last: 2024-01-01)" in text


def test_list_counts_the_keys_that_work(command: Command) -> None:
    command.ok("keys", "revoke", command.key("counted"))
    command.key("counted")
    (listed,) = [one for one in command.json("partners", "list") if one["name"] == "counted"]
    assert listed["activeKeys"] == 1
    assert listed["createdAt"].endswith("Z")
    assert "counted" in command.ok("partners", "list")


def test_a_renamed_partner_keeps_keys_and_data(server: Server, command: Command) -> None:
    key = command.key("before")
    command.key("taken")
    with server.client(key) as client:
        client.put("/chargers/C1", json=CHARGER)
        command.ok("partners", "rename", "before", "after (new)")
        assert client.get("/chargers/C1").status_code == 200
    assert command.json("partners", "show", "after (new)")["chargers"] == 1
    assert "no partner 'before'" in command.refused("partners", "show", "before")
    assert "is a partner" in command.refused("partners", "rename", "after (new)", "taken")


def test_delete_erases_everything_though_a_client_goes_on_writing(
    server: Server, command: Command
) -> None:
    key = command.key("doomed", rate=FAST)
    neighbour = command.key("neighbour", rate=FAST)
    with server.client(neighbour) as client:
        _fill(client, events=1)
    writer = _Writer(server, key)
    writer.start()
    done = command("partners", "delete", "doomed", "--yes")
    writer.join(timeout=180)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Erased doomed: 1 key, 1 charger, 1 vehicle, ")
    assert writer.statuses[0] == 201
    assert writer.statuses[-1] == 403
    assert _tables_with_rows_of_nobody(server.database) == []
    command.key("doomed")
    shown = command.json("partners", "show", "doomed")
    assert [shown[name] for name in ("chargers", "vehicles", "events")] == [0, 0, 0]
    assert len(shown["keys"]) == 1
    assert command.json("partners", "show", "neighbour")["events"] == 1


def test_delete_asks_a_person_and_refuses_to_guess_without_one(tether: Command) -> None:
    tether.key("acme")
    assert "pass --yes" in tether.refused("partners", "delete", "acme")
    status, seen = tether.in_terminal("partners", "delete", "acme", answer="n\n")
    assert status == 1
    assert "This erases acme for good: 1 key, 0 chargers" in seen
    assert "Nothing was erased." in seen
    assert [one["name"] for one in tether.json("partners", "list")] == ["acme"]
    status, seen = tether.in_terminal("partners", "delete", "acme", answer="y\n")
    assert (status, "Erased acme: 1 key" in seen) == (0, True)
    assert tether.json("partners", "list") == []


class _Writer(threading.Thread):
    """A partner that sends events one after the other until its key is refused."""

    def __init__(self, server: Server, key: str) -> None:
        super().__init__(daemon=True)
        self._client = server.client(key)
        _fill(self._client, events=0)
        self.statuses: list[int] = [self._client.post("/events", json=CONNECTED).status_code]

    def run(self) -> None:
        while self.statuses[-1] != 403:
            self._client.put("/chargers/C1", json=CHARGER)
            self.statuses.append(self._client.post("/events", json=CONNECTED).status_code)
        self._client.close()


def _fill(client: httpx.Client, events: int) -> None:
    put_fleet(client)
    for second in range(events):
        body = {**CONNECTED, "timestamp": f"2024-01-01T00:00:{second:02d}Z"}
        assert client.post("/events", json=body).status_code == 201


def _tables_with_rows_of_nobody(database: str) -> list[str]:
    tables = ["keys", "chargers", "vehicles", "events"]
    if is_postgres(database):
        tables.append("event_heads")
    of_nobody = "SELECT 1 FROM {} WHERE partner NOT IN (SELECT id FROM partners)"
    return [table for table in tables if query(database, of_nobody.format(table))]
