"""The HTTP client of webhooks. It limits what it reads, and connects to allowed addresses only."""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler

from tether.webhooks.addresses import AddressRules, ForbiddenAddress

MAX_ANSWER_BYTES = 20_000
MAX_RECEIVED_BYTES = 256 * 1024  # of head and body, with what aiohttp reads ahead
LONGEST_ERROR = 300  # characters
KEEP_ALIVE_S = 15.0
NAMES_AT_ONCE = 64  # a look-up may take as long as an attempt


class RequestFailed(Exception):
    """There was no answer. The message tells the owner of the endpoint why."""


class Answer(NamedTuple):
    """The answer of an endpoint. Only the beginning of its body is read."""

    status: int
    retry_after: str | None
    body: bytes


class HttpClient:
    """Posts data. It follows no redirects, and uses no cookies and no proxy of the environment."""

    def __init__(self, rules: AddressRules) -> None:
        connector = aiohttp.TCPConnector(
            limit=0,
            ssl=ssl.create_default_context(),
            resolver=_Resolver(),
            use_dns_cache=False,
            socket_factory=rules.open_socket,
            keepalive_timeout=KEEP_ALIVE_S,
        )
        kind: type[ResponseHandler] = _BoundedConnection
        connector._factory = partial(kind, loop=asyncio.get_running_loop())
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
        )

    async def post(self, url: str, headers: Mapping[str, str], data: bytes) -> Answer:
        """Sends the data once. Raises RequestFailed."""
        try:
            async with self._session.post(
                url, data=data, headers=headers, allow_redirects=False
            ) as response:
                body = await _beginning(response)
                return Answer(response.status, response.headers.get("Retry-After"), body)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise RequestFailed(_reason(error)) from None

    async def close(self) -> None:
        """Closes all connections."""
        await self._session.close()


class _BoundedConnection(ResponseHandler):
    """Is closed when it receives too much for a request, also after the answer.

    aiohttp would read interim answers, chunk sizes and unrequested answers without end.
    """

    _received = 0

    def set_response_params(self, **params: Any) -> None:
        """Begins to read the answer to a request."""
        self._received = 0
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Takes in bytes from the socket."""
        self._received += len(data)
        if self._received <= MAX_RECEIVED_BYTES:
            super().data_received(data)
        elif self.transport is not None:
            self.set_exception(aiohttp.ClientPayloadError("The answer is too long."))
            self.transport.abort()


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """The first bytes of the body. If it is longer, the connection is closed."""
    read = bytearray()
    async for part in response.content.iter_any():
        read += part
        if len(read) > MAX_ANSWER_BYTES:
            response.close()
            break
    return bytes(read[:MAX_ANSWER_BYTES])


def _reason(error: Exception) -> str:
    """Why there was no answer."""
    cause: BaseException | None = error
    while cause is not None:  # aiohttp raises another error from ForbiddenAddress
        if isinstance(cause, ForbiddenAddress):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    text = str(error)
    # The text of these errors has the whole URL, which may have a password.
    if isinstance(error, aiohttp.ClientResponseError):
        text = error.message
    elif isinstance(error, aiohttp.InvalidURL):
        text = error.description or "The address is not valid."
    text = " ".join(text.split()) or type(error).__name__
    return "".join(filter(str.isprintable, text))[:LONGEST_ERROR]


class _Resolver(AbstractResolver):
    """The resolver of the system, in its own threads: a slow name server delays nothing else."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(NAMES_AT_ONCE, "tether-names")

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        look_up = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST,
            )
            for family, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
