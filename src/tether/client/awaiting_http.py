"""HTTP for the awaiting client: one try of a request, with aiohttp (docs/decisions/0013).

Both clients go through the same proxies and trust the same certificates.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import httpx2
from yarl import URL

from tether.client.coalescing import RequestCoalescer
from tether.client.connection import IDLE_S, MOST_CONNECTIONS, Target, lost, proxy_to
from tether.client.errors import TetherError
from tether.client.exchange import Answer, Lost, Request
from tether.client.forks import anew_in_children, leave_to_parent
from tether.client.receiving import SLOWEST_BYTES_PER_S, Receiving, headers_of
from tether.client.streaming import SILENCE_S, Interrupted

_UNSENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class _Broken(Exception):
    """A connection broke. No error of aiohttp, which would send PUT and GET again by itself."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause


_FAILURES = (aiohttp.ClientError, TimeoutError, _Broken, ValueError)


class Opened(NamedTuple):
    """An answer of status 200 whose body is still to come, as it is on the wire."""

    headers: Mapping[str, str]
    body: AsyncIterator[bytes]


class AwaitingHttp:
    """Connections to one server, for any number of tasks of one event loop."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._session: aiohttp.ClientSession | None = None
        self._coalescer = RequestCoalescer(self._send_alone)
        anew_in_children(self)

    def forked(self) -> None:
        """Connections belong to the process that opened them."""
        leave_to_parent(self._session)
        self._session = None

    async def send(self, request: Request) -> Answer | Lost:
        """Sends it once; what came of it."""
        send = self._coalescer.send if request.may_share else self._send_alone
        return await send(request)

    async def _send_alone(self, request: Request) -> Answer | Lost:
        try:
            asking = self._ask(request)
            async with (
                self._free,
                asyncio.timeout(self._target.sending_s(request)) as waiting,
                asking as response,
            ):
                return await self._received(response, waiting)
        except _FAILURES as error:
            return _lost(error, self._target.url)

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[Opened | Answer]:
        """Sends it, for an answer that goes on if it is 200.

        Raises Interrupted, also while that is read.
        """
        times = aiohttp.ClientTimeout(
            total=None, sock_connect=self._target.connect_timeout_s, sock_read=SILENCE_S
        )
        try:
            async with AsyncExitStack() as stack:
                asking = self._ask(request, timeout=times)
                await stack.enter_async_context(self._free)
                async with asyncio.timeout(self._target.sending_s(request)) as waiting:
                    response = await stack.enter_async_context(asking)
                    answer: Opened | Answer = Opened(
                        headers_of(response.raw_headers), response.content.iter_any()
                    )
                    if response.status != 200:
                        answer = await self._received(response, waiting)
                yield answer
        except _FAILURES as error:
            raise Interrupted(_lost(error, self._target.url)) from None

    def _ask(
        self, request: Request, **options: Any
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._connections().request(
            request.method,
            URL(self._target.url_of(request), encoded=True),
            data=request.body,
            headers=self._target.headers_of(request),
            allow_redirects=False,
            **options,
        )

    async def _received(self, response: aiohttp.ClientResponse, waiting: asyncio.Timeout) -> Answer:
        receiving = Receiving(response.status, headers_of(response.raw_headers))
        until = asyncio.get_running_loop().time() + self._target.timeout_s
        waiting.reschedule(until)
        async for data in response.content.iter_any():
            if not receiving.take(data):
                break
            until += len(data) / SLOWEST_BYTES_PER_S
            waiting.reschedule(until)
        return receiving.answer()

    def _connections(self) -> aiohttp.ClientSession:
        """Raises TetherError in another event loop than the first one."""
        loop = asyncio.get_running_loop()
        if self._session is None:  # it can only be made where an event loop runs
            self._session = _session_to(self._target)
            self._free = asyncio.Semaphore(MOST_CONNECTIONS)
            self._loop = loop
        elif self._loop is not loop:
            raise TetherError(
                "An AsyncClient belongs to the event loop in which it was first used, and this is "
                "another one: make a client in each `asyncio.run`."
            )
        return self._session

    def check(self) -> None:
        """Raises TetherError in another event loop than the first one.

        Before a call waits for what only the first one can do.
        """
        self._connections()

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()


def _lost(error: Exception, url: str) -> Lost:
    if isinstance(error, _Broken):
        return lost(error.cause, url, sent=True, final=False)
    if isinstance(error, aiohttp.ClientError | TimeoutError):
        return lost(error, url, sent=not isinstance(error, _UNSENT), final=False)
    return lost(error, url, sent=False, final=True)  # such as a line break in a header


def _session_to(target: Target) -> aiohttp.ClientSession:
    tls = target.url.startswith("https:")
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=MOST_CONNECTIONS,
            keepalive_timeout=IDLE_S,
            ssl=httpx2.create_ssl_context() if tls else True,
        ),
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=target.connect_timeout_s, sock_read=target.timeout_s
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        middlewares=(_once,),
        proxy=proxy_to(target.url),
        skip_auto_headers=("Content-Type",),
        auto_decompress=False,
    )


async def _once(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    try:
        return await handler(request)
    except _UNSENT:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _Broken(error) from None
