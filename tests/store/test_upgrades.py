"""What an older file holds is there after an upgrade."""

from contextlib import closing
from pathlib import Path

from tests.conftest import Server
from tests.store.test_contract import event, put_site
from tether.model import EventType, to_json
from tether.store.dialect import SQLITE
from tether.store.migrate import ADD_VERSION, CREATE_VERSION_TABLE, steps
from tether.store.sqlite import connect, native
from tether.store.sqlite_file import APPLICATION_ID

CLUSTERED_SESSIONS = 4  # the last schema in which they were
TABLES = (
    "partners", "keys", "chargers", "vehicles", "events", "sessions", "session_versions",
    "derivations", "listings", "list_of_charger", "list_of_vehicle", "list_by_time",
)  # fmt: skip


def test_sessions_are_as_they_were_and_go_on(tmp_path: Path) -> None:
    new, old = tmp_path / "new.db", tmp_path / "old.db"
    server = Server(str(new)).start()
    key = server.key("acme")
    with server.client(key) as client:
        put_site(client)
        for second in range(41):
            kind = EventType.VEHICLE_DISCONNECTED if second % 2 else EventType.VEHICLE_CONNECTED
            assert client.post("/events", content=to_json(event(second, kind))).status_code == 201
        sessions = client.get("/sessions?limit=1000").json()
    assert server.stop() == 0
    assert len(sessions) == 21
    _make_older(old, new)

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


def _make_older(path: Path, content: Path) -> None:
    """A file of an older schema with the content of a new one."""
    with closing(connect(path, create=True)) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}").fetchall()
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute(CREATE_VERSION_TABLE).fetchall()
        for step in steps(SQLITE)[:CLUSTERED_SESSIONS]:
            connection.execute(step.script).fetchall()
            connection.execute(native(ADD_VERSION), (step.version,)).fetchall()
        connection.execute("ATTACH ? AS content", (str(content),)).fetchall()
        for table in TABLES:
            connection.execute(f"INSERT INTO {table} SELECT * FROM content.{table}").fetchall()
