"""Where the server is and how it is reached, which both clients share."""

import os
from base64 import b64encode
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from tether import __version__
from tether.client.errors import TetherError
from tether.client.exchange import Lost, Request

BAD_URL = "The URL of the server must be like https://tether.example.com."
DEFAULT_URL = "http://127.0.0.1:8000"
IS_IT_RUNNING = "Is the server running"
CONNECT_TIMEOUT_S = 10.0
LONGEST_TIMEOUT_S = 24 * 60 * 60.0
IDLE_S = 4.0  # less than servers commonly wait, so that they do not hang up on a request
MOST_CONNECTIONS = 100
SLOWEST_BYTES_PER_S = 16 * 1024  # at which a body may be sent


@dataclass(frozen=True, slots=True)
class Target:
    """The server, the key, and how many seconds a try may go without hearing anything.

    `url` is as it was given; `base` is what requests begin with: in ASCII, without a password.
    """

    url: str
    base: str
    headers: dict[str, str] = field(repr=False)
    timeout_s: float

    @property
    def connect_timeout_s(self) -> float:
        """The seconds that a connection may take to be made."""
        return min(self.timeout_s, CONNECT_TIMEOUT_S)

    def url_of(self, request: Request) -> str:
        """Where a request goes, in ASCII."""
        return self.base + request.target

    def headers_of(self, request: Request) -> dict[str, str]:
        """What a request carries."""
        headers = {**self.headers, **request.headers, "X-Request-Id": request.id}
        if request.body is not None:
            headers["Content-Length"] = str(len(request.body))
        return headers

    def sending_s(self, request: Request) -> float:
        """The seconds until the answer to a request must have begun, once there is a connection."""
        size = len(request.body or b"")
        return self.connect_timeout_s + self.timeout_s + size / SLOWEST_BYTES_PER_S


def target(url: str | None, api_key: str | None, timeout_s: float) -> Target:
    """What was given, or else TETHER_URL and TETHER_API_KEY. Raises TetherError."""
    found = _checked_url(url or os.environ.get("TETHER_URL"))
    key = _checked_key(api_key or os.environ.get("TETHER_API_KEY") or "")
    if not 0 < timeout_s <= LONGEST_TIMEOUT_S:  # to the libraries, 0 means never, or at once
        raise TetherError("The time-out must be a number of seconds above 0, at most a day.")
    base, headers = _base(found)
    headers |= {"X-API-Key": key, "User-Agent": f"tether-client/{__version__}"}
    return Target(found, base, headers, timeout_s)


def _base(url: str) -> tuple[str, dict[str, str]]:
    """The address in ASCII, and what of it goes into headers. Raises TetherError."""
    try:
        found = httpx2.URL(url)
        place = found.netloc.decode("ascii")
    except (httpx2.InvalidURL, ValueError):
        raise TetherError(BAD_URL) from None
    headers = {"Host": place, "Accept": "*/*", "Accept-Encoding": "gzip"}
    if found.userinfo:
        user, _, password = found.userinfo.partition(b":")
        known = b64encode(unquote_to_bytes(user) + b":" + unquote_to_bytes(password))
        headers["Authorization"] = f"Basic {known.decode()}"
    path = found.raw_path.decode("ascii").rstrip("/")
    return f"{found.scheme}://{place}{path}", headers


def _checked_url(url: str | None) -> str:
    found = (url or DEFAULT_URL).strip().rstrip("/")
    try:
        parts = urlsplit(found)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        usable = usable and parts.port != 0 and not (parts.query or parts.fragment)
    except ValueError:  # a port that is none, a bracket too many
        usable = False
    if not usable or not found.isprintable() or " " in found:
        raise TetherError(BAD_URL)
    return found


def _checked_key(key: str) -> str:
    key = key.strip()
    if not key:
        raise TetherError("There is no API key: give api_key, or set TETHER_API_KEY.")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise TetherError("The API key has characters which no key has.")
    return key


def shown_url(url: str) -> str:
    """The address without a user name and password that may be in it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def lost(error: Exception, url: str, *, sent: bool, final: bool) -> Lost:
    """A failure of an HTTP library in our words. The error itself knows the key: it ends here.

    `url` is the server's.
    """
    reason = f"The server gave no answer ({f'{type(error).__name__}: {error}'.rstrip(': ')})."
    if not sent and not final:
        reason += f" {IS_IT_RUNNING} at {shown_url(url)}?"
    return Lost(reason, sent=sent, final=final)


def proxy_to(url: str) -> str | None:
    """The proxy that the environment names for this address."""
    parts, proxies = urlsplit(url), getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.hostname or ""):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
