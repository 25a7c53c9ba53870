"""HTTP for the blocking client: one try of a request, with httpcore2."""

import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import httpcore2
import httpx2

from tether.client.connection import IDLE_S, MAX_CONNECTIONS, Endpoint, no_answer, proxy_to
from tether.client.exchange import Answer, NoAnswer, Request
from tether.client.forks import leave_to_parent, reset_after_fork
from tether.client.receiving import MIN_DOWNLOAD_BYTES_PER_S, AnswerReader, headers_of
from tether.client.streaming import SILENCE_S, Interrupted

_PORTION = 256 * 1024

_UNSENT = (httpcore2.ConnectError, httpcore2.ConnectTimeout, httpcore2.PoolTimeout)
_HOPELESS = (httpcore2.UnsupportedProtocol, httpcore2.LocalProtocolError, ValueError)
_FAILURES = (
    httpcore2.NetworkError,
    httpcore2.TimeoutException,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    *_HOPELESS,
)


class OpenAnswer(NamedTuple):
    """An answer of status 200 whose body is still to come, not decompressed."""

    headers: Mapping[str, str]
    body: Iterator[bytes]


class _Deadline:
    """The time that a try has once it has a connection. Each byte can add time.

    httpcore2 bounds each wait alone: a server that sends a byte at a time could go on for ever.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._each_byte_s = 0.0
        self._until: float | None = None

    def left(self, timeout: float | None, error: type[Exception]) -> float:
        """The seconds that the next wait may last. Raises the error if none are left."""
        now = time.monotonic()
        if self._until is None:
            self._until = now + self._seconds
        if now >= self._until:
            raise error("it takes too long in all")
        left = self._until - now
        return left if timeout is None else min(timeout, left)

    def extend(self, size: int) -> None:
        """Adds the time for these bytes."""
        if self._until is not None:
            self._until += size * self._each_byte_s

    def restart(self, seconds: float, each_byte_s: float) -> None:
        """Starts again with so many seconds, and so many more for each byte."""
        self._until, self._each_byte_s = time.monotonic() + seconds, each_byte_s


_deadline: ContextVar[_Deadline | None] = ContextVar("deadline", default=None)


@contextmanager
def _with_deadline(seconds: float) -> Iterator[_Deadline]:
    """Bounds all waits of this thread in the block."""
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
        if deadline is None:
            return self._stream.read(max_bytes, timeout)
        data = self._stream.read(max_bytes, deadline.left(timeout, httpcore2.ReadTimeout))
        deadline.extend(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        deadline = _deadline.get()
        if deadline is None:
            self._stream.write(buffer, timeout)
            return
        for start in range(0, len(buffer), _PORTION):  # each portion may take that long
            seconds = deadline.left(timeout, httpcore2.WriteTimeout)
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


class BlockingHttp:
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

    def check(self) -> None:
        """Does nothing: any thread may use it."""

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
    def open(self, request: Request) -> Iterator[OpenAnswer | Answer]:
        """Sends a request for a stream. An answer of status 200 is still open.

        Raises Interrupted, also while the stream is read.
        """
        try:
            with ExitStack() as stack:
                with _with_deadline(self._endpoint.answer_timeout_s(request)) as deadline:
                    response = stack.enter_context(self._ask(request, SILENCE_S))
                    answer: OpenAnswer | Answer = OpenAnswer(
                        headers_of(response.headers), response.iter_stream()
                    )
                    if response.status != 200:
                        answer = self._received(response, deadline)
                yield answer
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
            self._endpoint.url_of(request),
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
        error, url, sent=not isinstance(error, _UNSENT), final=isinstance(error, _HOPELESS)
    )
