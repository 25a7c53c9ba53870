"""An HTTP client that does not give up: it waits when it is told to and sends again what failed.

Every request of the API may be sent again without harm, so a broken connection needs no thought.
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from types import TracebackType
from typing import Any

import httpx

from tether.errors import SetupError, TetherError

PATIENCE_S = 60.0  # how long one request may fail in a row before all is given up
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
_PASSING = frozenset({502, 503, 504})


class Refused(TetherError):
    """The server understood the request and will not do it, however often it is asked."""


class PatientClient:
    """One server, one key, and the patience for rate limits, restarts and bad connections.

    `notice` is told, once for each cause, why there is a delay; `delays` counts them.
    """

    def __init__(self, url: str, key: str, notice: Callable[[str], None]) -> None:
        self._url = url.rstrip("/")
        self._notice = notice
        self.delays: Counter[str] = Counter()
        self._headers = {"x-api-key": key}
        self._tls = httpx.create_ssl_context()
        # httpx spends more time on choosing among 32 connections of a pool than on the request: so
        # every request under way has a client of its own, with one connection, used again after it.
        self._clients: list[httpx.AsyncClient] = []
        self._idle: list[httpx.AsyncClient] = []

    async def __aenter__(self) -> "PatientClient":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for client in self._clients:
            await client.aclose()

    async def check(self) -> None:
        """Raises SetupError, without patience, if there is no such server or it refuses the key."""
        try:
            response = await self._try("GET", f"{self._url}/chargers?limit=1", None)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise SetupError(
                f"Nothing answers at {self._url} ({_reason(error)}). Is the server running there?"
            ) from None
        if response.status_code == 403:
            raise SetupError(f"The server at {self._url} does not accept this API key (403).")
        if response.status_code not in {200, 429, *_PASSING}:
            raise SetupError(
                f"{self._url} does not answer like a Tether server: {_answer(response)}."
            )

    async def send(self, method: str, path: str, body: bytes) -> httpx.Response:
        """The answer, a 2xx. Raises Refused, or SetupError if going on would be no use."""
        return await self._request(method, self._url + path, body)

    async def entries(self, path: str) -> AsyncIterator[dict[str, Any]]:
        """Every entry of a list, page after page; numbers are Decimals."""
        address: str | None = self._url + path
        while address is not None:
            response = await self._request("GET", address, None)
            page = json.loads(response.text, parse_float=Decimal, parse_int=Decimal)
            for entry in page:
                yield entry
            # The events' last page has a next one too, for what is still to come.
            address = response.links.get("next", {}).get("url") if page else None

    async def _request(self, method: str, address: str, body: bytes | None) -> httpx.Response:
        give_up_at, pause_s = time.monotonic() + PATIENCE_S, FIRST_PAUSE_S
        while True:
            try:
                response = await self._try(method, address, body)
            except httpx.TransportError as error:
                wait_s, cause = pause_s, f"The connection broke ({_reason(error)})"
            else:
                if response.is_success:
                    return response
                wait_s, cause = _retry_after_s(response) or pause_s, _answer(response)
                if response.status_code == 429:
                    give_up_at = time.monotonic() + PATIENCE_S  # a limit is no failure
                elif response.status_code == 403:
                    raise SetupError(
                        f"The API key must not do this: {method} {_path(address)} (403)."
                    )
                elif response.status_code not in _PASSING:
                    raise Refused(f"{method} {_path(address)}: {_answer(response)}")
            if time.monotonic() > give_up_at:
                raise SetupError(f"{cause}; gave up after {PATIENCE_S:.0f} s.")
            if not self.delays[cause]:
                self._notice(f"{cause}: waiting, and sending again.")
            self.delays[cause] += 1
            await asyncio.sleep(wait_s * random.uniform(1, 1.5))  # noqa: S311 - not a secret
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _try(self, method: str, address: str, body: bytes | None) -> httpx.Response:
        client = self._idle.pop() if self._idle else self._new_client()
        try:
            return await client.request(method, address, content=body)
        finally:
            self._idle.append(client)

    def _new_client(self) -> httpx.AsyncClient:
        client = httpx.AsyncClient(headers=self._headers, timeout=30, verify=self._tls)
        self._clients.append(client)
        return client


def _retry_after_s(response: httpx.Response) -> float:
    """The seconds that the server asks for, 0 if it asks for none."""
    text = response.headers.get("retry-after", "")
    return float(text) if text.isdecimal() else 0.0


def _path(address: str) -> str:
    return httpx.URL(address).path


def _answer(response: httpx.Response) -> str:
    """Status and message of an answer, on one line."""
    try:
        message = response.json()["message"]
    except (ValueError, KeyError, TypeError):
        message = response.reason_phrase
    return f"{response.status_code} {message}"


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
