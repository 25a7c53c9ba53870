"""A server that answers what a test tells it to, and remembers what it was asked."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import NamedTuple


class Asked(NamedTuple):
    """A request; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Said(NamedTuple):
    """An answer; None as the status hangs up instead."""

    status: int | None
    body: bytes = b""
    headers: Mapping[str, str] = MappingProxyType({})
    delay_s: float = 0


class Scripted(ThreadingHTTPServer):
    """Gives the answers of its script in turn, the last one for ever."""

    daemon_threads = True

    def __init__(self, *script: Said) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = deque(script)
        self.asked: list[Asked] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> "Scripted":
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Scripted

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        script = self.server.script
        said = script.popleft() if len(script) > 1 else script[0]
        self.server.asked.append(Asked(self.command, self.path, headers, body))
        time.sleep(said.delay_s)
        if said.status is None:
            self.close_connection = True
            return
        self.send_response(said.status)
        for name, value in {**said.headers, "content-length": str(len(said.body))}.items():
            self.send_header(name, value)
        with suppress(BrokenPipeError):  # who asked has given up waiting
            self.end_headers()
            self.wfile.write(said.body)

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""
