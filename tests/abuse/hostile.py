"""A server that sends any bytes that a test gives it, until the client closes the connection."""

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import repeat

Behaviour = Callable[[], Iterable[bytes]]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
BOMB = gzip.compress(b" " * 300_000_000)  # 291 kB


class Hostile:
    """Answers each request, on a connection of its own, with the bytes of a behaviour."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.requests: list[bytes] = []

    def __enter__(self) -> "Hostile":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536) or b"\r\n\r\n"
            self.requests.append(request)
            for data in self._behaviour():
                connection.sendall(data)


def answer(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> Behaviour:
    """One whole answer."""
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers]
    return lambda: [b"\r\n".join(lines) + b"\r\n\r\n" + body]


def endlessly(head: bytes, what: bytes) -> Behaviour:
    """The same for ever, as fast as it is read."""
    block = what * (1 + 65536 // len(what))

    def say() -> Iterator[bytes]:
        yield head
        yield from repeat(block)

    return say


def drop_by_drop(head: bytes, what: bytes) -> Behaviour:
    """The same for ever, but slowly: never silent for long."""

    def say() -> Iterator[bytes]:
        yield head
        while True:
            time.sleep(0.1)
            yield what

    return say


def chunks(*bodies: bytes) -> bytes:
    """These bodies as chunks."""
    return b"".join(b"%x\r\n%s\r\n" % (len(body), body) for body in bodies)
