"""A server that gives the replies of a script, and keeps the requests."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import NamedTuple


class ReceivedRequest(NamedTuple):
    """A request; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Reply(NamedTuple):
    """A reply. With None as the status the server closes the connection instead."""

    status: int | None
    body: bytes = b""
    headers: Mapping[str, str] = MappingProxyType({})
    delay_s: float = 0


class ScriptedServer(ThreadingHTTPServer):
    """Gives the replies of its script in turn, and the last one to all later requests."""

    daemon_threads = True

    def __init__(self, *script: Reply) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = deque(script)
        self.requests: list[ReceivedRequest] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> "ScriptedServer":
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ScriptedServer

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        script = self.server.script
        reply = script.popleft() if len(script) > 1 else script[0]
        self.server.requests.append(ReceivedRequest(self.command, self.path, headers, body))
        time.sleep(reply.delay_s)
        if reply.status is None:
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in {**reply.headers, "content-length": str(len(reply.body))}.items():
            self.send_header(name, value)
        with suppress(BrokenPipeError):  # the client no longer waits
            self.end_headers()
            self.wfile.write(reply.body)

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing."""
