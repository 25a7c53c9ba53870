"""HTTP for the blocking client: one try of a request, with httpcore2."""

import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import httpcore2
import httpx2

from tether.client.connection import IDLE_S, MOST_CONNECTIONS, Target, lost, proxy_to
from tether.client.exchange import Answer, Lost, Request
from tether.client.forks import anew_in_children, leave_to_parent
from tether.client.receiving import SLOWEST_BYTES_PER_S, Receiving, headers_of
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


class Opened(NamedTuple):
    """An answer of status 200 whose body is still to come, as it is on the wire."""

    headers: Mapping[str, str]
    body: Iterator[bytes]


class _Allowance:
    """For how many seconds a try may go on once it has a connection, and what a byte adds to them.

    A library bounds each wait by itself: a server that sends a byte at a time could go on for ever.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._each_byte_s = 0.0
        self._until: float | None = None

    def left(self, timeout: float | None, error: type[Exception]) -> float:
        """For how many seconds the next wait may last. Raises the error if there are none."""
        now = time.monotonic()
        if self._until is None:
            self._until = now + self._seconds
        if now >= self._until:
            raise error("it takes too long in all")
        left = self._until - now
        return left if timeout is None else min(timeout, left)

    def came(self, size: int) -> None:
        """Adds the time that these bytes allow."""
        if self._until is not None:
            self._until += size * self._each_byte_s

    def renew(self, seconds: float, each_byte_s: float) -> None:
        """Begins anew with so many seconds, and so many more for each byte."""
        self._until, self._each_byte_s = time.monotonic() + seconds, each_byte_s


_allowance: ContextVar[_Allowance | None] = ContextVar("allowance", default=None)


@contextmanager
def _allowing(seconds: float) -> Iterator[_Allowance]:
    """Bounds all waiting of this thread meanwhile."""
    allowance = _Allowance(seconds)
    token = _allowance.set(allowance)
    try:
        yield allowance
    finally:
        _allowance.reset(token)


class _Stream(httpcore2.NetworkStream):
    """A connection on which waiting is bounded."""

    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        allowance = _allowance.get()
        if allowance is None:
            return self._stream.read(max_bytes, timeout)
        data = self._stream.read(max_bytes, allowance.left(timeout, httpcore2.ReadTimeout))
        allowance.came(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        allowance = _allowance.get()
        if allowance is None:
            self._stream.write(buffer, timeout)
            return
        for start in range(0, len(buffer), _PORTION):  # each of which may take that long
            seconds = allowance.left(timeout, httpcore2.WriteTimeout)
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

    def __init__(self, target: Target) -> None:
        self._target = target
        self._pool = _pool_to(target)
        self._is_closed = False
        anew_in_children(self)

    def forked(self) -> None:
        """Connections belong to the process that opened them."""
        leave_to_parent(self._pool)
        self._pool = _pool_to(self._target)

    def check(self) -> None:
        """Any thread may use it."""

    def send(self, request: Request) -> Answer | Lost:
        """Sends it once; what came of it."""
        try:
            with (
                _allowing(self._target.sending_s(request)) as allowance,
                self._ask(request, self._target.timeout_s) as response,
            ):
                return self._received(response, allowance)
        except _FAILURES as error:
            return _lost(error, self._target.url)

    @contextmanager
    def open(self, request: Request) -> Iterator[Opened | Answer]:
        """Sends it, for an answer that goes on if it is 200.

        Raises Interrupted, also while that is read.
        """
        try:
            with ExitStack() as stack:
                with _allowing(self._target.sending_s(request)) as allowance:
                    response = stack.enter_context(self._ask(request, SILENCE_S))
                    answer: Opened | Answer = Opened(
                        headers_of(response.headers), response.iter_stream()
                    )
                    if response.status != 200:
                        answer = self._received(response, allowance)
                yield answer
        except _FAILURES as error:
            raise Interrupted(_lost(error, self._target.url)) from None

    def _ask(
        self, request: Request, timeout_s: float
    ) -> AbstractContextManager[httpcore2.Response]:
        if self._is_closed:
            raise RuntimeError("The client is closed.")
        times = {
            "connect": self._target.connect_timeout_s,
            "read": timeout_s,
            "write": timeout_s,
            "pool": timeout_s,
        }
        return self._pool.stream(
            request.method,
            self._target.url_of(request),
            headers=list(self._target.headers_of(request).items()),
            content=request.body,
            extensions={"timeout": times},
        )

    def _received(self, response: httpcore2.Response, allowance: _Allowance) -> Answer:
        receiving = Receiving(response.status, headers_of(response.headers))
        allowance.renew(self._target.timeout_s, 1 / SLOWEST_BYTES_PER_S)
        for data in response.iter_stream():
            if not receiving.take(data):
                break
        return receiving.answer()

    def close(self) -> None:
        """Closes the connections."""
        self._is_closed = True
        self._pool.close()


def _pool_to(target: Target) -> httpcore2.ConnectionPool:
    proxy = proxy_to(target.url)
    return httpcore2.ConnectionPool(
        ssl_context=httpx2.create_ssl_context() if target.url.startswith("https:") else None,
        proxy=_proxy(proxy) if proxy else None,
        max_connections=MOST_CONNECTIONS,
        max_keepalive_connections=MOST_CONNECTIONS,
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


def _lost(error: Exception, url: str) -> Lost:
    return lost(error, url, sent=not isinstance(error, _UNSENT), final=isinstance(error, _HOPELESS))
