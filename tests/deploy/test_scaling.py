"""A newcomer follows docs/scaling.md to two nodes while partners send events."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
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
from tests.fleet import put_fleet
from tests.lists import everything, pages
from tests.services import Postgres, Redis, free_port, postgres_programs, running_redis

THREADS = 4
PAUSE_S, BACK_OFF_S = 0.02, 0.2
WITH_TETHER = {**os.environ, "PATH": f"{TETHER.parent}:{os.environ['PATH']}"}
HEADING = "Two nodes, step by step"
PAGE = (ROOT / "docs" / "scaling.md").read_text()


class Reporters:
    """Threads that post events through a proxy, each until it is acknowledged, and record them."""

    def __init__(self, proxy: Proxy, key: str, threads: int = THREADS) -> None:
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
                try:
                    answer = client.post("/events", json=event(vehicle, number))
                except httpx.TransportError:
                    time.sleep(BACK_OFF_S)
                    continue
                if answer.status_code == 201:
                    self.acknowledged[answer.json()["id"]] = number
                    number += 1
                    time.sleep(PAUSE_S)
                elif answer.status_code == 503:
                    time.sleep(BACK_OFF_S)
                else:
                    self.surprises.append(answer.text)
                    return

    @contextmanager
    def working(self) -> Iterator[None]:
        """Runs the threads meanwhile."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()


def event(vehicle: str, number: int) -> dict[str, str]:
    instant = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    return {"type": "VEHICLE_CONNECTED", "chargerId": "C1", "vehicleId": vehicle,
            "timestamp": instant.isoformat()}  # fmt: skip


def run(commands: str, environment: Mapping[str, str], folder: Path) -> None:
    done = subprocess.run(
        ["sh", "-euc", commands], env=environment, cwd=folder, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_file_moves_to_two_nodes_as_the_page_says_and_nothing_is_lost(
    guarded: Postgres, tmp_path: Path
) -> None:
    move_to_two_nodes(guarded, tmp_path, stored=2_000)


def move_to_two_nodes(postgres: Postgres, folder: Path, stored: int) -> None:
    """Moves a SQLite file to PostgreSQL, then restarts both nodes, while partners send events.

    It uses the commands of the page, with other addresses.
    """
    (folder / "deploy").symlink_to(DEPLOY)
    superuser = {
        "PATH": f"{postgres_programs()}:/usr/bin:/bin",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(postgres.port),
        "PGUSER": "postgres",
        "PGDATABASE": "postgres",
    }
    create, _, copy = commands_below(PAGE, HEADING)
    run(create, superuser, folder)
    users = (folder / "userlist.txt").read_text()
    places = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    with (
        running_pgbouncer(postgres.url("tether"), users) as pooler,
        running_redis() as redis,
        running_proxy(folder, places) as proxy,
    ):
        file = folder / "tether.db"
        old = Server(str(file)).start(port_of(places[0]))
        key = old.key("acme")
        with proxy.client(key) as client:
            fill(client, stored)
            cursor = client.get("/events?limit=500").links["next"]["url"]
            reporters = Reporters(proxy, key)
            with reporters.working():
                reach(reporters, 50)
                assert old.stop() == 0
                run(commands_here(copy, file, postgres), WITH_TETHER, folder)
                nodes = start_nodes(folder, pooler, redis, places)
                for node in nodes:
                    reach(reporters, 50)
                    assert node.stop() == 0
                    reach(reporters, 50)
                    node.start(port_of(urlsplit(node.url).netloc))
                reach(reporters, 50)
            assert reporters.surprises == []
            there = [event["id"] for event in everything(client, "/events")]
            assert len(there) == len(set(there)) == stored + len(reporters.acknowledged)
            assert reporters.acknowledged.keys() <= set(there)
            following = [event["id"] for page in pages(client, cursor) for event in page]
            assert following == there[500:]
        for node in nodes:
            assert "tether_redis_in_use 1.0" in httpx.get(f"{node.url}/metrics").text
            assert node.failures() == []
            assert node.stop() == 0


def port_of(place: str) -> int:
    return int(place.rpartition(":")[2])


def commands_here(commands: str, file: Path, postgres: Postgres) -> str:
    """The commands with the paths of the test, without commands of systemd."""
    return replaced(
        commands,
        {
            "systemctl stop tether\n": "",
            "/var/lib/tether/tether.db": str(file),
            "10.0.0.12": f"127.0.0.1:{postgres.port}",
        },
    )


def start_nodes(folder: Path, pooler: int, redis: Redis, places: list[str]) -> list[Server]:
    """The two nodes, with the settings of the page."""
    (settings,) = commands_below(PAGE, HEADING, "ini")
    (passwords,) = commands_below(PAGE, HEADING, "")
    changes = {"10.0.0.10:6432": f"127.0.0.1:{pooler}"}
    pgpass = folder / "pgpass"
    pgpass.write_text(replaced(passwords, changes))
    pgpass.chmod(0o600)
    changes |= {
        "redis://10.0.0.11:6379/0": redis.url,
        "10.0.0.0/24": "127.0.0.1",
        "TETHER_WORKERS=2": "TETHER_WORKERS=1",  # to save time
        "/etc/tether/pgpass": str(pgpass),
    }
    environment = dict(line.split("=", 1) for line in replaced(settings, changes).split())
    for name in ("TETHER_HOST", "TETHER_PORT", "TETHER_METRICS"):
        del environment[name]  # the servers of the tests set these themselves
    url = environment.pop("TETHER_DATABASE")
    return [Server(url, environment=environment).start(port_of(place)) for place in places]


def fill(client: httpx.Client, count: int) -> None:
    """Creates a charger, a vehicle for each thread, and `count` events of other vehicles."""
    vehicles = [*(f"V{n}" for n in range(THREADS)), *(f"W{n}" for n in range(20))]
    put_fleet(client, vehicles=vehicles)
    for first in range(0, count, 10_000):
        bulk = client.post("/events/bulk", json=[
            event(f"W{number % 20}", number) for number in range(first, min(count, first + 10_000))
        ])  # fmt: skip
        assert {one["status"] for one in bulk.json()} == {201}


def reach(reporters: Reporters, more: int) -> None:
    """Returns when this number of further events were acknowledged."""
    wanted, end = len(reporters.acknowledged) + more, time.monotonic() + 240
    while len(reporters.acknowledged) < wanted:
        assert time.monotonic() < end, reporters.surprises
        time.sleep(0.05)
