"""The events of a charger, a vehicle or both, also of those that are not in the lists yet."""

import asyncio
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.conftest import Server
from tests.store.conftest import events_page
from tests.store.test_contract import add_site, charger, event, listed, report, vehicle
from tether.domain.filters import EventFilter
from tether.domain.models import EventType, to_json
from tether.domain.timestamps import parse_instant
from tether.server.store import Store
from tether.storage.dialect import SQLITE
from tether.storage.migrate import ADD_VERSION, CREATE_VERSION_TABLE, steps
from tether.storage.sqlite.file import APPLICATION_ID, connect, native

CHARGER = to_json(charger()).decode()
VEHICLE = to_json(vehicle()).decode()
CHARGERS, VEHICLES = ["C1", "C2", "C3"], ["V1", "V2", "V3"]


def test_filters_show_every_event_once_however_many_are_listed(
    in_store: Callable[..., Any],
) -> None:
    async def scenario(store: Store, partner: int) -> None:
        for charger_id, vehicle_id in zip(CHARGERS, VEHICLES, strict=True):
            await store.entities.put(partner, charger(charger_id))
            await store.entities.put(partner, vehicle(vehicle_id))
        chosen = random.Random(4711)
        stored: list[tuple[str, str, str]] = []
        for turn in range(6):
            made = []
            for second in range(40 * turn, 40 * turn + 40):
                place = chosen.choice(CHARGERS), chosen.choice(VEHICLES)
                made.append((event(second, charger_id=place[0], vehicle_id=place[1]), place))
            ids = await report(store, partner, [one for one, _ in made])
            stored += [(str(id), *place) for id, (_, place) in zip(ids, made, strict=True)]
            if turn % 2:  # the others are listed by and by, or not yet
                await store.projector.catch_up(partner)
            await check(store, partner, stored)
        await store.projector.catch_up(partner)
        await check(store, partner, stored)

    async def check(store: Store, partner: int, stored: list[tuple[str, str, str]]) -> None:
        for charger_id in (None, *CHARGERS):
            for vehicle_id in (None, *VEHICLES):
                wanted = EventFilter(charger_id=charger_id, vehicle_id=vehicle_id)
                expected = [
                    id for id, at, of in stored
                    if charger_id in (None, at) and vehicle_id in (None, of)
                ]  # fmt: skip
                for descending in (False, True):
                    found = await pages(store, partner, wanted, descending)
                    assert found == (expected[::-1] if descending else expected)

    async def pages(store: Store, partner: int, wanted: EventFilter, descending: bool) -> list[str]:
        found: list[str] = []
        after = None
        while page := (
            await events_page(store, partner, wanted, after=after, limit=7, descending=descending)
        ).events:
            found += [msgspec.json.decode(body)["id"] for _, body in page]
            after = page[-1][0]
        return found

    in_store(scenario)


def test_filters_meet_events_that_are_being_listed(in_store: Callable[..., Any]) -> None:
    async def scenario(store: Store, partner: int) -> None:
        await add_site(store, partner)
        posted = 0

        async def post() -> None:
            nonlocal posted
            for start in range(0, 2000, 20):
                await report(store, partner, [event(second) for second in range(start, start + 20)])
                posted = start + 20
                if start % 100 == 0:
                    await store.projector.catch_up(partner)

        posting = asyncio.create_task(post())
        while not posting.done():
            least = posted
            for wanted in (EventFilter(charger_id="C1"), EventFilter(vehicle_id="V1")):
                found = await listed(store, partner, wanted, limit=10_000)
                assert len(found) == len(set(found)) >= least
                assert found == sorted(found)
        await posting

    in_store(scenario)


@pytest.fixture
def older(tmp_path: Path) -> str:
    """A file of the version before the lists, with 50 events that are not derived."""
    path = tmp_path / "older.db"
    path.touch()
    connection = connect(path)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}").fetchall()
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute(CREATE_VERSION_TABLE).fetchall()
    for step in steps(SQLITE)[:2]:
        connection.execute(step.script).fetchall()
        connection.execute(native(ADD_VERSION), (step.version,)).fetchall()
    connection.execute("INSERT INTO partners VALUES (7, 'acme', 1)").fetchall()
    connection.execute("INSERT INTO chargers VALUES (7, 'C1', 1, ?)", (CHARGER,)).fetchall()
    connection.execute("INSERT INTO vehicles VALUES (7, 'V1', 1, ?)", (VEHICLE,)).fetchall()
    body = '{"id":"%s","type":"%s","chargerId":"C1","vehicleId":"V1","timestamp":"%s"}'
    first_ms = parse_instant("2026-05-01T00:00:00Z")
    for number in range(50):
        id = f"01999999-9999-7999-9999-{number:012}"
        kind = EventType.VEHICLE_DISCONNECTED if number % 2 else EventType.VEHICLE_CONNECTED
        row = (7, number + 1, id, kind, "C1", "V1", first_ms + 1000 * number, 0,
               body % (id, kind, f"2026-05-01T00:00:{number:02}.000Z"))  # fmt: skip
        connection.execute("INSERT INTO events VALUES (?,?,?,?,?,?,?,?,?)", row).fetchall()
    connection.close()
    return str(path)


def test_the_events_of_an_older_file_are_listed_and_derived(older: str) -> None:
    server = Server(older).start()
    with server.client(server.key("acme")) as client:
        for name, value in (("chargerId", "C1"), ("vehicleId", "V1")):
            found = client.get("/events", params={name: value, "limit": 1000}).json()
            assert [one["id"][-2:] for one in found] == [f"{number:02}" for number in range(50)]
        assert len(client.get("/sessions", params={"limit": 1000}).json()) == 25
        # It is late: the events around it are read by time.
        late = {"type": "VEHICLE_CHARGE_STARTED", "chargerId": "C1", "vehicleId": "V1",
                "timestamp": "2026-05-01T00:00:38.500Z", "stateOfCharge": 20}  # fmt: skip
        answer = client.post("/events", json=late)
        assert answer.status_code == 201, answer.text
        sessions = client.get("/sessions", params={"limit": 1000}).json()
        assert [len(one["periods"]) for one in sessions] == [0] * 19 + [1] + [0] * 5
    assert server.stop() == 0
    with closing(sqlite3.connect(older)) as database:
        for table in ("list_of_charger", "list_of_vehicle", "list_by_time"):
            assert database.execute(f"SELECT count(*) FROM {table}").fetchone() == (51,)


MORE_EVENTS = """
WITH RECURSIVE numbers (n) AS (SELECT 100 UNION ALL SELECT n + 1 FROM numbers WHERE n < 200000)
INSERT INTO events SELECT 7, n, n + 1000000, 'VEHICLE_CONNECTED', printf('%060d', n),
                          printf('%060d', n), n, 0, '{}' FROM numbers
"""
MIGRATE = """
import sys
from pathlib import Path
from tether.storage.sqlite.file import SqliteFile
SqliteFile(Path(sys.argv[1])).migrate()
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


def test_an_upgrade_takes_no_more_memory_for_more_events(older: str) -> None:
    with closing(connect(Path(older))) as connection:
        connection.execute(MORE_EVENTS).fetchall()
    kib = subprocess.check_output([sys.executable, "-c", MIGRATE, older], text=True)
    assert int(kib) < 60_000
