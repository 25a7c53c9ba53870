"""What a worker and its supervisor tell each other: JSON, a message a line, over a pair of sockets.

The pair is the worker's standard input. It ends when either of them is gone. Nothing of it is in a
file, which others could fill up or clear away.
"""

import asyncio
import socket
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec

from tether.domain.errors import Unavailable
from tether.server.settings import Settings

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
MAX_UNSENT_BYTES = 1024 * 1024  # then the other end does not read
ANSWER_TIMEOUT_S = 5.0  # for the supervisor to add the metrics up
REPORT_S = 1.0  # between two reports: of a worker that is killed, no more is lost
MOST_OF_THE_TIME = 0.01  # … or more, if making one takes longer than this share of it


class Begin(msgspec.Struct, tag=True):
    """To a worker, first of all: how it runs."""

    settings: Settings


class SayCounts(msgspec.Struct, tag=True):
    """To a worker: say now what you counted."""


class TotalCounts(msgspec.Struct, tag=True):
    """To a worker that asked: what all of them counted; None if that is not known."""

    page: str | None


class Ready(msgspec.Struct, tag=True):
    """From a worker: it serves."""


class Counts(msgspec.Struct, tag=True):
    """From a worker: what it counted so far, in Prometheus' text format; it may have been asked."""

    page: str
    asked: bool = False


class AsksTotal(msgspec.Struct, tag=True):
    """From a worker: somebody asks it what all of them counted."""


T = TypeVar("T")
SETTINGS = msgspec.json.Decoder(Begin)
TO_WORKER = msgspec.json.Decoder(SayCounts | TotalCounts)
FROM_WORKER = msgspec.json.Decoder(Ready | Counts | AsksTotal)


class Link:
    """One end of the pair. What the other end does not read is soon not sent any more, nor kept."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> "Link":
        """The link over this socket, which it closes at its end."""
        return cls(*await asyncio.open_unix_connection(sock=end, limit=MAX_MESSAGE_BYTES))

    def send(self, message: msgspec.Struct) -> None:
        """Sends the message, if that is possible."""
        transport = self._writer.transport
        if not transport.is_closing() and transport.get_write_buffer_size() < MAX_UNSENT_BYTES:
            self._writer.write(msgspec.json.encode(message) + b"\n")

    async def receive(self, decoder: msgspec.json.Decoder[T]) -> T | None:
        """The next message; None if the other end is gone."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        return decoder.decode(line) if line.endswith(b"\n") else None

    def close(self) -> None:
        """Lets go of it."""
        self._writer.close()


class Supervision:
    """A worker's view of its supervisor: reports to it, and asks it for the total."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._asked: asyncio.Future[str | None] | None = None

    def ready(self) -> None:
        """Says that the worker serves."""
        self._link.send(Ready())

    async def follow(self, own_page: Callable[[], str]) -> None:
        """Tells what this worker counted, each second and when asked; returns when alone."""
        reporting = asyncio.create_task(self._report_often(own_page))
        try:
            await self._listen(own_page)
        finally:
            reporting.cancel()
            self._link.send(Counts(own_page()))

    async def _listen(self, own_page: Callable[[], str]) -> None:
        while message := await self._link.receive(TO_WORKER):
            if isinstance(message, SayCounts):
                self._link.send(Counts(own_page(), asked=True))
            elif self._asked is not None and not self._asked.done():
                self._asked.set_result(message.page)

    async def _report_often(self, own_page: Callable[[], str]) -> None:
        while True:
            began = time.perf_counter()
            self._link.send(Counts(own_page()))
            took = time.perf_counter() - began
            await asyncio.sleep(max(REPORT_S, took / MOST_OF_THE_TIME))

    async def total(self) -> str:
        """What all workers counted. Raises Unavailable if the supervisor does not answer."""
        if self._asked is None:
            self._asked = asyncio.get_running_loop().create_future()
            self._link.send(AsksTotal())
        asked = self._asked
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                page = await asyncio.shield(asked)
        except TimeoutError as error:
            raise Unavailable from error
        finally:
            if self._asked is asked:
                self._asked = None
        if page is None:
            raise ValueError("No worker has said what it counted.")
        return page
