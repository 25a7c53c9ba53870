"""Where the server is and how it is reached, which both clients share."""

import os
from typing import Any
from urllib.parse import urlsplit

import httpx2

from tether import __version__
from tether.client.errors import TetherError
from tether.client.exchange import Answer, Lost, Request

DEFAULT_URL = "http://127.0.0.1:8000"
CONNECT_TIMEOUT_S = 10.0
IDLE_S = 4.0  # less than servers commonly wait, so that they do not hang up on a request
MOST_CONNECTIONS = 100


def base_url(url: str | None) -> str:
    """The server's address: this one, TETHER_URL, or that of `make run`. Raises TetherError."""
    found = (url or os.environ.get("TETHER_URL") or DEFAULT_URL).strip().rstrip("/")
    try:
        parts = httpx2.URL(found)
    except httpx2.InvalidURL:
        parts = httpx2.URL()
    if parts.scheme not in ("http", "https") or not parts.host or parts.query or parts.fragment:
        raise TetherError("The URL of the server must be like https://tether.example.com.")
    return found


def shown_url(url: str) -> str:
    """The address without a user name and password that may be in it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def options(api_key: str | None, timeout_s: float) -> dict[str, Any]:
    """What the HTTP library has to know. Raises TetherError, which never shows the key."""
    key = (api_key or os.environ.get("TETHER_API_KEY") or "").strip()
    if not key:
        raise TetherError("There is no API key: give api_key, or set TETHER_API_KEY.")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise TetherError("The API key has characters which no key has.")
    return {
        "headers": {"X-API-Key": key, "User-Agent": f"tether-client/{__version__}"},
        "timeout": httpx2.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S)),
        "limits": httpx2.Limits(
            max_connections=MOST_CONNECTIONS,
            max_keepalive_connections=MOST_CONNECTIONS,
            keepalive_expiry=IDLE_S,
        ),
    }


def arguments(url: str, request: Request) -> dict[str, Any]:
    """A request in the words of the HTTP library."""
    return {
        "method": request.method,
        "url": url + request.target,
        "content": request.body,
        "headers": {**request.headers, "X-Request-Id": request.id},
    }


def answer_of(response: httpx2.Response) -> Answer:
    """An answer of the HTTP library in our words."""
    return Answer(response.status_code, response.headers, response.content)


def lost(error: httpx2.RequestError) -> Lost:
    """A failure of the HTTP library in our words. The error itself knows the key: it ends here."""
    unsent = httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout
    hopeless = httpx2.UnsupportedProtocol | httpx2.LocalProtocolError
    reason = f"{type(error).__name__}: {error}".rstrip(": ")
    return Lost(
        f"The server gave no answer ({reason}).",
        sent=not isinstance(error, unsent),
        final=isinstance(error, hopeless),
    )
