"""A newcomer follows docs/scaling.md to two nodes, and restarts them while partners report."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.conftest import TETHER, Server
from tests.deploy.files import (
    DEPLOY,
    ROOT,
    Proxy,
    commands_below,
    replaced,
    running_pgbouncer,
    running_proxy,
)
from tests.parts import Postgres, postgres_programs, running_redis

HEADING = "Two nodes, step by step"
PAGE = (ROOT / "docs" / "scaling.md").read_text()


class Reporters:
    """Threads that report events through a proxy, each until it is acknowledged, and remember."""

    def __init__(self, proxy: Proxy, key: str, threads: int = 6) -> None:
        self.acknowledged: dict[str, int] = {}
        self.surprises: list[str] = []
        self._proxy, self._key = proxy, key
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._report, args=(number,)) for number in range(threads)
        ]

    def _report(self, thread: int) -> None:
        vehicle, number = f"V{thread}", 0
        with self._proxy.client(self._key) as client:
            while not self._stop.is_set():
                instant = f"2026-01-{1 + number // 86_400:02}T{clock(number % 86_400)}Z"
                event = {"type": "VEHICLE_CONNECTED", "chargerId": "C1", "vehicleId": vehicle,
                         "timestamp": instant}  # fmt: skip
                try:
                    answer = client.post("/events", json=event)
                except httpx.TransportError:
                    continue
                if answer.status_code == 201:
                    self.acknowledged[answer.json()["id"]] = number
                    number += 1
                elif answer.status_code != 503:
                    self.surprises.append(answer.text)
                    return

    @contextmanager
    def working(self) -> Iterator[None]:
        """They report meanwhile."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()


def clock(second: int) -> str:
    return f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"


def run(commands: str, environment: Mapping[str, str], folder: Path) -> None:
    done = subprocess.run(
        ["sh", "-euc", commands], env=environment, cwd=folder, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_nodes_as_the_page_says_lose_nothing_when_they_are_restarted(
    guarded: Postgres, tmp_path: Path
) -> None:
    (tmp_path / "deploy").symlink_to(DEPLOY)
    superuser = {
        "PATH": f"{postgres_programs()}:/usr/bin:/bin",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(guarded.port),
        "PGUSER": "postgres",
        "PGDATABASE": "postgres",
    }
    database, schema = commands_below(PAGE, HEADING)
    (settings,) = commands_below(PAGE, HEADING, "ini")
    (passwords,) = commands_below(PAGE, HEADING, "")
    run(database, superuser, tmp_path)
    own = {**os.environ, "PATH": f"{TETHER.parent}:{os.environ['PATH']}"}
    run(replaced(schema, {"10.0.0.12": f"127.0.0.1:{guarded.port}"}), own, tmp_path)

    users = (tmp_path / "userlist.txt").read_text()
    with running_pgbouncer(guarded.url("tether"), users) as pooler, running_redis() as redis:
        changes = {"10.0.0.10:6432": f"127.0.0.1:{pooler}"}
        pgpass = tmp_path / "pgpass"
        pgpass.write_text(replaced(passwords, changes))
        pgpass.chmod(0o600)
        changes |= {
            "redis://10.0.0.11:6379/0": redis.url,
            "10.0.0.0/24": "127.0.0.1",
            "/etc/tether/pgpass": str(pgpass),
        }
        lines = replaced(settings, changes).split()
        environment = {
            name: value
            for name, value in (line.split("=", 1) for line in lines)
            if name not in ("TETHER_HOST", "TETHER_PORT", "TETHER_METRICS")
        }
        url = environment.pop("TETHER_DATABASE")
        nodes = [Server(url, environment=environment).start() for _ in range(2)]
        made = subprocess.run(
            [TETHER, "keys", "create", "acme", "--rate", "100000", "--database", url],
            env=own | environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        key = made.stdout.strip()
        places = [urlsplit(node.url).netloc for node in nodes]
        with running_proxy(tmp_path, places) as proxy, proxy.client(key) as client:
            assert client.put("/chargers/C1", json={"chargePowers": [11]}).status_code == 201
            for number in range(6):
                vehicle = {"chargeCapacity": 74.8, "chargePowers": [11]}
                assert client.put(f"/vehicles/V{number}", json=vehicle).status_code == 201
            reporters = Reporters(proxy, key)
            with reporters.working():
                for node, place in zip(nodes, places, strict=True):
                    reach(reporters, 50)
                    assert node.stop() == 0
                    reach(reporters, 50)
                    node.start(int(place.rpartition(":")[2]))
                reach(reporters, 50)
            assert reporters.surprises == []
            assert sorted(events(client)) == sorted(reporters.acknowledged)
            sessions = client.get("/sessions?limit=1000").json()
            assert {one["vehicleId"] for one in sessions} == {f"V{n}" for n in range(6)}
        for node in nodes:
            assert "tether_redis_in_use 2.0" in httpx.get(f"{node.url}/metrics").text
            assert node.failures() == []
            assert node.stop() == 0


def reach(reporters: Reporters, more: int) -> None:
    """Returns when so many further events were acknowledged."""
    wanted, end = len(reporters.acknowledged) + more, time.monotonic() + 120
    while len(reporters.acknowledged) < wanted:
        assert time.monotonic() < end, reporters.surprises
        time.sleep(0.05)


def events(client: httpx.Client) -> list[str]:
    """The ids of all events of the partner."""
    found: list[str] = []
    path = "/events?limit=1000"
    while True:
        page = client.get(path)
        assert page.status_code == 200
        found += [one["id"] for one in page.json()]
        if "next" not in page.links or not page.json():
            return found
        path = page.links["next"]["url"]
