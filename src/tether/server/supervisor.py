"""Runs several worker processes on one port: starts them, replaces those that die, stops them.

Each worker listens on its own socket. The kernel distributes the connections (SO_REUSEPORT). The
supervisor and a worker talk over a pair of sockets. The worker gets its settings from there, so no
password is in a list of processes. It reports its metrics there. It stops when the pair is closed,
so no worker lives longer than its supervisor.
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

from tether.server.listeners import listen, url_of
from tether.server.metrics import sum_pages
from tether.server.metrics_port import serving
from tether.server.settings import Settings, metrics_address
from tether.server.worker import (
    FROM_WORKER,
    Begin,
    Link,
    MetricsSum,
    Ready,
    RequestMetrics,
    WorkerMetrics,
)

log = structlog.get_logger()

MIN_LIFE_S = 1.0  # a worker that dies sooner is replaced after this time
REPORT_TIMEOUT_S = 1.0  # for all workers to report; then their last reports are used
LAST_REPORT_S = 1.0  # to read the last report of a worker that died
SCRAPE_TIMEOUT_S = 10.0


async def supervise(settings: Settings, listening: Callable[[str], None]) -> None:
    """Runs `settings.workers` workers until SIGTERM or SIGINT. `listening` gets the address."""
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
    """A socket that reserves the port for the workers. Raises SetupError if the port is in use."""
    with listen(host, port) as probe:
        address = probe.getsockname()
    with socket.socket(probe.family) as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(address)
        # Now workers can bind the port, but no second server can.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        yield reserved


class _Worker:
    """A worker process and its last report."""

    def __init__(self, process: Process, link: Link) -> None:
        self.process = process
        self.link = link
        self.page = ""  # its metrics
        self.reported = asyncio.Event()

    def terminate(self) -> None:
        """Asks the process to stop."""
        with suppress(ProcessLookupError):  # it has just ended
            self.process.terminate()

    def request_metrics(self) -> None:
        """Requests its current metrics. `reported` is set when they have arrived."""
        self.reported.clear()
        self.link.send(RequestMetrics())


class _Supervisor:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._workers: set[_Worker] = set()
        self._stopping = asyncio.Event()
        self._ended_page = ""  # the metrics of workers that have ended
        self._summing: asyncio.Task[str] | None = None

    def stop(self) -> None:
        """Asks all workers to stop. After a second call they stop at once."""
        self._stopping.set()
        for worker in self._workers:
            worker.terminate()

    async def run(self, listening: Callable[[], None]) -> None:
        """Returns when all workers have stopped after `stop`."""
        ready = [asyncio.Event() for _ in range(self._settings.workers)]
        async with asyncio.TaskGroup() as group:
            for is_ready in ready:
                group.create_task(self._keep_alive(is_ready))
            announcing = group.create_task(_when_all(ready, listening))
            await self._stopping.wait()
            announcing.cancel()

    # The life of a worker -------------------------------------------------------------------------

    async def _keep_alive(self, ready: asyncio.Event) -> None:
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                await self._run_worker(ready)
            except Exception as error:  # such as no memory or no file descriptor: it is tried again
                log.error("worker cannot run", exc_info=error)
            if not self._stopping.is_set():
                await self._pause(started + MIN_LIFE_S - time.monotonic())

    async def _run_worker(self, ready: asyncio.Event) -> None:
        """Starts a worker and returns when it has ended."""
        worker = await self._start()
        listening = asyncio.create_task(self._listen(worker, ready))
        try:
            status = await worker.process.wait()
            await asyncio.wait([listening], timeout=LAST_REPORT_S)
        finally:
            listening.cancel()
            worker.link.close()
            self._workers.discard(worker)
            self._ended_page = sum_pages([self._ended_page, worker.page], ended=True)
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
                    start_new_session=True,  # so that only the supervisor gets Ctrl-C
                )
            worker = _Worker(process, await Link.open(ours))
        except BaseException:
            ours.close()
            raise
        self._workers.add(worker)
        if self._stopping.is_set():
            worker.terminate()
        worker.link.send(Begin(self._settings))
        return worker

    async def _listen(self, worker: _Worker, ready: asyncio.Event) -> None:
        """Receives the messages of the worker until it has ended."""
        while message := await worker.link.receive(FROM_WORKER):
            if isinstance(message, Ready):
                ready.set()
            elif isinstance(message, WorkerMetrics):
                worker.page = message.page
                if message.asked:
                    worker.reported.set()
            else:
                # Not awaited, because the sum needs the next message of this worker.
                self._sum().add_done_callback(partial(_send_total, worker))

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0)):
                await self._stopping.wait()

    # Metrics --------------------------------------------------------------------------------------

    async def total(self) -> str:
        """The sum of the metrics of all workers. Raises ValueError if there are none.

        Calls at the same time get the same sum.
        """
        return await asyncio.shield(self._sum())

    def _sum(self) -> asyncio.Task[str]:
        if self._summing is None or self._summing.done():
            self._summing = asyncio.create_task(self._sum_now())
        return self._summing

    async def _sum_now(self) -> str:
        workers = list(self._workers)
        for worker in workers:
            worker.request_metrics()
        reports = [asyncio.create_task(worker.reported.wait()) for worker in workers]
        if reports:
            _, late = await asyncio.wait(reports, timeout=REPORT_TIMEOUT_S)
            for report in late:  # the worker is busy or hangs: its last report is used
                report.cancel()
        pages = [self._ended_page, *(worker.page for worker in self._workers)]
        return await asyncio.to_thread(sum_pages, pages)


def _send_total(worker: _Worker, summing: asyncio.Task[str]) -> None:
    failed = summing.cancelled() or summing.exception() is not None
    worker.link.send(MetricsSum(None if failed else summing.result()))


async def _when_all(ready: list[asyncio.Event], listening: Callable[[], None]) -> None:
    for is_ready in ready:
        await is_ready.wait()
    listening()
