"""An upgrade keeps the data of databases of older versions, and they can be used."""

import gzip
import json
from collections.abc import Callable
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.commands import tether_ok
from tests.conftest import Server
from tests.fleet import put_fleet
from tests.older import make_older
from tests.store.test_contract import event
from tether.domain.models import EventType, to_json
from tether.storage.sqlite.file import connect

CLUSTERED_SESSIONS = 4  # the last schema in which they were
WITHOUT_TOTALS = 11  # the last schema in which sessions had none


def test_sessions_are_as_they_were_and_go_on(tmp_path: Path) -> None:
    new, old = tmp_path / "new.db", tmp_path / "old.db"
    server = Server(str(new)).start()
    key = server.key("acme")
    with server.client(key) as client:
        put_fleet(client)
        for second in range(41):
            kind = EventType.VEHICLE_DISCONNECTED if second % 2 else EventType.VEHICLE_CONNECTED
            assert client.post("/events", content=to_json(event(second, kind))).status_code == 201
        sessions = client.get("/sessions?limit=1000").json()
    assert server.stop() == 0
    assert len(sessions) == 21
    make_older(old, new, CLUSTERED_SESSIONS)

    server = Server(str(old)).start()
    with server.client(key) as client:
        assert client.get("/sessions?limit=1000").json() == sessions
        assert client.get("/sessions?limit=1000&vehicleId=V1").json() == sessions
        assert client.get("/sessions?status=active").json() == sessions[-1:]
        left = event(50, EventType.VEHICLE_DISCONNECTED)
        assert client.post("/events", content=to_json(left)).status_code == 201
        *before, last = client.get("/sessions?limit=1000").json()
        assert before == sessions[:-1]
        assert last["id"] == sessions[-1]["id"]
        assert last["status"] == "ended"
    assert server.stop() == 0


def test_sessions_get_their_totals_without_another_version(tmp_path: Path) -> None:
    new, old = tmp_path / "new.db", tmp_path / "old.db"
    server = Server(str(new)).start()
    key = server.key("acme")
    with server.client(key) as client:
        put_fleet(client)
        for second in range(0, 40, 4):
            for place, kind in enumerate((
                EventType.VEHICLE_CONNECTED, EventType.VEHICLE_CHARGE_STARTED,
                EventType.VEHICLE_CHARGE_STOPPED, EventType.VEHICLE_DISCONNECTED,
            )):  # fmt: skip
                body = to_json(event(second + place, kind))
                assert client.post("/events", content=body).status_code == 201
        sessions = client.get("/sessions?limit=1000").json()
        sums = client.get("/sessions/summary?bucket=hour").json()
    assert server.stop() == 0
    make_older(old, new, WITHOUT_TOTALS)

    server = Server(str(old)).start()
    with server.client(key) as client:
        assert client.get("/sessions?limit=1000").json() == sessions
        assert client.get("/sessions/summary?bucket=hour").json() == sums
    assert server.stop() == 0
    with closing(connect(old)) as connection:
        without = "SELECT count(*) FROM sessions WHERE energy || course || seen IS NULL"
        assert connection.execute(without).fetchall() == [(0,)]


# Databases that older versions made: see older/make.py -------------------------------------------

OLDER = Path(__file__).parent / "older"
LISTS = ("chargers", "vehicles", "events")


def unpacked(name: str, engine: str, database: str) -> dict[str, Any]:
    """Fills the database as it was; returns its key and what the older server answered."""
    content = gzip.decompress((OLDER / f"{name}.{engine}.gz").read_bytes())
    if engine == "sqlite":
        Path(database).write_bytes(content)
    else:  # lines for psql, or for one version of the server, are left out
        lines = content.decode().splitlines()
        script = "\n".join(line for line in lines if not line.startswith(("\\", "SET ")))
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(script.encode())
    answers: dict[str, Any] = json.loads(
        gzip.decompress((OLDER / f"{name}.{engine}.json.gz").read_bytes())
    )
    return answers


def sessions_of(client: httpx.Client) -> list[Any]:
    """All sessions, without the time and number of their changes."""
    answer = client.get("/sessions?limit=1000")
    assert answer.status_code == 200, answer.text
    return [
        {name: value for name, value in one.items() if name not in ("updatedAt", "version")}
        for one in answer.json()
    ]


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
@pytest.mark.parametrize("name", ["first", "before-evidence", "before-known"])
def test_what_an_older_version_stored_is_there_and_its_sessions_follow_the_rules_of_now(
    name: str, engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    database = str(tmp_path / "older.db")
    if engine == "postgres":
        make: Callable[[], str] = request.getfixturevalue("new_postgres_database")
        database = make()
    answers = unpacked(name, engine, database)
    server = Server(database).start()
    try:
        with server.client(answers["key"]) as client, server.client() as another:
            for kind in LISTS:
                assert client.get(f"/{kind}?limit=1000").json() == answers[kind]
            assert sessions_of(client)
            for kind in ("chargers", "vehicles"):
                for one in answers[kind]:
                    assert client.get(f"/{kind}/{one['id']}/state").status_code == 200
                    assert another.put(f"/{kind}/{one.pop('id')}", json=one).status_code == 201
            for one in answers["events"]:  # the same again, and for a partner of this version
                event = {name: value for name, value in one.items() if name != "id"}
                assert client.post("/events", json=event).json() == {"id": one["id"]}
                assert another.post("/events", json=event).status_code == 201
            late = {**answers["events"][0], "timestamp": "2026-01-04T00:00:00.000Z"}
            del late["id"]
            for each in (client, another):
                assert each.post("/events", json=late).status_code == 201
                assert sessions_of(each)
            tether_ok("rebuild", "--check", "--database", database)
            assert sessions_of(client) == sessions_of(another)
    finally:
        assert server.stop() == 0
    assert server.failures() == []


def test_each_step_has_a_number_of_its_own() -> None:
    folder = files("tether.storage").joinpath("migrations")
    names = {file.name.partition(".")[0] for file in folder.iterdir() if file.name.endswith(".sql")}
    numbers = sorted(int(name.partition("_")[0]) for name in names)
    assert numbers == list(range(1, len(names) + 1))
