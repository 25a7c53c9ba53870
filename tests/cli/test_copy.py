"""`tether copy` moves everything to another database, and clients of the API do not notice."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.helpers import create_both
from tests.commands import Command
from tests.conftest import Server
from tests.lists import everything
from tests.wire import event
from tether.domain.errors import SetupError
from tether.server.databases import database_of
from tether.storage import copying

EVENTS = 300
Progress = Callable[[float], None]


def bulk(first: int, count: int) -> bytes:
    return b"\n".join(
        event(number, vehicle="V1", charger="C1").replace(
            b"_CONNECTED", b"_CONNECTED" if number % 2 else b"_DISCONNECTED"
        )
        for number in range(first, first + count)
    )


def visible(client: httpx.Client) -> dict[str, Any]:
    """All that a partner can read."""
    paths = ("/chargers", "/vehicles", "/events", "/events/withdrawn", "/sessions")
    seen: dict[str, Any] = {path: everything(client, path) for path in paths}
    seen["epoch"] = client.get("/events").headers["tether-epoch"]
    return seen


@contextmanager
def no_progress(what: str, total: float) -> Iterator[Progress]:
    yield lambda done: None


def test_from_sqlite_to_postgresql_and_back_nobody_notices(
    new_server: Callable[..., Server],
    tether: Command,
    new_postgres_database: Callable[[], str],
    tmp_path: Path,
) -> None:
    first = new_server(database=tether.database)
    keys = [first.key("A"), first.key("B")]
    revoked = first.key("A")
    tether.ok("keys", "revoke", revoked)
    places = []
    for place, key in enumerate(keys):
        with first.client(key) as client:
            create_both(client)
            stored = client.post("/events/bulk", content=bulk(place, EVENTS)).json()
            # Also the newest, behind which numbers go on.
            gone = [item["id"] for item in (stored[3], stored[-1])]
            client.post("/events/withdraw", json=gone).raise_for_status()
            page = client.get("/events?limit=100")
            changes = client.get("/sessions?updatedFrom=2020-01-01T00:00:00Z&limit=40")
            places.append(
                [httpx.URL(answer.links["next"]["url"]).raw_path for answer in (page, changes)]
            )
    clients = [first.client(key) for key in keys]
    seen = [visible(client) for client in clients]
    followed = [
        [client.get(place.decode()).json() for place in of]
        for client, of in zip(clients, places, strict=True)
    ]
    assert first.stop() == 0

    source = tether.database
    for target in (new_postgres_database(), str(tmp_path / "back.db"), new_postgres_database()):
        said = tether.ok("copy", "--from", source, "--to", target)
        assert "none differs" in said
        assert "All sessions are what their events say" in said
        if "//" not in target:
            tether.ok("check", "--full", "--port", "0", "--database", target)
        server = new_server(database=target)
        clients = [server.client(key) for key in keys]
        assert [visible(client) for client in clients] == seen
        assert followed == [
            [client.get(place.decode()).json() for place in of]
            for client, of in zip(clients, places, strict=True)
        ]
        with server.client(revoked) as client:
            assert client.get("/events").status_code == 403
        # The next event follows the others, and sessions go on.
        number = 1000 + len(seen[0]["/events"])
        answer = clients[0].post("/events/bulk", content=bulk(number, 2))
        assert [item["status"] for item in answer.json()] == [201, 201]
        seen[0] = visible(clients[0])
        assert seen[0]["/events"][-1]["id"] == answer.json()[1]["id"]
        assert followed[0][0] != []
        followed[0] = [clients[0].get(place.decode()).json() for place in places[0]]
        assert server.stop() == 0
        source = target


class Interrupted(Exception):
    """As if by Ctrl-C."""


@contextmanager
def breaking_off(what: str, total: float) -> Iterator[Progress]:
    def done(rows: float) -> None:
        if rows > total / 3:  # amidst the events
            raise Interrupted

    yield done


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_what_was_interrupted_is_not_served_and_goes_on(
    new_server: Callable[..., Server],
    tether: Command,
    new_postgres_database: Callable[[], str],
    tmp_path: Path,
    engine: str,
) -> None:
    target = new_postgres_database() if engine == "postgres" else str(tmp_path / "copy.db")
    server = new_server(database=tether.database)
    key = server.key("A")
    with server.client(key) as client:
        create_both(client)
        client.post("/events/bulk", content=bulk(0, 6_000)).raise_for_status()
        seen = visible(client)
        busy = tether.refused("copy", "--from", tether.database, "--to", target)
        assert "is served by process" in busy
    assert server.stop() == 0

    with pytest.raises(Interrupted):
        copying.copy(database_of(tether.database), database_of(target), breaking_off)
    for command in (("serve", "--port", "0"), ("keys", "list"), ("migrate",)):
        assert "is a copy that is not whole" in tether.refused(*command, "--database", target)
    other = str(tmp_path / "other.db")
    tether.ok("migrate", "--database", other)
    assert "copy of something else" in tether.refused("copy", "--from", other, "--to", target)
    tether.ok("copy", "--from", tether.database, "--to", target)
    said = tether.refused("copy", "--from", tether.database, "--to", target)
    assert "has something in it" in said
    assert "the same database" in tether.refused("copy", "--from", target, "--to", target)
    said = tether.refused("copy", "--from", "nothing.db", "--to", target)
    assert said == "There is no database nothing.db."
    served = new_server(database=target)
    with served.client(key) as client:
        assert visible(client) == seen
    if engine == "postgres":
        busy = tether.refused("copy", "--from", target, "--to", str(tmp_path / "third.db"))
        assert "is in use" in busy


def test_a_source_that_changed_since_is_found(tether: Command, tmp_path: Path) -> None:
    target = str(tmp_path / "copy.db")
    for name in ("a", "b", "c", "d"):
        tether.ok("keys", "create", name)

    @contextmanager
    def broken(what: str, total: float) -> Iterator[Progress]:
        if what == "Comparing":
            raise Interrupted
        yield lambda done: None

    with pytest.raises(Interrupted):
        copying.copy(database_of(tether.database), database_of(target), broken)
    tether.ok("partners", "rename", "a", "z")
    with pytest.raises(SetupError, match="was changed since the copy began"):
        copying.copy(database_of(tether.database), database_of(target), no_progress)
