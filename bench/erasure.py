"""How long it takes to erase a vehicle among many events, and how long others wait meanwhile."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from statistics import median

from bench.contest import Bench, prepared, say
from bench.contestants import CHARGERS, VEHICLES, Contestant, Server
from bench.load import LoadError, loop
from bench.processes import descendants
from bench.table import Row, at_most, single
from tether.domain.timestamps import format_instant

EVENTS = 1_000_000
ERASED_S = 2.0
DELAY_MS = 100.0
CLIENTS, EVERY_S = 10, 0.1  # each so often, in turn: together a POST every 10 ms
ALONE_S = 5.0
_AFTER_MS = 1_500_000_000_000  # behind all that is there
_numbers = count()
_TICKS = 100  # of a second, in /proc


def erasure(subject: Contestant) -> Callable[[Bench], list[Row]]:
    """DELETE of a vehicle with its events, until all are gone, beside a POST every 10 ms."""

    def run(bench: Bench) -> list[Row]:
        taken: list[float] = []
        delays: list[float] = []
        with prepared(bench, subject) as server:
            say(f"  filling: {EVENTS:,} events")
            loop("bulk", server.url, server.key, str(EVENTS))
            if server.database.engine == "postgres":  # as it is where it has been in use
                server.database.run("VACUUM ANALYZE")
            for vehicle in VEHICLES[1 : bench.rounds + 1]:
                server.database.settle()
                with _posting(server) as alone:
                    time.sleep(ALONE_S)
                used = _processor_s(server.pid)
                with _posting(server) as beside:
                    taken.append(_erase(server, vehicle))
                used = _processor_s(server.pid) - used
                delays.append(max(beside) - median(alone))
                say(
                    f"  {vehicle}: {taken[-1]:.2f} s, of the processor {used:.2f} s; a POST takes "
                    f"{median(beside):.1f} ms, the longest {max(beside):.0f} ms "
                    f"(alone {median(alone):.1f} and {max(alone):.0f} ms)"
                )
        what = f"{subject.engine}: a vehicle among {EVENTS:,} events is erased"
        return [
            single(what, median(taken), "{:.2f} s", at_most(ERASED_S, " s")),
            single(f"{what}: the longest delay", median(delays), "{:.0f} ms",
                   at_most(DELAY_MS, " ms")),
        ]  # fmt: skip

    return run


def _erase(server: Server, vehicle: str) -> float:
    """Seconds until it is done."""
    began = time.perf_counter()
    status = 202
    while status == 202:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        path = f"/vehicles/{vehicle}?events=erase"
        connection.request("DELETE", path, headers={"x-api-key": server.key})
        status = connection.getresponse().status
        connection.close()
    if status not in (204, 404):
        raise LoadError(f"DELETE {path}: {status}")
    return time.perf_counter() - began


@contextmanager
def _posting(server: Server) -> Iterator[list[float]]:
    """Posts an event of a vehicle every 10 ms meanwhile. Of each the milliseconds since it was
    due: who has to wait for the one before waits, too.
    """
    lags: list[float] = []
    over, began = threading.Event(), time.perf_counter()
    clients = [
        threading.Thread(target=_post, args=(server, began + EVERY_S * place / CLIENTS, lags, over))
        for place in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    try:
        yield lags
    finally:
        over.set()
        for client in clients:
            client.join()


def _post(server: Server, due: float, lags: list[float], over: threading.Event) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    while not over.is_set():
        time.sleep(max(0.0, due - time.perf_counter()))
        event = {
            "type": "VEHICLE_CHARGE_UPDATED", "chargerId": CHARGERS[0], "vehicleId": VEHICLES[0],
            "stateOfCharge": 40, "timestamp": format_instant(_AFTER_MS + next(_numbers)),
        }  # fmt: skip
        connection.request("POST", "/events", json.dumps(event), {"x-api-key": server.key})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 201:
            raise LoadError(f"POST /events: {answer.status} {body!r}")
        lags.append(1000 * (time.perf_counter() - due))
        due += EVERY_S
    connection.close()


def _processor_s(pid: int) -> float:
    """Of a process and all that it started."""
    total = 0
    for each in descendants(pid):
        with open(f"/proc/{each}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS
