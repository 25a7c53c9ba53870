"""The server continues if nobody reads its standard error, or if it cannot be written."""

import asyncio
import fcntl
import json
import os
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.conftest import TETHER, Server
from tests.services import free_port, wait_for_port
from tests.wire import Wire, metric, run
from tether.server import logging

HEALTH = b"GET /health HTTP/1.1\r\nhost: tether\r\n\r\n"
AT_ONCE = 20
REQUESTS = 7_000  # their lines do not fit into the pipe and the queue


class Pipe:
    """A pipe that is full and that nobody reads until `drain`."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self._lines: list[bytes] = []

    def fill(self) -> None:
        """Fills the pipe."""
        flags = fcntl.fcntl(self.writer, fcntl.F_GETFL)
        fcntl.fcntl(self.writer, fcntl.F_SETFL, flags | os.O_NONBLOCK)
        try:
            while True:
                os.write(self.writer, b"\n" * 4096)
        except BlockingIOError:
            fcntl.fcntl(self.writer, fcntl.F_SETFL, flags)

    def drain(self) -> list[bytes]:
        """Reads until nothing comes for a while; returns the lines that are not blank."""
        os.set_blocking(self.reader, False)
        read, last = [], time.monotonic()
        while time.monotonic() - last < 0.5:
            try:
                read.append(os.read(self.reader, 65_536))
                last = time.monotonic()
            except BlockingIOError:
                time.sleep(0.01)
        return [line for line in b"".join(read).split(b"\n") if line]

    def close(self) -> None:
        """Closes both ends."""
        for end in (self.reader, self.writer):
            if end >= 0:
                os.close(end)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A pipe, not full yet."""
    with closing(Pipe()) as pipe:
        yield pipe


class Serving:
    """A server with the standard output and error of the test's choice, and its URL."""

    def __init__(self, database: str, *options: str, stdout: int, stderr: int) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.server = Server(database)
        self.process = subprocess.Popen(
            [TETHER, "serve", "--database", database, "--port", str(port), *options],
            stdout=stdout,
            stderr=stderr,
        )
        wait_for_port(port)

    def request(self, count: int = 1) -> None:
        """Sends this number of requests, some at the same time, and waits for the answers."""

        async def ask() -> None:
            parts = urlsplit(self.url)
            wire = Wire(*await asyncio.open_connection(parts.hostname, parts.port))
            for first in range(0, count, AT_ONCE):
                some = min(AT_ONCE, count - first)
                wire.send(HEALTH * some)
                for _ in range(some):
                    assert (await wire.answer()).status == 200
            wire.hang_up()

        run(ask())

    def dropped(self) -> float:
        """How many lines were dropped, as the metrics say."""
        page = httpx.get(f"{self.url}/metrics", timeout=10).text
        return metric(page, "tether_dropped_log_lines_total")

    def stop(self) -> int:
        """Stops it; returns its exit status."""
        self.process.terminate()
        return self.process.wait(timeout=180)


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    """Starts such servers."""
    started: list[Serving] = []

    def start(*options: str, database: str = "", stdout: int, stderr: int) -> Serving:
        path = database or str(tmp_path / "tether.db")
        started.append(Serving(path, *options, stdout=stdout, stderr=stderr))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def test_a_reader_that_stalls_stops_nobody_and_misses_lines_that_are_counted(
    serving: Callable[..., Serving], pipe: Pipe
) -> None:
    server = serving(stdout=subprocess.DEVNULL, stderr=pipe.writer)
    pipe.fill()
    server.request(REQUESTS)
    key = server.server.key("acme")
    answer = httpx.get(f"{server.url}/chargers", headers={"x-api-key": key}, timeout=10)
    assert answer.status_code == 200
    dropped = server.dropped()
    assert 0 < dropped < REQUESTS
    lines = [json.loads(line) for line in pipe.drain()]
    notes = [line for line in lines if line["event"] == "log lines dropped"]
    assert notes
    assert sum(note["lines"] for note in notes) >= dropped
    assert len(lines) - len(notes) + dropped >= REQUESTS
    server.request(10)
    assert server.dropped() < dropped + 10, "with a reader nothing is dropped any more"
    assert len(pipe.drain()) >= 10
    assert server.stop() == 0


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_it_stops_when_told_to_though_nobody_reads(
    serving: Callable[..., Serving], pipe: Pipe, log_format: str
) -> None:
    server = serving("--log-format", log_format, stdout=subprocess.DEVNULL, stderr=pipe.writer)
    pipe.fill()
    server.request(2000)
    began = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - began < 10


def test_it_serves_though_nobody_reads_standard_output(
    serving: Callable[..., Serving], pipe: Pipe
) -> None:
    pipe.fill()
    server = serving(stdout=pipe.writer, stderr=pipe.writer)
    server.request(1000)
    assert server.stop() == 0


def test_several_workers_go_on_and_their_lines_stay_whole(
    serving: Callable[..., Serving], pipe: Pipe, new_postgres_database: Callable[[], str]
) -> None:
    server = serving(
        "--workers", "2",
        database=new_postgres_database(), stdout=subprocess.DEVNULL, stderr=pipe.writer,
    )  # fmt: skip
    pipe.fill()
    clients = [threading.Thread(target=server.request, args=(500,)) for _ in range(6)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    read = pipe.drain()
    assert len(read) >= 500
    for line in read:
        json.loads(line)
    assert server.stop() == 0


def test_a_reader_that_is_gone_stops_nobody(serving: Callable[..., Serving], pipe: Pipe) -> None:
    server = serving(stdout=subprocess.DEVNULL, stderr=pipe.writer)
    os.close(pipe.reader)
    pipe.reader = -1
    os.close(pipe.writer)
    pipe.writer = -1
    server.request(100)
    deadline = time.monotonic() + 60
    while server.dropped() < 100:
        assert time.monotonic() < deadline
    assert server.stop() == 0


def test_what_was_logged_at_the_end_is_written(
    serving: Callable[..., Serving], tmp_path: Path
) -> None:
    with (tmp_path / "log").open("wb") as log:
        server = serving(stdout=subprocess.DEVNULL, stderr=log.fileno())
        server.request(200)
        assert server.stop() == 0
    lines = (tmp_path / "log").read_bytes().splitlines()
    assert sum(json.loads(line)["event"] == "request" for line in lines) == 200


def test_closed_standard_files_are_no_files_of_the_database(tmp_path: Path) -> None:
    port, database = free_port(), tmp_path / "tether.db"
    command = f"exec {TETHER} serve --database {database} --port {port} <&- >&- 2>&-"
    process = subprocess.Popen(["sh", "-c", command])
    try:
        wait_for_port(port)
        for _ in range(50):
            assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    finally:
        process.terminate()
        assert process.wait(timeout=180) == 0
    held = b"".join(file.read_bytes() for file in tmp_path.iterdir() if file.is_file())
    assert b'"event"' not in held
    assert b"Tether listens" not in held


def test_the_lines_that_wait_are_bounded(serving: Callable[..., Serving], pipe: Pipe) -> None:
    server = serving(stdout=subprocess.DEVNULL, stderr=pipe.writer)
    server.request(50)
    before = _resident(server.process.pid)
    pipe.fill()
    server.request(REQUESTS)
    assert server.dropped() > 0
    assert _resident(server.process.pid) - before < 8 * logging.MAX_WAITING_BYTES
    assert server.stop() == 0


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()
