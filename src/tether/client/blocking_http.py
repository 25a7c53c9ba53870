"""Waiting and HTTP for the blocking client: one try of a request, with httpcore2.

`async_http.py` has the same names for the other client.
"""

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
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
    """The time that a try may take when it has a connection. Each byte can add time.

    httpcore2 only limits single waits: a server could send one byte at a time for ever.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._byte_s = 0.0
        self._until: float | None = None

    def limit(self, timeout: float | None, error: type[Exception]) -> float:
        """The seconds that the next wait may last. Raises the error if none are left."""
        now = time.monotonic()
        if self._until is None:
            self._until = now + self._seconds
        if now >= self._until:
            raise error("it takes too long in all")
        return min(timeout or inf, self._until - now)

    def extend(self, size: int) -> None:
        """Adds the time for these bytes."""
        if self._until is not None:
            self._until += size * self._byte_s

    def restart(self, seconds: float, byte_s: float) -> None:
        """Starts again with so many seconds, and so many more for each byte."""
        self._until, self._byte_s = time.monotonic() + seconds, byte_s


_NO_DEADLINE = _Deadline(inf)
_deadline = ContextVar("deadline", default=_NO_DEADLINE)


@contextmanager
def _with_deadline(seconds: float) -> Iterator[_Deadline]:
    """Limits all waits of this thread in the block."""
    deadline = _Deadline(seconds)
    token = _deadline.set(deadline)
    try:
        yield deadline
    finally:
        _deadline.reset(token)


class _Stream(httpcore2.NetworkStream):
    """A connection whose waits end at the deadline of the thread."""

    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        deadline = _deadline.get()
        data = self._stream.read(max_bytes, deadline.limit(timeout, httpcore2.ReadTimeout))
        deadline.extend(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        deadline = _deadline.get()
        for start in range(0, len(buffer), _PORTION):  # the time-out is for a portion
            seconds = deadline.limit(timeout, httpcore2.WriteTimeout)
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
        try:
            with (
                _with_deadline(self._endpoint.answer_timeout_s(request)) as deadline,
                self._ask(request, self._endpoint.timeout_s) as response,
            ):
                return self._received(response, deadline)
        except _FAILURES as error:
            return _no_answer(error, self._endpoint.url)

    @contextmanager
    def open(self, request: Request) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """Sends a request for a stream. The body of an answer of status 200 is still to come.

        It is not decompressed. Raises Interrupted, also while the body is read.
        """
        try:
            with ExitStack() as stack:
                with _with_deadline(self._endpoint.answer_timeout_s(request)) as deadline:
                    response = stack.enter_context(self._ask(request, SILENCE_S))
                    answer = Answer(200, headers_of(response.headers), b"")
                    if response.status != 200:
                        answer = self._received(response, deadline)
                yield answer, response.iter_stream()
        except _FAILURES as error:
            raise Interrupted(_no_answer(error, self._endpoint.url)) from None

    def _ask(
        self, request: Request, timeout_s: float
    ) -> AbstractContextManager[httpcore2.Response]:
        if self._is_closed:
            raise RuntimeError("The client is closed.")
        times = {
            "connect": self._endpoint.connect_timeout_s,
            "read": timeout_s,
            "write": timeout_s,
            "pool": timeout_s,
        }
        return self._pool.stream(
            request.method,
            self._endpoint.base + request.target,
            headers=list(self._endpoint.headers_of(request).items()),
            content=request.body,
            extensions={"timeout": times},
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
