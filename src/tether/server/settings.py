"""The settings of a server: `tether serve` has an option and a variable for each."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any, TypeVar

from tether.domain.errors import SetupError
from tether.server.databases import default_database

T = TypeVar("T")
_TILES = re.compile(r"(https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?)/[!#-&(-;=-~]*")


def _setting(
    default: T,
    metavar: str,
    help: str,
    *,
    flag: str | None = None,
    choices: tuple[str, ...] = (),
    bounds: tuple[int, int] | None = None,
    parse: Callable[[str], Any] | None = None,
) -> T:
    """A setting and its option: one of the `choices`, a number within `bounds`, or what `parse`
    makes of the text. Without these it is any text. The default False makes it a switch.
    """
    how = {"flag": flag, "choices": choices, "bounds": bounds, "parse": parse}
    return field(default=default, metadata={"metavar": metavar, "help": help, **how})


# What the options parse. A ValueError, or SetupError, says what is wrong with the text.


def _metrics(text: str) -> str:
    text = text.strip()
    if text not in ("on", "off"):
        try:
            parse_address(text)
        except SetupError:
            raise ValueError(f"{text!r} is none of on, off and HOST:PORT.") from None
    return text


def _listed(text: str) -> list[str]:
    return list(filter(None, map(str.strip, text.split(","))))


def _origins(text: str) -> tuple[str, ...]:
    origins = _listed(text)
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"https?://[^/\s?#@]+", origin):
            raise ValueError(
                f"{origin!r} is not an origin: write https://app.example.com, without a path, "
                "or * for all."
            )
    return tuple(origins)


def _tiles(text: str) -> str:
    if text:
        origin_of(text)  # raises SetupError if it has none
    return text


def _networks(text: str) -> tuple[str, ...]:
    return tuple(map(_network, _listed(text)))


def _network(text: str) -> str:
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        raise ValueError(
            f"{text!r} is no address or network: write 127.0.0.1, 10.0.0.0/8 or fd00::/8."
        ) from None


def _redis(text: str) -> str:
    text = text.strip()
    if text and not text.startswith(("redis://", "rediss://", "unix://")):
        # Do not show the value: it may contain a password.
        raise ValueError("it must begin with redis://, rediss:// or unix://.")
    return text


_SWITCH = ("on", "off")


@dataclass(frozen=True, slots=True)
class Settings:
    """How a server runs. `docs/configuration.md` says more about each."""

    # fmt: off
    database: str = field(default_factory=default_database)
    host: str = _setting("127.0.0.1", "HOST", "Address to listen on.")
    port: int = _setting(8000, "PORT", "Port; 0 takes a free one.", bounds=(0, 65535))
    metrics: str = _setting("on", "WHERE", parse=_metrics,
        help="Prometheus metrics: on (at /metrics), off, or HOST:PORT of an address of their own.")
    metrics_by_partner: bool = _setting(False, "", "Count requests and refusals by partner, too.")
    console: str = _setting("on", "on|off", choices=_SWITCH,
        help="The web console at /console: on or off.")
    requests_kept: int = _setting(5_000, "N", bounds=(0, 1_000_000),
        help="How many refused requests of each partner the console shows, and a tenth as many "
        "others.")
    requests_days: int = _setting(7, "DAYS", "How long they are kept.", bounds=(1, 366))
    requests_body: int = _setting(16_384, "BYTES", bounds=(0, 65_536),
        help="How much of each body is kept.")
    requests_sample: int = _setting(6, "N", bounds=(0, 600),
        help="How many requests a minute of each partner each worker keeps that were not refused.")
    key_requests: str = _setting("off", "on|off", choices=_SWITCH,
        help="Let anybody ask the operator for a key at /request-key: on or off.")
    audit_days: int = _setting(400, "N", bounds=(1, 36_500),
        help="Days for which the audit trail is kept.")
    event_days: int = _setting(0, "N", bounds=(0, 36_500),
        help="Days for which events are kept, unless partners retention sets another number; 0: "
        "for ever.")
    attempt_days: int = _setting(30, "N", bounds=(0, 36_500),
        help="Days for which attempts of webhooks are kept; 0: for ever.")
    map_tiles: str = _setting("", "URL", parse=_tiles,
        help="A server of map tiles for the console, such as "
        "https://tiles.example.com/{z}/{x}/{y}.png.  [default: none is asked]")
    cors_origins: tuple[str, ...] = _setting((), "ORIGIN,…", parse=_origins,
        help="Web origins that browsers may call from; * for all.  [default: none]")
    trusted_proxies: tuple[str, ...] = _setting((), "ADDRESS,…", parse=_networks,
        flag="--trusted-proxy",
        help="Proxies, as addresses or networks such as 10.0.0.0/8, whose X-Forwarded-For tells "
        "the log who calls.  [default: none]")
    log_level: str = _setting("info", "LEVEL", choices=("debug", "info", "warning", "error"),
        help="debug, info (each request), warning or error.")
    log_format: str = _setting("auto", "FORMAT", choices=("auto", "json", "text"),
        help="json, text, or auto: text in a terminal, else json.")
    workers: int = _setting(1, "N", bounds=(1, 256),
        help="Processes that share the port; more than 1 only on PostgreSQL.")
    pool_size: int = _setting(12, "N", bounds=(1, 1000),
        help="Connections to PostgreSQL of each worker; fewer than 3 count as 3.")
    max_connections: int = _setting(5000, "N", bounds=(1, 1_000_000),
        help="Connections of clients to each worker; more get 503.")
    max_unread: int = _setting(64, "MB", bounds=(8, 100_000),
        help="Answers that each worker holds for clients that do not read; beyond it they are cut "
        "off.")
    redis: str = _setting("", "URL", parse=_redis,
        help="Redis or Valkey that shares the rate limits of all workers and nodes, such as "
        "redis://host:6379/0.  [default: each worker limits its share]")
    secret_key: str = _setting("", "TEXT",
        help="Encrypts the secrets of webhooks: 32 or more random characters.  [default: in a file "
        "beside a SQLite database]")
    webhooks_allow: tuple[str, ...] = _setting((), "NETWORK,…", parse=_networks,
        help="Networks inside to which webhooks may go, such as 10.0.0.0/8.  [default: none]")
    webhooks_allow_http: bool = _setting(False, "", "Allow webhooks without encryption (http://).")
    # fmt: on
    demo_key: str = ""
    """The file with the key of the demo, which the landing page names. It has no option."""


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
