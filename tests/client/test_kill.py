"""A process with an outbox is killed again and again. No event is lost or doubled."""

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from tests.client.device import FLEET
from tests.client.devices import create_fleet, numbers
from tests.conftest import Server
from tether.client import Client, Outbox

KILLS = 12
RUN = 1_000_000  # the numbers of a run begin at a multiple of this
ROOT = Path(__file__).parents[2]


def run_device(path: Path, first: int, seconds: float, environment: dict[str, str]) -> list[int]:
    """Kills a device some time after its first event. Returns the numbers that it printed."""
    device = subprocess.Popen(
        [sys.executable, "-m", "tests.client.device", str(path), str(first)],
        stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, **environment},
    )  # fmt: skip
    with device:
        assert device.stdout is not None
        said = [device.stdout.readline()]
        threading.Timer(seconds, device.kill).start()
        said += device.stdout.readlines()
    assert device.returncode == -9
    put = [int(line) for line in said if line.endswith("\n")]
    assert put == list(range(first, first + len(put)))
    return put


def test_nothing_is_lost_or_doubled(new_server: Callable[[], Server], tmp_path: Path) -> None:
    server = new_server()  # one is enough: this tests the file of the client
    key = server.key()
    path, chance = tmp_path / "outbox.db", random.Random(5)
    environment = {"TETHER_URL": server.url, "TETHER_API_KEY": key}
    with Client(server.url, key) as client:
        create_fleet(client, len(FLEET))
        runs = [
            run_device(path, run * RUN, chance.uniform(0, 0.3), environment) for run in range(KILLS)
        ]
        with Outbox(path, client) as outbox:
            assert outbox.flush(30)
            assert (outbox.depth, outbox.refused) == (0, [])
        stored = numbers(client.events.list(page_size=1000))
    for vehicle in FLEET:
        assert stored[vehicle] == sorted(set(stored[vehicle]))
    everything = {number for found in stored.values() for number in found}
    # A device may have put one more event than it could print.
    untold = {put[-1] + 1 for put in runs}
    assert {number for put in runs for number in put} <= everything
    assert everything <= {number for put in runs for number in put} | untold
