"""Checks before a measurement: same work for all contestants, and durable writes."""

import http.client
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.contestants import Server
from bench.databases import PostgresDatabase
from bench.processes import descendants

EVENT = {
    "type": "VEHICLE_CHARGE_UPDATED",
    "chargerId": "C0001",
    "vehicleId": "V0001",
    "stateOfCharge": 49.1,
    "timestamp": "2000-06-01T12:00:00.000Z",
}

# What is wrong with an event, and the status of the answer.
REFUSED: list[tuple[dict[str, object], int]] = [
    ({"type": "VEHICLE_FLEW"}, 400),
    ({"chargerId": "C 0001"}, 400),
    ({"stateOfCharge": 100.1}, 400),
    ({"stateOfCharge": "49.1"}, 400),
    ({"stateOfCharge": None}, 400),
    ({"timestamp": "2000-06-01T12:00:00"}, 400),
    ({"timestamp": "1999-12-31T23:59:59Z"}, 400),
    ({"timestamp": "2999-12-31T23:59:59Z"}, 400),
    ({"colour": "red"}, 400),
]
UNKNOWN: list[tuple[dict[str, object], int]] = [
    ({"chargerId": "nobody"}, 409),
    ({"vehicleId": "nobody"}, 409),
]
COMMITS = 5
LOGGED_S = 5.0  # by when a request is in the log
ATTACH_S = 1.0  # what strace needs to attach to all processes


class CheckError(Exception):
    """A contestant does not do what it is measured for."""


class Answer(NamedTuple):
    """The parts of an answer that are checked."""

    request_id: str
    body: dict[str, Any]


def check_work(server: Server, *, stores: bool) -> None:
    """Raises CheckError unless the server does the same work as the others."""
    first = _expect(server, "POST /events", 201, EVENT)
    _check_log(server, first)
    _expect(server, "POST /events", 201, {**EVENT, "timestamp": None})
    for change, status in REFUSED + (UNKNOWN if stores else []):
        _expect(server, "POST /events", status, {**EVENT, **change})
    _expect(server, "POST /events", 403, EVENT, key="wrong")
    _expect(server, "GET /chargers/C0001", 200)
    _expect(server, "GET /chargers/C0001", 403, key="wrong")
    if stores:
        _expect(server, "GET /chargers/nobody", 404)
        again = _expect(server, "POST /events", 201, EVENT)
        if again.body["id"] != first.body["id"]:
            raise CheckError("the same event again was answered with another id")
        _expect(server, "POST /events", 409, {**EVENT, "stateOfCharge": 12.5})


def _check_log(server: Server, answer: Answer) -> None:
    """Raises CheckError unless the log soon has a line of JSON about the request."""
    end = time.monotonic() + LOGGED_S
    while True:
        *whole, _ = server.log.read_text().split("\n")
        lines = [line for line in whole if answer.request_id in line]
        if lines:
            break
        if time.monotonic() > end:
            raise CheckError(f"no line in the log about the request {answer.request_id!r}")
        time.sleep(0.05)
    try:
        (line,) = map(json.loads, lines)
        told = line["request_id"], line["method"], line["route"], line["status"]
        logged = told == (answer.request_id, "POST", "/events", 201) and line["ms"] > 0
    except (ValueError, LookupError, TypeError):
        logged = False
    if not logged:
        raise CheckError(f"not one line of JSON that tells of the request: {lines}")


def check_durability(server: Server) -> bool:
    """Whether strace could see that commits are on disk before the answer.

    Raises CheckError when one is answered before. Needs strace and the permission to use it.
    """
    with _trace_syncs(_writers(server)) as trace:
        if trace is None:
            return False
        for number in range(1, COMMITS + 1):
            event = {**EVENT, "timestamp": f"2000-06-02T12:00:{number:02d}Z"}
            _expect(server, "POST /events", 201, event)
            if _syncs(trace) < number:
                raise CheckError("answered before the event was on disk")
    return True


def _writers(server: Server) -> list[int]:
    """The processes that may write an event to disk."""
    if isinstance(server.database, PostgresDatabase):
        return descendants(server.database.cluster.pid)
    return descendants(server.pid)


@contextmanager
def _trace_syncs(pids: list[int]) -> Iterator[Path | None]:
    """Yields the file to which strace writes each sync; None if strace cannot be used."""
    if shutil.which("strace") is None:
        yield None
        return
    with tempfile.NamedTemporaryFile() as trace:
        command = ["strace", "-f", "-e", "trace=fsync,fdatasync", "-o", trace.name]
        command += [f"-p{pid}" for pid in pids]
        strace = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(ATTACH_S)
        try:
            yield Path(trace.name) if strace.poll() is None else None
        finally:
            strace.terminate()
            strace.wait()


def _syncs(trace: Path) -> int:
    """Syncs that have returned; strace writes a line before the process goes on."""
    finished = r"(?:fsync|fdatasync)(?:\(| resumed).*= 0$"
    return len(re.findall(finished, trace.read_text(), re.MULTILINE))


def _expect(
    server: Server,
    request: str,
    status: int,
    body: dict[str, object] | None = None,
    key: str | None = None,
) -> Answer:
    method, path = request.split()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    headers = {"x-api-key": key or server.key, "content-type": "application/json"}
    sent = None
    if body is not None:
        sent = json.dumps({name: value for name, value in body.items() if value is not None})
    connection.request(method, path, sent, headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    if answer.status != status:
        raise CheckError(f"{request} {sent}: {answer.status} {text}, expected {status}")
    request_id = answer.headers["X-Request-Id"]
    if not request_id:
        raise CheckError(f"{request}: no X-Request-Id")
    read: dict[str, Any] = json.loads(text)
    if status == 201 and not read["id"]:
        raise CheckError(f"{request}: no id in {text}")
    return Answer(request_id, read)
