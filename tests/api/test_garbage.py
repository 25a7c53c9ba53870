"""The memory of a request is free at once, without the cycle collector.

Memory that is used again while it is still in the processor's cache makes requests cheap.
"""

import signal
import sys
import time
from pathlib import Path

from tests.api.helpers import CONNECTED, create_both
from tests.conftest import Server

# On a signal it prints how many objects only the collector could free.
PROGRAM = """
import gc, signal, sys
from tether.__main__ import main as tether
def tell(*_): print("garbage:", gc.collect(), file=sys.stderr, flush=True)
signal.signal(signal.SIGUSR1, tell)
tether()
"""
REQUESTS = 100


def test_requests_leave_no_garbage(tmp_path: Path) -> None:
    server = Server(str(tmp_path / "tether.db"), program=[sys.executable, "-c", PROGRAM]).start()
    with server.client() as client:
        create_both(client)
        for number in range(2 * REQUESTS):
            if number == REQUESTS:  # the first requests create objects that stay
                _garbage(server)
            at = f"2023-05-11T22:06:40.{number:03}Z"
            answers = [
                client.post("/events", json={**CONNECTED, "timestamp": at}),
                client.get("/chargers/C1"),
                client.get("/vehicles/V1/state"),
                client.get("/chargers", params={"limit": "1"}),
                client.post("/events", json={**CONNECTED, "vehicleId": "unknown"}),
                client.get("/chargers/unknown"),
            ]
            assert [answer.status_code for answer in answers] == [201, 200, 200, 200, 409, 404]
        assert _garbage(server) < REQUESTS
    assert server.stop() == 0


def _garbage(server: Server) -> int:
    """How many objects the collector frees now."""
    assert server.process is not None
    told = len(_told(server))
    server.process.send_signal(signal.SIGUSR1)
    while len(_told(server)) == told:
        time.sleep(0.01)
    return int(_told(server)[-1].split()[1])


def _told(server: Server) -> list[str]:
    return [line for line in server.log if line.startswith("garbage:")]
