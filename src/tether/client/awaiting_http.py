"""HTTP for the awaiting client: one try of a request, with aiohttp (docs/decisions/0013).

Both clients go through the same proxies and trust the same certificates.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2
from yarl import URL

from tether.client.connection import IDLE_S, MOST_CONNECTIONS, Target, lost
from tether.client.exchange import Answer, Lost, Request
from tether.client.streaming import SILENCE_S, Interrupted

# aiohttp bounds the wait for the answer, which begins when the body is sent. A small body goes into
# buffers at once; a large one must not take for ever.
AT_ONCE_BYTES = 32 * 1024
SLOWEST_BYTES_PER_S = 16 * 1024

_UNSENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class _Broken(Exception):
    """A connection broke. No error of aiohttp, which would send PUT and GET again by itself."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause


_FAILURES = (aiohttp.ClientError, TimeoutError, _Broken, ValueError)


class Opened(NamedTuple):
    """An answer whose body is still to come."""

    status: int
    headers: Mapping[str, str]
    body: AsyncIterator[bytes]


class AwaitingHttp:
    """Connections to one server, for any number of tasks of one event loop."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Request) -> Answer | Lost:
        """Sends it once; what came of it."""
        try:
            async with (
                asyncio.timeout(self._sending_s(request)) as sending,
                self._connections().request(
                    request.method,
                    URL(self._target.url + request.target, encoded=True),
                    data=request.body,
                    headers=self._target.headers_of(request),
                    allow_redirects=False,
                ) as response,
            ):
                sending.reschedule(None)
                return Answer(response.status, response.headers, await response.read())
        except _FAILURES as error:
            return _lost(error)

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[Opened]:
        """Sends it, for an answer that goes on. Raises Interrupted, also while that is read."""
        try:
            async with self._connections().request(
                request.method,
                URL(self._target.url + request.target, encoded=True),
                headers=self._target.headers_of(request),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=self._target.connect_timeout_s, sock_read=SILENCE_S
                ),
            ) as response:
                yield Opened(response.status, response.headers, response.content.iter_any())
        except _FAILURES as error:
            raise Interrupted(_lost(error)) from None

    def _connections(self) -> aiohttp.ClientSession:
        if self._session is None:  # it can only be made where an event loop runs
            self._session = _session_to(self._target)
        return self._session

    def _sending_s(self, request: Request) -> float | None:
        size = len(request.body or b"")
        if size <= AT_ONCE_BYTES:
            return None
        return self._target.timeout_s + size / SLOWEST_BYTES_PER_S

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()


def _lost(error: Exception) -> Lost:
    if isinstance(error, _Broken):
        return lost(error.cause, sent=True, final=False)
    if isinstance(error, aiohttp.ClientError | TimeoutError):
        return lost(error, sent=not isinstance(error, _UNSENT), final=False)
    return lost(error, sent=False, final=True)  # such as a line break in a header


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
        proxy=_proxy_to(target.url),
        skip_auto_headers=("Content-Type",),
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


def _proxy_to(url: str) -> str | None:
    """The proxy that the environment names. aiohttp would look it up in a thread, each time."""
    parts, proxies = urlsplit(url), getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.hostname or ""):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
