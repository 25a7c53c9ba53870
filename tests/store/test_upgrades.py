"""What an older file holds is there after an upgrade."""

from pathlib import Path

from tests.conftest import Server
from tests.older import make_older
from tests.store.test_contract import event, put_site
from tether.domain.models import EventType, to_json

CLUSTERED_SESSIONS = 4  # the last schema in which they were


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
