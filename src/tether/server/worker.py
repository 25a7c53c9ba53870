"""A worker process, and the messages between it and its supervisor.

supervisor.py starts it as `python -m tether.server.worker`. Its standard input is one of a pair of
sockets. Both sides send JSON, one message a line. Messages are not in files: other programs could
fill up the disk or remove a file. The pair ends when one of the two processes ends.
"""

import asyncio
import os
import signal
import socket
import sys
from typing import TypeVar

import msgspec
import uvloop

from tether.domain.errors import Unavailable
from tether.server import logging
from tether.server.listeners import listen
from tether.server.metrics import Metrics
from tether.server.run import background_tasks, serve
from tether.server.settings import Settings

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
MAX_UNSENT_BYTES = 1024 * 1024  # with more unsent bytes, the other side does not read
ANSWER_TIMEOUT_S = 5.0  # for the supervisor to sum the metrics
REPORT_S = 1.0  # between two reports; if a worker is killed, only this much is lost
MAX_REPORT_SHARE = 0.01  # … or longer, so that reports take at most this share of the time


# Messages -----------------------------------------------------------------------------------------


class Begin(msgspec.Struct, tag=True):
    """To a worker, as the first message: its settings."""

    settings: Settings


class RequestMetrics(msgspec.Struct, tag=True):
    """To a worker: send your metrics now."""


class MetricsSum(msgspec.Struct, tag=True):
    """To a worker that asked: the sum of the metrics of all workers; None if it is not known."""

    page: str | None


class Ready(msgspec.Struct, tag=True):
    """From a worker: it serves."""


class WorkerMetrics(msgspec.Struct, tag=True):
    """From a worker: its metrics in Prometheus' text format.

    `asked`: this is the reply to RequestMetrics.
    """

    page: str
    asked: bool = False


class RequestSum(msgspec.Struct, tag=True):
    """From a worker: send the sum of the metrics of all workers, because a client asks for it."""


T = TypeVar("T")
SETTINGS = msgspec.json.Decoder(Begin)
TO_WORKER = msgspec.json.Decoder(RequestMetrics | MetricsSum)
FROM_WORKER = msgspec.json.Decoder(Ready | WorkerMetrics | RequestSum)


class Link:
    """One end of the pair of sockets. Drops messages while the other end does not read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> "Link":
        """A link over this socket. `close` also closes the socket."""
        return cls(*await asyncio.open_unix_connection(sock=end, limit=MAX_MESSAGE_BYTES))

    def send(self, message: msgspec.Struct) -> None:
        """Sends the message, if that is possible."""
        transport = self._writer.transport
        if not transport.is_closing() and transport.get_write_buffer_size() < MAX_UNSENT_BYTES:
            self._writer.write(msgspec.json.encode(message) + b"\n")

    async def receive(self, decoder: msgspec.json.Decoder[T]) -> T | None:
        """The next message; None if the other end is closed."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        return decoder.decode(line) if line.endswith(b"\n") else None

    def close(self) -> None:
        """Closes the socket."""
        self._writer.close()


# The worker ---------------------------------------------------------------------------------------


class Supervision:
    """The supervisor for its worker: receives the worker's metrics, and sends the sum of all."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._total: asyncio.Future[str | None] | None = None

    def ready(self) -> None:
        """Reports that the worker serves."""
        self._link.send(Ready())

    async def run(self, metrics: Metrics) -> None:
        """Reports the metrics of this worker every second and on request. Returns when the
        supervisor has ended.
        """
        reporting = asyncio.create_task(self._report_often(metrics))
        try:
            await self._listen(metrics)
        finally:
            reporting.cancel()
            self._link.send(WorkerMetrics(metrics.own_page_now()))

    async def _listen(self, metrics: Metrics) -> None:
        while message := await self._link.receive(TO_WORKER):
            if isinstance(message, RequestMetrics):
                self._link.send(WorkerMetrics(await metrics.own_page(), asked=True))
            elif self._total is not None and not self._total.done():
                self._total.set_result(message.page)

    async def _report_often(self, metrics: Metrics) -> None:
        while True:
            self._link.send(WorkerMetrics(await metrics.own_page()))
            await asyncio.sleep(max(REPORT_S, metrics.writing_s / MAX_REPORT_SHARE))

    async def total(self) -> str:
        """The metrics of all workers. Raises Unavailable if the supervisor does not answer."""
        if self._total is None:
            self._total = asyncio.get_running_loop().create_future()
            self._link.send(RequestSum())
        total = self._total
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                page = await asyncio.shield(total)
        except TimeoutError as error:
            raise Unavailable from error
        finally:
            if self._total is total:
                self._total = None
        if page is None:
            raise ValueError("No worker has said what it counted.")
        return page


async def _work() -> None:
    link = await Link.open(socket.fromfd(sys.stdin.fileno(), socket.AF_UNIX, socket.SOCK_STREAM))
    begin = await link.receive(SETTINGS)
    if begin is None:  # the supervisor was killed meanwhile
        return
    settings = begin.settings
    logging.configure(level=settings.log_level, as_json=settings.log_format != "text")
    supervision = Supervision(link)
    metrics = Metrics(supervision.total, by_partner=settings.metrics_by_partner)
    async with background_tasks(_stop_with_supervisor(supervision, metrics)):
        with listen(settings.host, settings.port, shared=True) as listener:
            await serve(settings, metrics, listener, supervision.ready)


async def _stop_with_supervisor(supervision: Supervision, metrics: Metrics) -> None:
    await supervision.run(metrics)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    uvloop.run(_work())
