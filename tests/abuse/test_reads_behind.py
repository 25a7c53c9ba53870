"""While events wait to be derived, readers get a 503, or at once what is derived by now."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from time import monotonic, sleep
from typing import Any

import httpx
import pytest

from tests.conftest import Server
from tests.derivation.helpers import prepare
from tests.sql import execute
from tether.client import Client
from tether.server.databases import is_postgres

# Nothing can be derived with these.
STUCK = {
    "sqlite": """
        CREATE TRIGGER stuck BEFORE UPDATE ON derivations BEGIN SELECT RAISE(ABORT, 'stuck'); END
    """,
    "postgres": """
        CREATE FUNCTION stuck() RETURNS trigger AS 'BEGIN RAISE ''stuck''; END' LANGUAGE plpgsql;
        CREATE TRIGGER stuck BEFORE UPDATE ON derivations EXECUTE FUNCTION stuck()
    """,
}
FREE = {"sqlite": "DROP TRIGGER stuck", "postgres": "DROP FUNCTION stuck CASCADE"}
AT_ONCE_S = 3.0  # readers wait five seconds for derivation
READS = (
    "/sessions", "/sessions?updatedFrom=2000-01-01T00:00:00Z", "/chargers/A/state",
    "/vehicles?include=state", "/chargers?include=state", "/vehicles/V1/state", "/capacity",
    "/capacity?by=charger", "/capacity?from=2026-01-05T00:00:00Z&to=2026-01-06T00:00:00Z&step=3600",
)  # fmt: skip


@contextmanager
def stuck(database: str) -> Iterator[None]:
    """Meanwhile nothing is derived."""
    engine = "postgres" if is_postgres(database) else "sqlite"
    execute(database, STUCK[engine])
    try:
        yield
    finally:
        execute(database, FREE[engine])


def report(client: httpx.Client, minute: int, kind: str = "CHARGE_UPDATED") -> None:
    body = {"type": f"VEHICLE_{kind}", "chargerId": "A", "vehicleId": "V1",
            "timestamp": f"2026-01-05T08:{minute:02}:00Z", "stateOfCharge": minute}  # fmt: skip
    answer = client.post("/events", json=body)
    assert answer.status_code == 201, answer.text


def with_stale(path: str) -> str:
    return f"{path}{'&' if '?' in path else '?'}stale=allowed"


def waiting(client: httpx.Client, answer: httpx.Response) -> int:
    """How many events follow the cursor of the answer, which is the last derived event."""
    cursor = answer.headers["Tether-Derived-To"]
    return len(client.get("/events", params={"cursor": cursor}).json())


@pytest.fixture(scope="module")
def server(own_database: str) -> Iterator[Server]:
    """A server for these tests alone, because its log has failures."""
    server = Server(own_database).start()
    yield server
    assert server.stop() == 0


@pytest.fixture
def behind(server: Server) -> Iterator[httpx.Client]:
    """A partner with one event that is derived and three that wait."""
    with server.client() as client:
        prepare(client, ["V1"])
        report(client, 0, "CONNECTED")
        assert len(client.get("/sessions").json()) == 1
        with stuck(server.database):
            for minute in (1, 2, 3):
                report(client, minute)
            yield client


def test_who_must_wait_is_told_for_what_and_how_long(behind: httpx.Client, server: Server) -> None:
    answer = behind.get("/sessions")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    message = answer.json()["message"]
    assert message == (
        "Service Unavailable: 3 events wait to be derived, which failed. Try again in 10 s, or add "
        "stale=allowed for what is derived by now."
    )
    assert cause_in(server, answer.headers["X-Request-Id"]) == message


def cause_in(server: Server, request_id: str) -> str:
    """The cause of the 503 in the log."""
    deadline = monotonic() + 60
    while monotonic() < deadline:
        for line in server.log:
            if request_id in line and '"unavailable"' in line:
                return str(json.loads(line)["cause"])
        sleep(0.05)
    raise AssertionError("the log says nothing")


def test_who_takes_what_there_is_gets_it_at_once(behind: httpx.Client) -> None:
    (session,) = behind.get("/sessions?stale=allowed").json()
    for path in (*READS, f"/sessions/{session['id']}"):
        began = monotonic()
        answer = behind.get(with_stale(path))
        assert (answer.status_code, waiting(behind, answer)) == (200, 3), path
        assert monotonic() - began < AT_ONCE_S, path
        head = behind.head(with_stale(path))
        assert head.headers["Tether-Derived-To"] == answer.headers["Tether-Derived-To"]
    assert session["stateOfChargeEnd"] == 0
    assert behind.get("/vehicles/V1/state?stale=allowed").json()["stateOfCharge"] == 0
    (vehicle,) = behind.get("/vehicles?include=state&stale=allowed").json()
    assert vehicle["state"]["stateOfCharge"] == 0


def test_the_sdk_takes_what_there_is_and_follows_it(behind: httpx.Client, server: Server) -> None:
    key = behind.headers["x-api-key"]
    with Client(server.url, key, retries=0) as client:
        (session,) = client.sessions.list(stale_allowed=True)
        assert client.sessions.get(session.id, stale_allowed=True) == session
        assert client.vehicles.state("V1", stale_allowed=True).plugged_in
        assert client.chargers.state("A", stale_allowed=True).occupied
        assert [one.plugged_in for _, one in client.vehicles.list_with_state(stale_allowed=True)]
        assert client.capacity.get(stale_allowed=True).vehicles_plugged_in == 1
        assert [one.charger_id for one in client.capacity.by_charger(stale_allowed=True)] == ["A"]
        began = monotonic()
        assert list(islice(client.sessions.changes(), 1)) == [session]
        assert monotonic() - began < AT_ONCE_S


def test_a_page_that_follows_is_as_stale_as_the_one_before(behind: httpx.Client) -> None:
    link = behind.get("/sessions?updatedFrom=2000-01-01T00:00:00Z&stale=allowed").links["next"]
    answer = behind.get(link["url"])
    assert (answer.status_code, answer.json(), waiting(behind, answer)) == (200, [], 3)


def test_what_was_acknowledged_is_found_once_it_is_derived(server: Server) -> None:
    with server.client() as client:
        prepare(client, ["V1"])
        with stuck(server.database):
            report(client, 1, "CONNECTED")
            nothing = client.get("/sessions?stale=allowed")
            assert (nothing.json(), waiting(client, nothing)) == ([], 1)
        answer = client.get("/sessions")
        while answer.status_code == 503:
            answer = client.get("/sessions")
        assert len(answer.json()) == 1
        everything = client.get("/sessions?stale=allowed")
        assert (everything.json(), waiting(client, everything)) == (answer.json(), 0)


@pytest.mark.parametrize("path", [*READS, "/sessions/019b8e07-4600-8e3e-8a6f-e87eb309ed63"])
def test_nothing_but_allowed_is_taken(client: httpx.Client, path: str) -> None:
    prepare(client, ["V1"])
    answer = client.get(with_stale(path).replace("allowed", "yes"))
    assert answer.status_code == 400
    assert answer.json()["message"] == (
        "Parameter {stale} is invalid. It must be allowed, or left out."
    )


def test_without_states_nothing_can_be_stale(client: httpx.Client) -> None:
    for path in ("/chargers", "/vehicles"):
        answer: Any = client.get(f"{path}?stale=allowed")
        assert answer.status_code == 400
        assert "include=state" in answer.json()["message"]
