"""A bulk request fails in the middle: each item says whether it was stored."""

import json
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import httpx
import pytest

from tests.conftest import Server
from tests.fleet import put_fleet
from tests.sql import execute
from tests.wire import pid_of
from tether.domain.timestamps import format_instant

EVENTS = 10_000
LAST = 2_000  # of them are of another vehicle
FIRST_MS = 1_700_000_000_000
PATIENCE_S = 240
ROOM_BYTES = 500_000
_FAIL = """
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; END $$;
CREATE TRIGGER fails BEFORE INSERT ON events FOR EACH ROW
WHEN (NEW.vehicle_id = 'V2') EXECUTE FUNCTION fail();
"""


class Trouble(Protocol):
    """Makes a database store the first events of a request, but not the last."""

    def begin(self, attempt: int) -> None:
        """Begins to refuse events; later attempts leave more space."""

    def end(self) -> None:
        """Accepts all events again."""


class SmallLog:
    """Limits the size of SQLite's log."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def begin(self, attempt: int) -> None:
        size = Path(f"{self._server.database}-wal").stat().st_size
        self._limit(size + attempt * ROOM_BYTES)

    def end(self) -> None:
        self._limit(resource.RLIM_INFINITY)

    def _limit(self, size: int) -> None:
        pid = pid_of(self._server)
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard if size < 0 else size, hard))


class FullTable:
    """PostgreSQL refuses the events of the second vehicle, as with a full disk."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def begin(self, attempt: int) -> None:
        if attempt == 1:
            execute(self._server.database, _FAIL)

    def end(self) -> None:
        execute(self._server.database, "DROP TRIGGER fails ON events")


@contextmanager
def reporting(client: httpx.Client) -> Iterator[None]:
    """Meanwhile another partner posts events, so that the portions of a request are small."""
    done = threading.Event()

    def report() -> None:
        event = {"type": "VEHICLE_CONNECTED", "chargerId": "C1", "vehicleId": "V1"}
        while not done.is_set():
            assert client.post("/events", json=event).status_code in (201, 503)

    thread = threading.Thread(target=report)
    thread.start()
    yield
    done.set()
    thread.join()


def sent(number: int) -> dict[str, Any]:
    vehicle = "V1" if number < EVENTS - LAST else "V2"
    kind = ("VEHICLE_CONNECTED", "VEHICLE_DISCONNECTED")[number % 2]
    at = format_instant(FIRST_MS + number * 1000)
    return {"type": kind, "chargerId": "C1", "vehicleId": vehicle, "timestamp": at}


def listed(client: httpx.Client) -> list[str]:
    """The ids of all events, in the order in which they were stored."""
    found: list[str] = []
    path: str | None = "/events?limit=1000"
    while path is not None:
        answer = client.get(path).raise_for_status()
        found += [event["id"] for event in answer.json()]
        path = answer.links.get("next", {}).get("url") if answer.json() else None
    return found


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_what_was_stored_before_it_failed_says_so_and_a_retry_counts_nothing_twice(
    new_server: Callable[..., Server], request: pytest.FixtureRequest, engine: str
) -> None:
    database = None
    if engine == "postgres":
        database = request.getfixturevalue("new_postgres_database")()
    server = new_server(database=database)
    trouble: Trouble = SmallLog(server) if engine == "sqlite" else FullTable(server)
    body = "\n".join(json.dumps(sent(number)) for number in range(EVENTS))
    with server.client(timeout=240) as client, server.client(timeout=240) as other:
        put_fleet(client, vehicles=("V1", "V2"))
        put_fleet(other, vehicles=("V1", "V2"))

        def post() -> list[dict[str, Any]]:
            answer = client.post("/events/bulk", content=body)
            if answer.status_code == 503:  # nothing of it is stored
                return [{"status": 503}] * EVENTS
            assert answer.status_code == 200, answer.text
            found: list[dict[str, Any]] = answer.json()
            return found

        known: dict[int, str] = {}
        deadline, attempt = monotonic() + PATIENCE_S, 0
        while len(known) in (0, EVENTS):  # none, when all of them were one portion
            assert monotonic() < deadline, "it does not fail in the middle"
            assert not known, "it does not fail"
            attempt += 1
            trouble.begin(attempt)
            with reporting(other):
                first = post()
            assert {one["status"] for one in first} <= {201, 503}
            known = {place: one["id"] for place, one in enumerate(first) if one["status"] == 201}
        refused = [one for one in first if one["status"] == 503]
        assert {one["code"] for one in refused} == {"unavailable"}
        assert list(known) == list(range(len(known))), "what is stored came first"
        assert listed(client) == list(known.values())

        trouble.end()
        again = post()
        assert {one["status"] for one in again} == {201}
        assert {place: again[place]["id"] for place in known} == known
        assert listed(client) == [one["id"] for one in again]
