"""How soon webhooks are called when there are many and some hang, and how much they slow a POST."""

import asyncio
import http.client
import json
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from statistics import quantiles
from typing import Any

from bench.contest import Bench, prepared, say
from bench.contestants import Contestant, Server
from bench.load import LoadError
from bench.processes import LOAD_CORES
from bench.table import Row, at_most, single
from tether.domain.keys import Rate
from tether.domain.timestamps import now_ms
from tether.server import admin
from tether.server.store import open_store

PARTNERS, OF_EACH = 50, 20
HANGING_OF_EACH = 2
SECONDS = 20
P99_S = 2.0
_FAST = Rate(1_000_000, 1)
_OPTIONS = ["--webhooks-allow", "127.0.0.0/8", "--webhooks-allow-http"]


def webhooks(subject: Contestant) -> Callable[[Bench], list[Row]]:
    """1,000 webhooks, each for a vehicle with one event a second; 100 addresses do not answer."""
    command = subject.command
    calling = replace(subject, command=lambda database, port: [*command(database, port), *_OPTIONS])

    def run(bench: Bench) -> list[Row]:
        os.environ["TETHER_SECRET_KEY"] = "a-key-of-the-benchmark-of-over-32-characters"
        with prepared(bench, calling) as server, _receiver() as receiver:
            say(f"  making {PARTNERS * OF_EACH:,} webhooks, {PARTNERS * HANGING_OF_EACH} that hang")
            keys = asyncio.run(_keys(server))
            for key in keys:
                _furnish(server, key, receiver.url, receiver.hanging_url)
            sent = _report(server, keys)
            lags = sorted(_lags(receiver, sent))
        p99_s = quantiles(lags, n=100)[98]
        name = f"{subject.engine}: from 201 to the call, p99, 1,000 webhooks, 100 hang"
        return [single(name, p99_s, "{:.2f} s", at_most(P99_S, " s"))]

    return run


async def _keys(server: Server) -> list[str]:
    async with open_store(server.database.url) as store:
        made = [
            await admin.create_key(store, now_ms(), f"partner {number}", rate=_FAST)
            for number in range(PARTNERS)
        ]
    return [secret for secret, _ in made]


def _call(server: Server, key: str, method: str, path: str, body: Any) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request(method, path, json.dumps(body), {"x-api-key": key})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise LoadError(f"{method} {path}: {answer.status} {text[:200]!r}")
        return json.loads(text)
    finally:
        connection.close()


def _furnish(server: Server, key: str, url: str, hanging_url: str) -> None:
    _call(server, key, "PUT", "/chargers/C", {"chargePowers": [11]})
    for number in range(OF_EACH):
        vehicle = {"chargePowers": [11], "chargeCapacity": 60}
        _call(server, key, "PUT", f"/vehicles/V{number}", vehicle)
        hook = {
            "url": hanging_url if number < HANGING_OF_EACH else url,
            "types": ["event.created"],
            "vehicleId": f"V{number}",
        }
        _call(server, key, "POST", "/webhooks", hook)


def _report(server: Server, keys: list[str]) -> dict[str, float]:
    """Posts one event a second for each vehicle; returns when each was acknowledged."""
    sent: dict[str, float] = {}
    began = time.time()
    for second in range(SECONDS):
        for place, key in enumerate(keys):
            due = began + second + place / len(keys)
            time.sleep(max(0.0, due - time.time()))
            events = [
                {"type": "VEHICLE_CHARGE_UPDATED", "chargerId": "C", "vehicleId": f"V{number}",
                 "stateOfCharge": 40, "timestamp": f"2026-01-01T00:00:{second:02}Z"}
                for number in range(OF_EACH)
            ]  # fmt: skip
            answers = _call(server, key, "POST", "/events/bulk", events)
            now = time.time()
            for number, answer in enumerate(answers):
                if number >= HANGING_OF_EACH:
                    sent[f"event_created_{answer['id']}"] = now
    return sent


def _lags(receiver: "_Receiver", sent: dict[str, float]) -> Iterator[float]:
    """The time from each answer to its message. Raises LoadError if a message is missing."""
    deadline = time.monotonic() + 60
    while len(receiver.seen) < len(sent) and time.monotonic() < deadline:
        time.sleep(0.1)
        receiver.take()
    for id, at in sent.items():
        if id not in receiver.seen:
            raise LoadError(f"{len(sent) - len(receiver.seen)} messages did not come")
        yield receiver.seen[id] - at


# The receiver -------------------------------------------------------------------------------------


class _Receiver:
    """A receiver in its own process, which records when each message arrived."""

    def __init__(self, url: str, hanging_url: str, pipe: Any) -> None:
        self.url, self.hanging_url = url, hanging_url
        self.seen: dict[str, float] = {}
        self._pipe = pipe

    def take(self) -> None:
        """Reads what arrived since the last call."""
        self._pipe.send(None)
        for id, at in self._pipe.recv():
            self.seen.setdefault(id, at)


@contextmanager
def _receiver() -> Iterator[_Receiver]:
    here, there = multiprocessing.Pipe()
    with socket.create_server(("127.0.0.1", 0)) as hanging:  # takes connections, and says nothing
        hanging.listen(1_000)
        process = multiprocessing.Process(target=_receive, args=(there,), daemon=True)
        process.start()
        port = here.recv()
        hanging_port = hanging.getsockname()[1]
        try:
            yield _Receiver(f"http://127.0.0.1:{port}/", f"http://127.0.0.1:{hanging_port}/", here)
        finally:
            process.terminate()
            process.join()


def _receive(pipe: Any) -> None:
    os.sched_setaffinity(0, LOAD_CORES)
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(pipe))


async def _serve(pipe: Any) -> None:
    came: list[tuple[str, float]] = []

    class Connection(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self._transport = transport
            self._read = b""

        def data_received(self, data: bytes) -> None:
            self._read += data
            while (end := self._read.find(b"\r\n\r\n")) >= 0:
                head = self._read[:end].lower()
                length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
                if len(self._read) < end + 4 + length:
                    return
                id = head.partition(b"webhook-id:")[2].partition(b"\r\n")[0].strip().decode()
                came.append((id, time.time()))
                self._read = self._read[end + 4 + length :]
                self._transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    def tell() -> None:
        nonlocal came
        pipe.recv()
        told, came = came, []
        pipe.send(told)

    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=1_000)
    pipe.send(server.sockets[0].getsockname()[1])
    loop.add_reader(pipe.fileno(), tell)
    await server.serve_forever()
