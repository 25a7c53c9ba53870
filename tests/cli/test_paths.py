"""How many of our files a request, or a command, enters: a reader has to open all of them.

A file is entered when code of another file calls one of its functions, in any thread, from the
first byte of a request to the last byte of its answer. Of several requests, the one that entered
the fewest files counts: during the others a key was read again, or sessions were derived.
docs/architecture.md follows the same requests. `pytest -s` shows them.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import sleep

import httpx
import pytest

from tests.conftest import Server

TRACED = Path(__file__).with_name("traced.py")
ARCHITECTURE = Path(__file__).parents[2] / "docs" / "architecture.md"
REQUESTS, TRIES = 12, 20
ALIKE = 3  # this number ran alone; other work at the same time varies
EVENT = {
    "type": "VEHICLE_CHARGE_UPDATED",
    "chargerId": "C1",
    "vehicleId": "V1",
    "stateOfCharge": 40,
    "chargePower": 7.4,
}


class TracedServer(Server):
    """A server that records the files that each request enters."""

    trace: Path

    def way(self, requests: list[httpx.Request], client: httpx.Client) -> list[str]:
        """The files that one of these requests entered, in their order.

        On a busy machine they are sent again, until nothing happens beside some of them.
        """
        ways: list[list[str]] = []
        for _ in range(TRIES):
            self.trace.write_text("")
            for request in requests:
                client.send(request).raise_for_status()
                sleep(0.05)  # for the work after the answer
            ways += [json.loads(line) for line in self.trace.read_text().splitlines()]
            ways.sort(key=length)
            if length(ways[0]) == length(ways[ALIKE - 1]):
                break
        return ways[0]


def length(way: list[str]) -> tuple[int, int]:
    """The number of files, and the number of entries."""
    return len(set(way)), len(way)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TracedServer]:
    folder = tmp_path_factory.mktemp("traced")
    trace = folder / "trace"
    server = TracedServer(
        str(folder / "tether.db"), program=[sys.executable, str(TRACED), str(trace)]
    )
    server.trace = trace
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def client(server: TracedServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        charger = {"chargePowers": [11], "latitude": 62.2, "longitude": 17.4}
        client.put("/chargers/C1", json=charger).raise_for_status()
        vehicle = {"chargePowers": [11], "chargeCapacity": 60}
        client.put("/vehicles/V1", json=vehicle).raise_for_status()
        client.post("/events", json=EVENT).raise_for_status()
        client.get("/sessions").raise_for_status()
        yield client


def hold(name: str, way: list[str], files: int, entries: int) -> None:
    """Prints the files, and checks that they are not more than this."""
    firsts = list(dict.fromkeys(way))
    shown = "\n".join(f"  {number:2} {file}" for number, file in enumerate(firsts, start=1))
    print(f"\n{name}: {len(firsts)} files, entered {len(way)} times\n{shown}")
    assert len(firsts) <= files, shown
    named = ARCHITECTURE.read_text()
    unnamed = [file for file in firsts if f"`{file}`" not in named]
    assert not unnamed, f"{ARCHITECTURE.name} does not say what {name} does in {unnamed}"
    assert len(way) <= entries, way


def test_an_event(server: TracedServer, client: httpx.Client) -> None:
    posts = [client.build_request("POST", "/events", json=EVENT) for _ in range(REQUESTS)]
    hold("POST /events", server.way(posts, client), files=12, entries=30)


def test_a_list_of_sessions(server: TracedServer, client: httpx.Client) -> None:
    gets = [client.build_request("GET", "/sessions") for _ in range(REQUESTS)]
    hold("GET /sessions", server.way(gets, client), files=12, entries=35)


def test_a_new_key(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    environment = {**os.environ, "TETHER_DATABASE": str(tmp_path / "tether.db")}
    for _ in range(2):  # the first one makes the database
        with suppress(FileNotFoundError):
            trace.unlink()
        subprocess.run(
            [sys.executable, str(TRACED), str(trace), "keys", "create", "acme"],
            env=environment, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    hold("tether keys create", json.loads(trace.read_text()), files=17, entries=61)
