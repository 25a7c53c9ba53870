"""Waiting and HTTP for the blocking client: one try of a request, with httpcore2.

`async_http.py` has the same names for the other client.
"""

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from math import inf
from typing import Any

import httpcore2
import httpx2

from tether.client.connection import IDLE_S, MAX_CONNECTIONS, Endpoint, no_answer, proxy_to
from tether.client.exchange import Answer, NoAnswer, Request
from tether.client.forks import leave_to_parent, reset_after_fork
from tether.client.receiving import MIN_DOWNLOAD_BYTES_PER_S, AnswerReader, headers_of
from tether.client.streaming import SILENCE_S, Interrupted

__all__ = ["Http", "Stop", "sleep", "wait"]

Stop = threading.Event
sleep = time.sleep

_PORTION = 256 * 1024

_UNSENT = (httpcore2.ConnectError, httpcore2.ConnectTimeout, httpcore2.PoolTimeout)
_FINAL = (httpcore2.UnsupportedProtocol, httpcore2.LocalProtocolError, ValueError)
_FAILURES = (
    httpcore2.NetworkError,
    httpcore2.TimeoutException,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    *_FINAL,
)


def wait(stop: Stop, seconds: float) -> None:
    """Waits until `stop` is set, at most so many seconds."""
    stop.wait(seconds)


class _Deadline:
    """Limits each wait of a try, and all its waits together from when it has a connection.

    httpcore2 only limits single waits: a server could send one byte at a time for ever. httpcore2
    passes this object, in place of a time-out, to the stream.
    """

    def __init__(self, wait_s: float, total_s: float) -> None:
        self.wait_s, self._total_s = wait_s, total_s
        self._byte_s = 0.0
        self._until: float | None = None

    def limit(self, error: type[Exception]) -> float:
        """The seconds that the next wait may last. Raises the error if none are left."""
        now = time.monotonic()
        if self._until is None:
            self._until = now + self._total_s
        if now >= self._until:
            raise error("it takes too long in all")
        return min(self.wait_s, self._until - now)

    def extend(self, size: int) -> None:
        """Adds the time for these bytes."""
        if self._until is not None:
            self._until += size * self._byte_s

    def restart(self, total_s: float, byte_s: float = 0.0) -> None:
        """Starts again with so many seconds, and so many more for each byte."""
        self._until, self._byte_s = time.monotonic() + total_s, byte_s


class _Stream(httpcore2.NetworkStream):
    """A connection whose waits end at the deadline of the try."""

    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: Any = None) -> bytes:
        data = self._stream.read(max_bytes, timeout.limit(httpcore2.ReadTimeout))
        timeout.extend(len(data))
        return data

    def write(self, buffer: bytes, timeout: Any = None) -> None:
        for start in range(0, len(buffer), _PORTION):  # the limit of a wait is for a portion
            seconds = timeout.limit(httpcore2.WriteTimeout)
            self._stream.write(buffer[start : start + _PORTION], seconds)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Network(httpcore2.SyncBackend):
    def connect_tcp(self, *arguments: Any, **options: Any) -> httpcore2.NetworkStream:
        return _Stream(super().connect_tcp(*arguments, **options))


class Http:
    """Connections to one server, for any number of threads."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._pool = _pool_to(endpoint)
        self._is_closed = False
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        """A child opens its own connections."""
        leave_to_parent(self._pool)
        self._pool = _pool_to(self._endpoint)

    def send(self, request: Request) -> Answer | NoAnswer:
        """Sends a request once."""
        deadline = _Deadline(self._endpoint.timeout_s, self._endpoint.answer_timeout_s(request))
        try:
            with self._ask(request, deadline) as response:
                return self._received(response, deadline)
        except _FAILURES as error:
            return _no_answer(error, self._endpoint.url)

    @contextmanager
    def open(self, request: Request) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """Sends a request for a stream. The body of an answer of status 200 is still to come.

        It is not decompressed. Raises Interrupted, also while the body is read.
        """
        deadline = _Deadline(SILENCE_S, self._endpoint.answer_timeout_s(request))
        try:
            with self._ask(request, deadline) as response:
                answer = Answer(200, headers_of(response.headers), b"")
                if response.status != 200:
                    answer = self._received(response, deadline)
                deadline.restart(inf)
                yield answer, response.iter_stream()
        except _FAILURES as error:
            raise Interrupted(_no_answer(error, self._endpoint.url)) from None

    def _ask(
        self, request: Request, deadline: _Deadline
    ) -> AbstractContextManager[httpcore2.Response]:
        if self._is_closed:
            raise RuntimeError("The client is closed.")
        limits = {
            "connect": self._endpoint.connect_timeout_s,
            "pool": deadline.wait_s,
            "read": deadline,
            "write": deadline,
        }
        return self._pool.stream(
            request.method,
            self._endpoint.base + request.target,
            headers=list(self._endpoint.headers_of(request).items()),
            content=request.body,
            extensions={"timeout": limits},
        )

    def _received(self, response: httpcore2.Response, deadline: _Deadline) -> Answer:
        receiving = AnswerReader(response.status, headers_of(response.headers))
        deadline.restart(self._endpoint.timeout_s, 1 / MIN_DOWNLOAD_BYTES_PER_S)
        for data in response.iter_stream():
            if not receiving.take(data):
                break
        return receiving.answer()

    def close(self) -> None:
        """Closes the connections."""
        self._is_closed = True
        self._pool.close()


def _pool_to(endpoint: Endpoint) -> httpcore2.ConnectionPool:
    proxy = proxy_to(endpoint.url)
    return httpcore2.ConnectionPool(
        ssl_context=httpx2.create_ssl_context() if endpoint.url.startswith("https:") else None,
        proxy=_proxy(proxy) if proxy else None,
        max_connections=MAX_CONNECTIONS,
        max_keepalive_connections=MAX_CONNECTIONS,
        keepalive_expiry=IDLE_S,
        network_backend=_Network(),
    )


def _proxy(address: str) -> httpcore2.Proxy:
    known = httpx2.Proxy(address)
    url = known.url
    return httpcore2.Proxy(
        httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=b"/"),
        auth=known.raw_auth,
        ssl_context=httpx2.create_ssl_context() if url.scheme == "https" else None,
    )


def _no_answer(error: Exception, url: str) -> NoAnswer:
    return no_answer(
        error, url, sent=not isinstance(error, _UNSENT), final=isinstance(error, _FINAL)
    )
