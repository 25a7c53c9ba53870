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
    """Refused requests of each partner that the console shows, and a tenth as many others."""
    requests_days: int = 7
    """How long these requests are kept."""
    requests_body: int = 16_384
    """Bytes of each body that are kept."""
    requests_sample: int = 6
    """How many other requests of each partner each worker keeps a minute."""
    key_requests: str = "off"
    """`on` (at /request-key, a page of the console) or `off`."""
    audit_days: int = 400
    """How long entries of the audit trail are kept."""
    event_days: int = 0
    """How long events are kept, unless the partner has its own retention; 0 means for ever."""
    attempt_days: int = 30
    """The same for attempts of webhooks."""
    map_tiles: str = ""
    """The server of the console's map tiles: a URL with `{z}`, `{x}` and `{y}`; empty for none."""
    cors_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    """Networks of trusted proxies, such as `10.0.0.0/8`. Their X-Forwarded-For is used."""
    log_level: str = "info"
    log_format: str = "json"
    workers: int = 1
    """Processes that share the port. More than one needs PostgreSQL."""
    pool_size: int = 12
    """Connections to PostgreSQL of each worker; at least 3."""
    max_connections: int = 5000
    """Connections of clients to each worker."""
    max_unread: int = 64
    """MB of answers that each worker holds for clients which do not read."""
    redis: str = ""
    """The Redis (or Valkey) that shares the rate limits among all workers and nodes."""
    secret_key: str = ""
    """Encrypts the secrets of webhooks. If it is empty, SQLite uses a file beside the database."""
    webhooks_allow: tuple[str, ...] = ()
    """Private networks to which webhooks may go, such as `10.0.0.0/8`."""
    webhooks_allow_http: bool = False
    demo_key: str = ""
    """The file with the key of the demo, which the landing page names."""


def origin_of(map_tiles: str) -> str:
    """The origin of these tiles for a Content-Security-Policy. Raises SetupError."""
    found = _TILES.fullmatch(map_tiles)
    if found is None or not all(part in map_tiles for part in ("{z}", "{x}", "{y}")):
        raise SetupError(
            f"{map_tiles!r} is no address of tiles: write https://tiles.example.com/{{z}}/{{x}}/{{y}}.png"
        )
    return found[1]


def metrics_address(metrics: str) -> tuple[str, int] | None:
    """The host and port in the setting `metrics`, or None. Raises SetupError."""
    return None if metrics in ("on", "off") else parse_address(metrics)


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`. Raises SetupError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise SetupError(f"{text!r} is not an address: write HOST:PORT.")
    return host.strip("[]"), int(port)
