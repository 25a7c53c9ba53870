"""Fast raw connections to a server, and a look at its process from outside."""

import asyncio
import json
import re
import resource
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import psutil
import uvloop

from tests.conftest import Server
from tests.fleet import put_fleet
from tether.storage.sqlite.file import connect

T = TypeVar("T")

POWERS = b'{"chargePowers":[11]}'
VEHICLE = b'{"chargeCapacity":74.8,"chargePowers":[11]}'
CUT_OFF = (ConnectionError, asyncio.IncompleteReadError)


def run(main: Awaitable[T], seconds: float = 120) -> T:
    """Runs a coroutine on a fast event loop, and gives it a bounded time."""

    async def bounded() -> T:
        async with asyncio.timeout(seconds):
            return await main

    return uvloop.run(bounded())


def address_of(server: Server) -> tuple[str, int]:
    """Host and port of a server."""
    parts = urlsplit(server.url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def head_of(method: str, path: str, key: str, length: int | None, *lines: str) -> bytes:
    """A request's head."""
    size = () if length is None else (f"content-length: {length}",)
    return "\r\n".join(
        [f"{method} {path} HTTP/1.1", "host: tether", f"x-api-key: {key}", *size, *lines, "", ""]
    ).encode()


def request_of(method: str, path: str, key: str, body: bytes = b"", *lines: str) -> bytes:
    """A whole request."""
    return head_of(method, path, key, len(body), *lines) + body


def event(number: int, *, vehicle: str = "V1", charger: str = "C1") -> bytes:
    """A valid event; each number has its own instant."""
    instant = f"2026-01-{1 + number // 86_400_000:02}T{_clock(number % 86_400_000)}Z"
    return (
        f'{{"type":"VEHICLE_CONNECTED","chargerId":"{charger}","vehicleId":"{vehicle}",'
        f'"timestamp":"{instant}"}}'
    ).encode()


def _clock(ms: int) -> str:
    seconds, ms = divmod(ms, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{ms:03}"


@dataclass(frozen=True)
class Answer:
    """A response; header names in lower case."""

    status: int
    head: bytes
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        """Its headers."""
        lines = self.head.decode().split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


_LENGTH = re.compile(rb"content-length: ([0-9]+)", re.IGNORECASE)


@dataclass
class Wire:
    """A raw connection to a server, on which a test can send any bytes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def to(cls, server: Server) -> "Wire":
        """A new connection."""
        return cls(*await asyncio.open_connection(*address_of(server), limit=1024 * 1024))

    def send(self, data: bytes) -> None:
        """Sends bytes as they are."""
        self.writer.write(data)

    async def answer(self) -> Answer:
        """The next response. Raises one of CUT_OFF if the connection ends before."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        body = await self.reader.readexactly(int(length[1])) if length else b""
        return Answer(int(head[9:12]), head[:-4], body)

    async def ask(self, request: bytes) -> Answer:
        """Sends a whole request and waits for the response."""
        self.writer.write(request)
        return await self.answer()

    async def ended(self) -> bytes:
        """The bytes that the server still sends before it closes the connection."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""

    def hang_up(self) -> None:
        """Closes the connection."""
        self.writer.close()

    def reset(self) -> None:
        """Ends the connection as a crashed client's machine does."""
        self.writer.transport.abort()


@dataclass
class Partner:
    """A partner of a server, with one charger C1 and one vehicle V1."""

    server: Server
    key: str = ""
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.key = self.key or self.server.key()
        self.client = self.server.client(self.key)
        put_fleet(self.client)

    def again(self) -> None:
        """The same partner after a restart, which changed the port."""
        self.client.close()
        self.client = self.server.client(self.key)

    def request(self, method: str, path: str, body: bytes = b"", *lines: str) -> bytes:
        """A whole request of this partner."""
        return request_of(method, path, self.key, body, *lines)

    def post(self, number: int, **names: str) -> bytes:
        """The request that reports an event."""
        return self.request("POST", "/events", event(number, **names))

    def events(self, after: str = "/events?limit=1000") -> list[dict[str, Any]]:
        """All events from an address on."""
        found, _ = self.events_from(after)
        return found

    def events_from(self, url: str) -> tuple[list[dict[str, Any]], str]:
        """All events from an address on, and the address of the next events."""
        found = []
        while True:
            answer = self.client.get(url)
            assert answer.status_code == 200
            page = answer.json()
            found += page
            url = answer.links["next"]["url"] if page else url
            if not page:
                return found, httpx.URL(url).raw_path.decode()


async def ask_at_once(server: Server, requests: list[bytes]) -> list[Answer]:
    """Sends each request on a connection of its own; returns the answers in the same order."""
    wires = [await Wire.to(server) for _ in requests]
    answers = await asyncio.gather(*map(Wire.ask, wires, requests))
    for wire in wires:
        wire.hang_up()
    return answers


async def post_events(partner: Partner, count: int, first: int = 0, connections: int = 16) -> int:
    """Posts events and expects 201 for each; returns the next number."""
    numbers = iter(range(first, first + count))

    async def work() -> None:
        wire = await Wire.to(partner.server)
        for number in numbers:
            answer = await wire.ask(partner.post(number))
            assert answer.status == 201, answer.body
        wire.hang_up()

    await asyncio.gather(*(work() for _ in range(connections)))
    return first + count


def pid_of(server: Server) -> int:
    """The server's process."""
    assert server.process is not None
    assert server.process.poll() is None, "the server has ended"
    return server.process.pid


def memory_mb(server: Server) -> float:
    """The resident memory of the server's process."""
    status = Path(f"/proc/{pid_of(server)}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024 / 1e6


def peak_mb(server: Server) -> float:
    """The highest resident memory of the server's process."""
    status = Path(f"/proc/{pid_of(server)}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def cpu_seconds(server: Server) -> float:
    """The processor time that the server's process has used."""
    times = psutil.Process(pid_of(server)).cpu_times()
    return times.user + times.system


def open_files(server: Server) -> int:
    """How many file descriptors the server has."""
    return len(list(Path(f"/proc/{pid_of(server)}/fd").iterdir()))


async def until(true: Callable[[], bool], seconds: float = 60) -> None:
    """Returns when the condition is true; fails when that takes too long."""
    try:
        async with asyncio.timeout(seconds):
            while not true():  # noqa: ASYNC110 - it happens in another process
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError("this did not come true in time") from None


def check_integrity(path: str | Path, pragma: str = "integrity_check") -> None:
    """The database passes SQLite's own check."""
    with closing(connect(Path(path))) as connection:
        assert connection.execute(f"PRAGMA {pragma}").fetchall() == [("ok",)]


@contextmanager
def many_files(count: int = 4096) -> Iterator[None]:
    """Lets this process open that many files, if the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def metric(page: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples that carry these labels."""
    total = 0.0
    for line in page.splitlines():
        sample = re.fullmatch(r"([a-z_]+)(?:\{(.*)\})? ([0-9.e+-]+)", line)
        if sample and sample[1] == name:
            found = dict(re.findall(r'([a-z_]+)="([^"]*)"', sample[2] or ""))
            if labels.items() <= found.items():
                total += float(sample[3])
    return total
