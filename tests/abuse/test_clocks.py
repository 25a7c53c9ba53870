"""Clocks that are wrong: a revoked key stays revoked, an expired one expired."""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.conftest import TETHER, Server, new_database
from tests.console.visitors import OURS
from tests.fleet import put_fleet
from tether.domain.timestamps import parse_instant
from tether.server import retention
from tether.server.retention import CautiousClock

SHIFTED = Path(__file__).with_name("shifted_clock.py")
HOUR_S = 3600
REVOKED_S = 2


@dataclass
class Clock:
    """A clock that can be shifted. `program` runs `tether` with it."""

    file: Path

    def shift(self, seconds: float) -> None:
        """Sets the clock, also for programs that already run."""
        partial = self.file.with_suffix(".new")
        partial.write_text(str(seconds))
        partial.replace(self.file)

    @property
    def program(self) -> list[str]:
        """`tether` by this clock."""
        return [sys.executable, str(SHIFTED), str(self.file)]


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    """A clock that is right until it is set."""
    clock = Clock(tmp_path / "shift")
    clock.shift(0)
    return clock


@pytest.fixture(params=["sqlite", "postgres"])
def by_clock(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, clock: Clock
) -> Iterator[Server]:
    """A server with that clock, on each engine; not started."""
    server = Server(new_database(request, tmp_path_factory), program=clock.program)
    yield server
    if server.process is not None and server.process.poll() is None:
        server.kill()


def keys(server: Server, *words: str, program: list[str] | None = None) -> str:
    """What `tether keys …` prints."""
    command = [*(program or [str(TETHER)]), "keys", *words, "--database", server.database]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def status(server: Server, key: str) -> int:
    """The status of a request with this key."""
    return httpx.get(f"{server.url}/chargers", headers={"x-api-key": key}).status_code


def refused_within(server: Server, key: str, seconds: float) -> bool:
    """Whether the key is refused within this time, and still refused a little later."""
    asked = time.monotonic()
    end = asked + seconds
    while status(server, key) != 403:
        if asked >= end:  # the answer itself may take its time
            return False
        time.sleep(0.05)
        asked = time.monotonic()
    time.sleep(0.2)
    return status(server, key) == 403


@pytest.mark.parametrize("how", [("revoke",), ("rotate", "--overlap", "0")])
def test_a_key_revoked_from_a_machine_that_is_an_hour_ahead_is_refused(
    by_clock: Server, clock: Clock, how: tuple[str, ...]
) -> None:
    clock.shift(HOUR_S)
    server = by_clock
    server.program = [str(TETHER)]
    server.start()
    key = server.key("acme")
    assert status(server, key) == 200
    keys(server, how[0], key[:17], *how[1:], program=clock.program)
    assert refused_within(server, key, REVOKED_S)
    listed = keys(server, "list", "--json")
    assert '"revoked"' in listed


def test_a_revoked_key_is_refused_by_a_server_whose_clock_is_set_back(
    by_clock: Server, clock: Clock
) -> None:
    server = by_clock.start()
    key = server.key("acme")
    assert status(server, key) == 200
    clock.shift(-HOUR_S)
    keys(server, "revoke", key[:17])
    assert refused_within(server, key, REVOKED_S)
    clock.shift(-24 * HOUR_S)
    assert refused_within(server, key, 0)
    assert server.stop() == 0
    server.start()
    assert status(server, key) == 403


def test_an_expired_key_does_not_work_again_when_the_clock_is_set_back(
    by_clock: Server, clock: Clock
) -> None:
    server = by_clock.start()
    key = server.key("acme", expires_ms=time.time_ns() // 1_000_000 + 60_000)
    other = server.key("acme", expires_ms=time.time_ns() // 1_000_000 + 2 * HOUR_S * 1000)
    assert status(server, key) == 200
    clock.shift(HOUR_S)
    assert status(server, key) == 403
    clock.shift(-HOUR_S)
    assert refused_within(server, key, 0)
    time.sleep(1.1)  # until the key is read again
    assert (status(server, key), status(server, other)) == (403, 200)


def test_the_time_to_an_end_passes_although_the_clock_is_set_back(
    by_clock: Server, clock: Clock
) -> None:
    server = by_clock.start()
    key = server.key("acme", expires_ms=time.time_ns() // 1_000_000 + 3_000)
    assert status(server, key) == 200
    clock.shift(-HOUR_S)
    assert status(server, key) == 200
    assert refused_within(server, key, 5)


def test_who_signed_in_by_a_clock_that_was_years_ahead_has_to_sign_in_again(
    by_clock: Server, clock: Clock
) -> None:
    server = by_clock
    server.program = [str(TETHER)]
    key = server.start().key("acme")
    server.stop()
    server.program = clock.program
    clock.shift(5 * 366 * 24 * HOUR_S)
    server.start()
    with httpx.Client(base_url=server.url, headers=OURS) as browser:
        assert browser.post("/console/sign-in", data={"key": key}).status_code == 303
        live = browser.get("/console").headers["location"]
        assert browser.get(live).status_code == 200
        server.stop()
        clock.shift(0)
        server.start(int(server.url.rpartition(":")[2]))
        assert browser.get(live).status_code == 303


def test_nothing_is_deleted_by_a_clock_that_jumps_to_another_year(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, passed = [1_000 * HOUR_S], [0]
    monkeypatch.setattr(retention, "time_ns", lambda: now[0] * 10**9)
    monkeypatch.setattr(retention, "monotonic_ns", lambda: passed[0] * 10**9)
    clock = CautiousClock()
    for seconds, jump, believed in (
        (15, 0, 0), (15, 1800, 1800), (15, -7200, -5400), (15, 5 * 8766 * HOUR_S, -5400),
        (15, -5 * 8766 * HOUR_S, -5400), (15, 2 * HOUR_S, -5400), (23 * HOUR_S, 0, -5400),
        (2 * HOUR_S, 0, 1800),
    ):  # fmt: skip
        passed[0] += seconds
        now[0] += seconds + jump
        assert clock() == 1000 * (1_000 * HOUR_S + passed[0] + believed)


# Timestamps that the server gives -----------------------------------------------------------------


def body(kind: str) -> dict[str, str]:
    return {"type": f"VEHICLE_{kind}", "chargerId": "C1", "vehicleId": "V1"}


@pytest.mark.parametrize("restarted", [False, True])
def test_what_a_server_stamps_never_goes_back_for_a_vehicle(
    by_clock: Server, clock: Clock, restarted: bool
) -> None:
    server = by_clock.start()
    with server.client() as client:
        put_fleet(client)
        client.post("/events", json=body("CONNECTED")).raise_for_status()
        clock.shift(-5)
        if restarted:
            server.stop()
            server.start(int(server.url.rsplit(":", 1)[1]))
        client.post("/events", json=body("DISCONNECTED")).raise_for_status()
        assert client.get("/vehicles/V1/state").json()["pluggedIn"] is False
        first, second = client.get("/events").json()
        assert (first["type"], second["type"]) == ("VEHICLE_CONNECTED", "VEHICLE_DISCONNECTED")
        assert first["timestamp"] < second["timestamp"]


def test_a_clock_that_was_an_hour_ahead_does_not_count_on_when_it_is_right(
    by_clock: Server, clock: Clock
) -> None:
    clock.shift(HOUR_S)
    server = by_clock.start()
    with server.client() as client:
        put_fleet(client)
        client.post("/events", json=body("CONNECTED")).raise_for_status()
        clock.shift(0)
        before_ms = time.time_ns() // 1_000_000
        client.post("/events", json=body("DISCONNECTED")).raise_for_status()
        wrong, right = (parse_instant(event["timestamp"]) for event in client.get("/events").json())
        assert before_ms <= right <= time.time_ns() // 1_000_000 < wrong


def test_events_without_a_timestamp_happen_in_the_order_of_a_bulk(server: Server) -> None:
    kinds = ["CONNECTED", "CHARGE_STARTED", "CHARGE_STOPPED", "DISCONNECTED"] * 3 + ["CONNECTED"]
    for _ in range(10):  # some follow so soon that the first ones have later timestamps
        with server.client() as client:
            put_fleet(client)
            for _ in range(2):  # the second time they are behind those of the first
                answer = client.post("/events/bulk", json=[body(kind) for kind in kinds])
                assert {item["status"] for item in answer.json()} == {201}
                assert client.get("/vehicles/V1/state").json()["pluggedIn"] is True
                client.post("/events", json=body("DISCONNECTED")).raise_for_status()
            events = client.get("/events?limit=1000").json()
            stamps = [event["timestamp"] for event in events]
            assert stamps == sorted(set(stamps))
            types = [event["type"].removeprefix("VEHICLE_") for event in events]
            assert types == [*kinds, "DISCONNECTED"] * 2
            assert len(client.get("/sessions").json()) == 8
