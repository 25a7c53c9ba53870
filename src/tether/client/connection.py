"""The server's URL, the API key, headers and the proxy, for both clients."""

import os
from base64 import b64encode
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from tether import __version__
from tether.client.errors import TetherError
from tether.client.exchange import NoAnswer, Request

BAD_URL = "The URL of the server must be like https://tether.example.com."
DEFAULT_URL = "http://127.0.0.1:8000"
IS_IT_RUNNING = "Is the server running"
CONNECT_TIMEOUT_S = 10.0
MAX_TIMEOUT_S = 24 * 60 * 60.0
IDLE_S = 4.0  # servers wait longer, so they do not close a connection during a request
MAX_CONNECTIONS = 100
MIN_UPLOAD_BYTES_PER_S = 16 * 1024


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The server, the headers of all requests, and the seconds that a try may wait for data.

    `url` is as the user gave it. `base` is the URL in ASCII, without a password. The target of
    a request follows it.
    """

    url: str
    base: str
    headers: dict[str, str] = field(repr=False)
    timeout_s: float

    @property
    def connect_timeout_s(self) -> float:
        """The seconds that connecting may take."""
        return min(self.timeout_s, CONNECT_TIMEOUT_S)

    def headers_of(self, request: Request) -> dict[str, str]:
        """The headers of a request."""
        headers = {**self.headers, **request.headers, "X-Request-Id": request.id}
        if request.body is not None:
            headers["Content-Length"] = str(len(request.body))
        return headers

    def answer_timeout_s(self, request: Request) -> float:
        """The seconds that may pass from the connection until the answer begins."""
        size = len(request.body or b"")
        return self.connect_timeout_s + self.timeout_s + size / MIN_UPLOAD_BYTES_PER_S


def endpoint(url: str | None, api_key: str | None, timeout_s: float) -> Endpoint:
    """The endpoint, by default from TETHER_URL and TETHER_API_KEY. Raises TetherError."""
    url = (url or os.environ.get("TETHER_URL") or DEFAULT_URL).strip().rstrip("/")
    parsed = _parsed(url)
    netloc = parsed.netloc.decode("ascii")
    headers = {"Host": netloc, "Accept": "*/*", "Accept-Encoding": "gzip"}
    if parsed.userinfo:
        user, _, password = parsed.userinfo.partition(b":")
        credentials = b64encode(unquote_to_bytes(user) + b":" + unquote_to_bytes(password))
        headers["Authorization"] = f"Basic {credentials.decode()}"
    key = (api_key or os.environ.get("TETHER_API_KEY") or "").strip()
    if not key:
        raise TetherError("There is no API key: give api_key, or set TETHER_API_KEY.")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise TetherError("The API key has characters which no key has.")
    is_number = isinstance(timeout_s, int | float)
    if not (is_number and 0 < timeout_s <= MAX_TIMEOUT_S):  # for the libraries 0 means no time-out
        raise TetherError("The time-out must be a number of seconds above 0, at most a day.")
    headers |= {"X-API-Key": key, "User-Agent": f"tether-client/{__version__}"}
    path = parsed.raw_path.decode("ascii").rstrip("/")
    return Endpoint(url, f"{parsed.scheme}://{netloc}{path}", headers, timeout_s)


def _parsed(url: str) -> httpx2.URL:
    try:
        parts, parsed = urlsplit(url), httpx2.URL(url)  # httpx2 alone accepts port 99999
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except (httpx2.InvalidURL, ValueError):  # such as a bad port, or a bracket too many
        raise TetherError(BAD_URL) from None
    if not usable or parts.query or parts.fragment or not url.isprintable() or " " in url:
        raise TetherError(BAD_URL)
    return parsed


def url_without_password(url: str) -> str:
    """The URL without its user name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def no_answer(error: Exception, url: str, *, sent: bool, final: bool) -> NoAnswer:
    """The outcome for an error of an HTTP library.

    It keeps only the text of the error, because the error itself has the API key.
    """
    reason = f"The server gave no answer ({f'{type(error).__name__}: {error}'.rstrip(': ')})."
    if not sent and not final:
        reason += f" {IS_IT_RUNNING} at {url_without_password(url)}?"
    return NoAnswer(reason, sent=sent, final=final)


def proxy_to(url: str) -> str | None:
    """The proxy for this URL from the environment."""
    parts, proxies = urlsplit(url), getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.hostname or ""):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
