"""The settings of a server, each with its environment variable."""

import re
from dataclasses import dataclass, field

from tether.domain.errors import SetupError
from tether.server.databases import default_database

_TILES = re.compile(r"(https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?)/[!#-&(-;=-~]*")


@dataclass(frozen=True, slots=True)
class Settings:
    """How a server runs. `docs/configuration.md` says more about each."""

    database: str = field(default_factory=default_database)
    host: str = "127.0.0.1"
    port: int = 8000
    metrics: str = "on"
    """`on` (at /metrics), `off`, or HOST:PORT of an address of its own."""
    metrics_by_partner: bool = False
    console: str = "on"
    """`on` (at /console) or `off`."""
    requests_kept: int = 5_000
    """Refused requests of each partner that the console shows; of others a tenth of that."""
    requests_days: int = 7
    requests_body: int = 16_384
    """Bytes of each body."""
    requests_sample: int = 6
    """Requests a minute that were not refused, of each partner in each worker."""
    key_requests: str = "off"
    """`on` (at /request-key, a page of the console) or `off`."""
    audit_days: int = 400
    """How long entries of the audit trail are kept."""
    event_days: int = 0
    """How long events are kept of partners of which nothing else is said; 0 for ever."""
    attempt_days: int = 30
    """The same of attempts of webhooks."""
    map_tiles: str = ""
    """Whose pictures the console's maps show: a URL with `{z}`, `{x}` and `{y}`; none if empty."""
    cors_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    """Networks of proxies whose X-Forwarded-For is believed, such as `10.0.0.0/8`."""
    log_level: str = "info"
    log_format: str = "json"
    workers: int = 1
    """Processes that share the port; more than one only on PostgreSQL."""
    pool_size: int = 12
    """Connections to PostgreSQL of each worker; 3 at least."""
    max_connections: int = 5000
    """Of each worker."""
    max_unread: int = 64
    """MB of answers that wait for clients which do not read, of each worker."""
    redis: str = ""
    """The Redis (or Valkey) that shares the rate limits among all workers and nodes."""
    secret_key: str = ""
    """Encrypts the secrets of webhooks. Without it a SQLite database has a file beside it."""
    webhooks_allow: tuple[str, ...] = ()
    """Networks that are not of the internet to which webhooks may go, such as `10.0.0.0/8`."""
    webhooks_allow_http: bool = False
    demo_key: str = ""
    """The file that has the key of a demo, which the landing page then names."""


def origin_of(map_tiles: str) -> str:
    """The server of these tiles, as a Content-Security-Policy names it. Raises SetupError."""
    found = _TILES.fullmatch(map_tiles)
    if found is None or not all(part in map_tiles for part in ("{z}", "{x}", "{y}")):
        raise SetupError(
            f"{map_tiles!r} is no address of tiles: write https://tiles.example.com/{{z}}/{{x}}/{{y}}.png"
        )
    return found[1]


def metrics_address(metrics: str) -> tuple[str, int] | None:
    """Where the setting `metrics` wants them served apart from the API. Raises SetupError."""
    return None if metrics in ("on", "off") else parse_address(metrics)


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`. Raises SetupError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise SetupError(f"{text!r} is not an address: write HOST:PORT.")
    return host.strip("[]"), int(port)
