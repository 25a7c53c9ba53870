"""The HTTP client below webhooks: within bounds, and only to where requests may go."""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from tether.webhooks.addresses import Addresses, Refused

MOST_ANSWER_BYTES = 20_000  # that are read
LONGEST_ERROR = 300
KEPT_S = 15.0  # a connection that nothing is sent through
NAMES_AT_ONCE = 64  # that are looked up; one may take as long as an attempt


class Failed(Exception):
    """There was no answer. The message says why, to the endpoint's owner."""


class Answer(NamedTuple):
    """What an endpoint answered: status, Retry-After, and the beginning of the body."""

    status: int
    retry_after: str | None
    body: bytes


class HttpClient:
    """Posts bodies. Redirects are not followed; no proxy of the environment, no cookie is used."""

    def __init__(self, addresses: Addresses) -> None:
        connector = aiohttp.TCPConnector(
            limit=0,
            ssl=ssl.create_default_context(),
            resolver=_Resolver(),
            use_dns_cache=False,
            socket_factory=addresses.open_socket,
            keepalive_timeout=KEPT_S,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
        )

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Sends the body once. Raises Failed."""
        try:
            async with self._session.post(
                url, data=body, headers=headers, allow_redirects=False
            ) as response:
                read = await _beginning(response)
                return Answer(response.status, response.headers.get("Retry-After"), read)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Failed(_reason(error)) from None

    async def close(self) -> None:
        """Ends all connections."""
        await self._session.close()


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """The first bytes of the body. What is longer ends the connection."""
    read = bytearray()
    async for part in response.content.iter_any():
        read += part
        if len(read) > MOST_ANSWER_BYTES:
            response.close()
            break
    return bytes(read[:MOST_ANSWER_BYTES])


def _reason(error: Exception) -> str:
    """What went wrong; that an address was refused stands behind what the client says of it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, Refused):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    # The client says the whole URL, too, which may have a password.
    said = str(error)
    if isinstance(error, aiohttp.ClientResponseError):
        said = error.message
    elif isinstance(error, aiohttp.InvalidURL):
        said = error.description or "The address is not valid."
    text = " ".join(said.split()) or type(error).__name__
    return "".join(filter(str.isprintable, text))[:LONGEST_ERROR]


class _Resolver(AbstractResolver):
    """The system's, in threads of its own: a name server that is slow delays nothing else."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(NAMES_AT_ONCE, "tether-names")

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        look_up = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        return [
            ResolveResult(
                hostname=host,
                host=str(place[0]),
                port=port,
                family=family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST,
            )
            for family, _, protocol, _, place in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
