"""HTTP for the blocking client: one try of a request, with httpx2."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import httpx2

from tether.client.connection import IDLE_S, MOST_CONNECTIONS, Target, lost
from tether.client.exchange import Answer, Lost, Request
from tether.client.streaming import SILENCE_S, Interrupted

_UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_HOPELESS = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)


class Opened(NamedTuple):
    """An answer whose body is still to come."""

    status: int
    headers: Mapping[str, str]
    body: Iterator[bytes]


class BlockingHttp:
    """Connections to one server, for any number of threads."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._client = httpx2.Client(
            timeout=httpx2.Timeout(target.timeout_s, connect=target.connect_timeout_s),
            limits=httpx2.Limits(
                max_connections=MOST_CONNECTIONS,
                max_keepalive_connections=MOST_CONNECTIONS,
                keepalive_expiry=IDLE_S,
            ),
        )

    def send(self, request: Request) -> Answer | Lost:
        """Sends it once; what came of it."""
        try:
            response = self._client.request(
                request.method,
                self._target.url + request.target,
                content=request.body,
                headers=self._target.headers_of(request),
            )
        except httpx2.RequestError as error:
            return _lost(error)
        return Answer(response.status_code, response.headers, response.content)

    @contextmanager
    def open(self, request: Request) -> Iterator[Opened]:
        """Sends it, for an answer that goes on. Raises Interrupted, also while that is read."""
        try:
            with self._client.stream(
                request.method,
                self._target.url + request.target,
                headers=self._target.headers_of(request),
                timeout=httpx2.Timeout(SILENCE_S, connect=self._target.connect_timeout_s),
            ) as response:
                yield Opened(response.status_code, response.headers, response.iter_bytes())
        except httpx2.RequestError as error:
            raise Interrupted(_lost(error)) from None

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()


def _lost(error: httpx2.RequestError) -> Lost:
    return lost(error, sent=not isinstance(error, _UNSENT), final=isinstance(error, _HOPELESS))
