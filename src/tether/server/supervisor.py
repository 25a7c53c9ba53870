"""Several worker processes behind one port: starts them, replaces those that die, stops them.

Each worker listens on a socket of its own, to which the kernel hands its share of the connections
(SO_REUSEPORT). A worker learns its settings over a pair of sockets, so that no password stands in a
process list, tells there what it counts, and stops when that ends: none outlives its supervisor.
"""

import asyncio
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial

import structlog

from tether.server.metrics import added_up
from tether.server.metrics_port import serving
from tether.server.run import listen, url_of
from tether.server.settings import Settings, metrics_address
from tether.server.worker_link import (
    FROM_WORKER,
    Begin,
    Counts,
    Link,
    Ready,
    SayCounts,
    TotalCounts,
)

log = structlog.get_logger()

SHORTEST_LIFE_S = 1.0  # a worker that dies sooner is replaced only then
REPORT_TIMEOUT_S = 1.0  # for all workers to say what they counted; else their last word counts
LAST_WORDS_S = 1.0  # for what a worker said before it died
SCRAPE_TIMEOUT_S = 10.0


async def supervise(settings: Settings, listening: Callable[[str], None]) -> None:
    """Runs `settings.workers` workers until SIGTERM or SIGINT; tells `listening` the address."""
    loop = asyncio.get_running_loop()
    with _reserved(settings.host, settings.port) as reserved:
        settings = replace(settings, port=reserved.getsockname()[1])
        supervisor = _Supervisor(settings)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, supervisor.stop)

        def page() -> str:
            total = asyncio.run_coroutine_threadsafe(supervisor.total(), loop)
            return total.result(SCRAPE_TIMEOUT_S)

        with serving(page, metrics_address(settings.metrics)):
            await supervisor.run(lambda: listening(url_of(reserved)))


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


class _Worker:
    """A worker process and what it has said."""

    def __init__(self, process: Process, link: Link) -> None:
        self.process = process
        self.link = link
        self.page = ""  # what it counted when it last said so
        self.reported = asyncio.Event()

    def terminate(self) -> None:
        """Tells it to stop."""
        with suppress(ProcessLookupError):  # it has just ended by itself
            self.process.terminate()

    def ask(self) -> None:
        """Wants to know what it counted up to now; `reported` says that it is known."""
        self.reported.clear()
        self.link.send(SayCounts())


class _Supervisor:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._workers: set[_Worker] = set()
        self._stopping = asyncio.Event()
        self._left = ""  # what the workers that are gone counted
        self._adding: asyncio.Task[str] | None = None

    def stop(self) -> None:
        """Tells all workers to stop; told twice, they stop at once."""
        self._stopping.set()
        for worker in self._workers:
            worker.terminate()

    async def run(self, listening: Callable[[], None]) -> None:
        """Returns when all workers have stopped after `stop`."""
        ready = [asyncio.Event() for _ in range(self._settings.workers)]
        async with asyncio.TaskGroup() as group:
            for one in ready:
                group.create_task(self._keep_alive(one))
            announcing = group.create_task(_when_all(ready, listening))
            await self._stopping.wait()
            announcing.cancel()

    # The life of a worker -------------------------------------------------------------------------

    async def _keep_alive(self, ready: asyncio.Event) -> None:
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                await self._live(ready)
            except Exception as error:  # such as no memory or file descriptor left: not for ever
                log.error("worker cannot run", exc_info=error)
            if not self._stopping.is_set():
                await self._pause(started + SHORTEST_LIFE_S - time.monotonic())

    async def _live(self, ready: asyncio.Event) -> None:
        """From a worker's start to its end."""
        worker = await self._start()
        listening = asyncio.create_task(self._listen(worker, ready))
        try:
            status = await worker.process.wait()
            await asyncio.wait([listening], timeout=LAST_WORDS_S)
        finally:
            listening.cancel()
            worker.link.close()
            self._workers.discard(worker)
            self._left = added_up([self._left, worker.page], of_the_gone=True)
            worker.reported.set()
        if not self._stopping.is_set():
            log.error("worker died", pid=worker.process.pid, status=status)

    async def _start(self) -> _Worker:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *("-X", "utf8", "-m", "tether.server.worker"),
                    stdin=theirs.fileno(),
                    stdout=DEVNULL,
                    start_new_session=True,  # Ctrl-C is for the supervisor, which passes it on once
                )
            worker = _Worker(process, await Link.over(ours))
        except BaseException:
            ours.close()
            raise
        self._workers.add(worker)
        if self._stopping.is_set():
            worker.terminate()
        worker.link.send(Begin(self._settings))
        return worker

    async def _listen(self, worker: _Worker, ready: asyncio.Event) -> None:
        """Hears what the worker says until it is gone."""
        while message := await worker.link.receive(FROM_WORKER):
            if isinstance(message, Ready):
                ready.set()
            elif isinstance(message, Counts):
                worker.page = message.page
                if message.asked:
                    worker.reported.set()
            else:
                # Not awaited: the total needs what this worker says next.
                self._add_up().add_done_callback(partial(_tell_total, worker))

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(seconds, 0)):
                await self._stopping.wait()
        except TimeoutError:
            pass

    # What they counted ----------------------------------------------------------------------------

    async def total(self) -> str:
        """What all workers counted up to now. Raises ValueError if none has said anything.

        Whoever asks while it is added up gets the same.
        """
        return await asyncio.shield(self._add_up())

    def _add_up(self) -> asyncio.Task[str]:
        if self._adding is None:
            self._adding = asyncio.create_task(self._total_now())
            self._adding.add_done_callback(self._added)
        return self._adding

    def _added(self, adding: asyncio.Task[str]) -> None:
        self._adding = None

    async def _total_now(self) -> str:
        workers = list(self._workers)
        for worker in workers:
            worker.ask()
        reports = [asyncio.create_task(worker.reported.wait()) for worker in workers]
        if reports:
            _, late = await asyncio.wait(reports, timeout=REPORT_TIMEOUT_S)
            for report in late:  # it is busy or hangs: what it said before counts
                report.cancel()
        pages = [self._left, *(worker.page for worker in self._workers)]
        return await asyncio.to_thread(added_up, pages)


def _tell_total(worker: _Worker, adding: asyncio.Task[str]) -> None:
    failed = adding.cancelled() or adding.exception() is not None
    worker.link.send(TotalCounts(None if failed else adding.result()))


async def _when_all(ready: list[asyncio.Event], listening: Callable[[], None]) -> None:
    for one in ready:
        await one.wait()
    listening()
