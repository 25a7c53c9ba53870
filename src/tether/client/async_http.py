"""Waiting and HTTP for the async client: one try of a request, with aiohttp (decision 13).

`blocking_http.py` has the same names for the other client. Both clients use the same proxies and
trust the same certificates.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import aiohttp
import httpx2
from aiohttp.connector import Connection
from yarl import URL

from tether.client.coalescing import RequestCoalescer
from tether.client.connection import IDLE_S, MAX_CONNECTIONS, Endpoint, no_answer, proxy_to
from tether.client.errors import TetherError
from tether.client.exchange import Answer, NoAnswer, Request
from tether.client.forks import leave_to_parent, reset_after_fork
from tether.client.receiving import MIN_DOWNLOAD_BYTES_PER_S, AnswerReader, headers_of
from tether.client.streaming import SILENCE_S, Interrupted

__all__ = ["Http", "Stop", "sleep", "wait"]

Stop = asyncio.Event
sleep = asyncio.sleep

_UNSENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class _Broken(Exception):
    """A connection broke. For its own errors, aiohttp would send PUT and GET again."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause


_FAILURES = (aiohttp.ClientError, TimeoutError, _Broken, ValueError)


async def wait(stop: Stop, seconds: float) -> None:
    """Waits until `stop` is set, at most so many seconds."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


class _Idle(asyncio.Protocol):
    """Has a connection while no request has it, and closes it if the server sends something then.

    aiohttp keeps whatever arrives, without a bound, and takes it for the next answer.
    """

    def __init__(self, owner: asyncio.Protocol, transport: asyncio.Transport) -> None:
        self._owner, self._transport = owner, transport

    def data_received(self, data: bytes) -> None:
        self._transport.abort()

    def pause_writing(self) -> None:
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        self._owner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.connection_lost(exc)


class _Connector(aiohttp.TCPConnector):
    """Watches connections between requests."""

    async def connect(self, *arguments: Any, **options: Any) -> Connection:
        connection = await super().connect(*arguments, **options)
        owner, transport = connection.protocol, connection.transport
        if owner is not None and transport is not None:  # otherwise it broke already
            transport.set_protocol(owner)
            connection.add_callback(lambda: transport.set_protocol(_Idle(owner, transport)))
        return connection


class Http:
    """Connections to one server, for any number of tasks of one event loop."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._session: aiohttp.ClientSession | None = None
        self._coalescer = RequestCoalescer(self._send_one)
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        """A child opens its own connections, and has no requests in flight."""
        leave_to_parent(self._session)
        self._session = None
        self._coalescer = RequestCoalescer(self._send_one)

    async def send(self, request: Request) -> Answer | NoAnswer:
        """Sends a request once."""
        self._connections()  # before it waits for something in another event loop
        send = self._coalescer.send if request.may_share else self._send_one
        return await send(request)

    async def _send_one(self, request: Request) -> Answer | NoAnswer:
        try:
            async with (
                self._slots,
                asyncio.timeout(self._endpoint.answer_timeout_s(request)) as waiting,
                self._ask(request) as response,
            ):
                return await self._received(response, waiting)
        except _FAILURES as error:
            return _no_answer(error, self._endpoint.url)

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[tuple[Answer, AsyncIterator[bytes]]]:
        """Sends a request for a stream. The body of an answer of status 200 is still to come.

        It is not decompressed. Raises Interrupted, also while the body is read.
        """
        times = aiohttp.ClientTimeout(
            total=None, sock_connect=self._endpoint.connect_timeout_s, sock_read=SILENCE_S
        )
        self._connections()
        try:
            async with (
                self._slots,
                asyncio.timeout(self._endpoint.answer_timeout_s(request)) as waiting,
                self._ask(request, timeout=times) as response,
            ):
                answer = Answer(200, headers_of(response.raw_headers), b"")
                if response.status != 200:
                    answer = await self._received(response, waiting)
                _reschedule(waiting, None)  # the stream has no end
                yield answer, response.content.iter_any()
        except _FAILURES as error:
            raise Interrupted(_no_answer(error, self._endpoint.url)) from None

    def _ask(
        self, request: Request, **options: Any
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._connections().request(
            request.method,
            URL(self._endpoint.base + request.target, encoded=True),
            data=request.body,
            headers=self._endpoint.headers_of(request),
            allow_redirects=False,
            **options,
        )

    async def _received(self, response: aiohttp.ClientResponse, waiting: asyncio.Timeout) -> Answer:
        receiving = AnswerReader(response.status, headers_of(response.raw_headers))
        until = asyncio.get_running_loop().time() + self._endpoint.timeout_s
        _reschedule(waiting, until)
        async for data in response.content.iter_any():
            if not receiving.take(data):
                break
            until += len(data) / MIN_DOWNLOAD_BYTES_PER_S
            _reschedule(waiting, until)
        return receiving.answer()

    def _connections(self) -> aiohttp.ClientSession:
        """The session. Raises TetherError in another event loop than the first one."""
        loop = asyncio.get_running_loop()
        if self._session is None:  # it needs a running event loop
            self._session = _session_to(self._endpoint)
            self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
            self._loop = loop
        elif self._session.closed:
            raise RuntimeError("The client is closed.")
        elif self._loop is not loop:
            raise TetherError(
                "An AsyncClient belongs to the event loop in which it was first used, and this is "
                "another one: make a client in each `asyncio.run`."
            )
        return self._session

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()


def _reschedule(waiting: asyncio.Timeout, when: float | None) -> None:
    if not waiting.expired():  # else the task is being cancelled
        waiting.reschedule(when)


def _no_answer(error: Exception, url: str) -> NoAnswer:
    if isinstance(error, _Broken):
        return no_answer(error.cause, url, sent=True, final=False)
    if isinstance(error, aiohttp.ClientError | TimeoutError):
        return no_answer(error, url, sent=not isinstance(error, _UNSENT), final=False)
    return no_answer(error, url, sent=False, final=True)  # such as a line break in a header


def _session_to(endpoint: Endpoint) -> aiohttp.ClientSession:
    tls = endpoint.url.startswith("https:")
    return aiohttp.ClientSession(
        connector=_Connector(
            limit=MAX_CONNECTIONS,
            keepalive_timeout=IDLE_S,
            ssl=httpx2.create_ssl_context() if tls else True,
        ),
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=endpoint.connect_timeout_s, sock_read=endpoint.timeout_s
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        middlewares=(_never_resend,),
        proxy=proxy_to(endpoint.url),
        skip_auto_headers=("Content-Type",),
        auto_decompress=False,
    )


async def _never_resend(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    try:
        return await handler(request)
    except _UNSENT:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _Broken(error) from None
