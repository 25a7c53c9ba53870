"""A proxy that behaves like bad networks and busy servers."""

import asyncio
import random
import threading
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

ANSWER = "HTTP/1.1 {} X\r\n{}content-length: 0\r\n\r\n"
CUT_OFF = (ConnectionError, asyncio.IncompleteReadError)


class Message(NamedTuple):
    """A request or response, byte for byte."""

    head: bytes
    body: bytes

    @property
    def data(self) -> bytes:
        """All of it."""
        return self.head + self.body


async def read_message(reader: asyncio.StreamReader) -> Message:
    """The next request or response. Raises one of CUT_OFF."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").lower().split("\r\n")
    length = next((int(line[15:]) for line in lines if line.startswith("content-length:")), 0)
    return Message(head, await reader.readexactly(length))


@dataclass
class Proxy:
    """A proxy between the SDK and a server. `badness` is the share of disturbed requests."""

    target: str
    badness: float
    seed: int
    url: str = ""
    suffered: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._copies: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        parts = urlsplit(self.target)
        self._address = (parts.hostname, parts.port)

    def __enter__(self) -> "Proxy":
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**24))
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def settle(self) -> None:
        """Waits until the delayed copies of requests are sent, too."""

        async def come() -> None:
            while self._copies:
                await asyncio.wait(self._copies)

        self._call(come())

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = await asyncio.open_connection(*self._address)
        try:
            with suppress(*CUT_OFF):
                while True:
                    request = await read_message(reader)
                    fate = self._fate()
                    answer = await self._suffer(request, fate, upstream)
                    if fate == "cut amid":
                        writer.write(answer[:-1])
                        break
                    writer.write(answer)
                    await writer.drain()
        finally:
            upstream[1].close()
            writer.close()

    async def _suffer(
        self,
        request: Message,
        fate: str,
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> bytes:
        """The answer for the client. Raises ConnectionError to close the connection."""
        self.suffered[fate] = self.suffered.get(fate, 0) + 1
        if fate == "cut before":
            raise ConnectionError
        if fate == "429":
            return ANSWER.format(429, "retry-after: 0\r\n").encode()
        if fate == "503":
            return ANSWER.format(503, "").encode()
        if fate == "delay":
            await asyncio.sleep(self._random.uniform(0, 0.05))
        if fate == "duplicate":
            copy = asyncio.create_task(self._send_again(request, self._random.uniform(0, 0.3)))
            self._copies.add(copy)
            copy.add_done_callback(self._copies.discard)
        upstream[1].write(request.data)
        answer = await read_message(upstream[0])
        if fate == "cut after":
            raise ConnectionError
        if fate == "answer lost":
            return ANSWER.format(self._random.choice((502, 504)), "").encode()
        return answer.data

    def _fate(self) -> str:
        if self._random.random() >= self.badness:
            return "well"
        return self._random.choice(
            ("cut before", "cut after", "cut amid", "429", "503", "answer lost", "delay",
             "duplicate")
        )  # fmt: skip

    async def _send_again(self, request: Message, delay: float) -> None:
        await asyncio.sleep(delay)
        reader, writer = await asyncio.open_connection(*self._address)
        writer.write(request.data)
        await read_message(reader)
        writer.close()
