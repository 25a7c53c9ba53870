"""Serves the metrics at an address of their own, where only `/metrics` exists."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import structlog

from tether.server.listeners import bind
from tether.server.metrics import CONTENT_TYPE

log = structlog.get_logger()

CLIENT_TIMEOUT_S = 10.0  # for a client to send its request or to read the answer


@contextmanager
def serving(page: Callable[[], str], address: tuple[str, int] | None) -> Iterator[None]:
    """Serves this page at the address during the block; does nothing without an address.

    `page` is called in threads. If it raises, the answer is 500. Raises SetupError if nothing can
    listen there.
    """
    if address is None:
        yield
        return
    hint = "another address with --metrics (TETHER_METRICS)"
    with bind(*address, "Metrics cannot be served", hint) as listener:
        server = _Server(listener, page)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    def __init__(self, listener: socket.socket, page: Callable[[], str]) -> None:
        super().__init__(listener.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.page = page

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores clients that hung up or stalled."""


class _Handler(BaseHTTPRequestHandler):
    timeout = CLIENT_TIMEOUT_S
    server: _Server

    def do_GET(self) -> None:
        # Not `self.path`: the library changes `//metrics` to `/metrics`.
        target = self.requestline.split()[1].partition("?")[0]
        if target != "/metrics":
            self._answer(404, "text/plain", "Not Found: the metrics are at /metrics.\n")
            return
        try:
            page = self.server.page()
        except Exception as error:
            log.error("metrics failed", exc_info=error)
            self._answer(500, "text/plain", "Internal Server Error\n")
        else:
            self._answer(200, CONTENT_TYPE, page)

    do_HEAD = do_GET  # noqa: N815

    def _answer(self, status: int, content_type: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Scrapes are not logged."""
