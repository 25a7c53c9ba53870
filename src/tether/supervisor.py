"""Several worker processes behind one port: starts them, replaces those that die, stops them.

Each worker listens on a socket of its own, to which the kernel hands its share of the connections
(SO_REUSEPORT). A worker learns its settings over a pipe, so that no password stands in a process
list, and stops when that pipe ends: none outlives its supervisor.
"""

import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import structlog

from tether.config import Settings, metrics_address
from tether.metrics import FOLDER_VARIABLE, all_workers, forget_worker, serving
from tether.server import listen, url_of
from tether.worker import READY

log = structlog.get_logger()

_FOLDERS = "tether-metrics-"
SHORTEST_LIFE_S = 1.0  # a worker that dies sooner is replaced only then


async def supervise(settings: Settings, listening: Callable[[str], None]) -> None:
    """Runs `settings.workers` workers until SIGTERM or SIGINT; tells `listening` the address."""
    _clear_up()
    with (
        tempfile.TemporaryDirectory(prefix=f"{_FOLDERS}{os.getpid()}-") as folder,
        _reserved(settings.host, settings.port) as reserved,
        serving(all_workers(folder), metrics_address(settings.metrics)),
    ):
        settings = replace(settings, port=reserved.getsockname()[1])
        supervisor = _Supervisor(settings, folder)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, supervisor.stop)
        await supervisor.run(lambda: listening(url_of(reserved)))


def _clear_up() -> None:
    """Removes the metrics of supervisors that were killed and could not do it themselves."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDERS}*-*"):
        pid = folder.name.removeprefix(_FOLDERS).partition("-")[0]
        if pid.isdecimal() and not _lives(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, and alive
        return True
    return True


@contextmanager
def _reserved(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that holds the port for the workers. Raises SetupError if somebody else has it."""
    with listen(host, port) as probe:
        address = probe.getsockname()
    with socket.socket(probe.family) as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(address)
        # Workers may join, but no second server may take the port before they listen.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        yield reserved


class _Supervisor:
    def __init__(self, settings: Settings, folder: str) -> None:
        self._settings = settings
        self._folder = folder
        self._workers: set[Process] = set()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Tells all workers to stop; told twice, they stop at once."""
        self._stopping.set()
        for worker in self._workers:
            _terminate(worker)

    async def run(self, listening: Callable[[], None]) -> None:
        """Returns when all workers have stopped after `stop`."""
        ready = [asyncio.Event() for _ in range(self._settings.workers)]
        async with asyncio.TaskGroup() as group:
            for one in ready:
                group.create_task(self._keep_alive(one))
            announcing = group.create_task(_when_all(ready, listening))
            await self._stopping.wait()
            announcing.cancel()

    async def _keep_alive(self, ready: asyncio.Event) -> None:
        while not self._stopping.is_set():
            started = time.monotonic()
            worker = await self._start(ready)
            status = await worker.wait()
            self._workers.discard(worker)
            forget_worker(worker.pid, self._folder)
            if not self._stopping.is_set():
                log.error("worker died", pid=worker.pid, status=status)
                await self._pause(started + SHORTEST_LIFE_S - time.monotonic())

    async def _start(self, ready: asyncio.Event) -> Process:
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tether.worker"),
            stdin=PIPE,
            stdout=PIPE,
            env={**os.environ, FOLDER_VARIABLE: self._folder},
            start_new_session=True,  # Ctrl-C is for the supervisor, which passes it on once
        )
        self._workers.add(worker)
        if self._stopping.is_set():
            _terminate(worker)
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(msgspec.json.encode(self._settings) + b"\n")
        if await worker.stdout.readline() == READY:
            ready.set()
        return worker

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(seconds, 0)):
                await self._stopping.wait()
        except TimeoutError:
            pass


def _terminate(worker: Process) -> None:
    with suppress(ProcessLookupError):  # it has just ended by itself
        worker.terminate()


async def _when_all(ready: list[asyncio.Event], listening: Callable[[], None]) -> None:
    for one in ready:
        await one.wait()
    listening()
