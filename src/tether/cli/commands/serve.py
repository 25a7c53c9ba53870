"""`tether serve`."""

import re
from collections.abc import Callable
from dataclasses import MISSING, fields
from ipaddress import ip_network
from typing import Any

import click

from tether.cli.options import Parsed, WholeNumber, database_option
from tether.domain.errors import SetupError, TetherError
from tether.domain.keys import without_keys
from tether.server.databases import database_of
from tether.server.settings import Settings, origin_of, parse_address

_DEFAULTS = {field.name: field.default for field in fields(Settings)}


def _setting(flag: str, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
    """The option for a setting, with its default and its environment variable."""
    word = flag.removeprefix("--").replace("-", "_")
    name = name or word
    default = _DEFAULTS[name]
    assert default is not MISSING
    options = {
        "default": "" if default == () else default,
        "show_default": default is not False and default not in ("", ()),
        "envvar": f"TETHER_{word.upper()}",
        "show_envvar": True,
        **options,
    }
    return click.option(flag, name, **options)


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


METRICS = Parsed("on|off|HOST:PORT", _metrics)
ORIGINS = Parsed("ORIGIN,…", _origins)
TILES = Parsed("URL", _tiles)
NETWORKS = Parsed("ADDRESS,…", lambda text: tuple(map(_network, _listed(text))))
REDIS = Parsed("url", _redis)


@click.command()
@database_option
@_setting("--host", metavar="HOST", help="Address to listen on.")
@_setting("--port", type=WholeNumber(0, 65535), metavar="PORT", help="Port; 0 takes a free one.")
@_setting("--metrics", type=METRICS, metavar="WHERE",
          help="Prometheus metrics: on (at /metrics), off, or HOST:PORT of an address of their "
          "own.")  # fmt: skip
@_setting("--metrics-by-partner", is_flag=True, help="Count requests and refusals by partner, too.")
@_setting("--console", type=click.Choice(["on", "off"]), metavar="on|off",
          help="The web console at /console: on or off.")  # fmt: skip
@_setting("--requests-kept", type=WholeNumber(0, 1_000_000), metavar="N",
          help="How many refused requests of each partner the console shows, and a tenth as many "
          "others.")  # fmt: skip
@_setting("--requests-days", type=WholeNumber(1, 366), metavar="DAYS",
          help="How long they are kept.")  # fmt: skip
@_setting("--requests-body", type=WholeNumber(0, 65536), metavar="BYTES",
          help="How much of each body is kept.")  # fmt: skip
@_setting("--requests-sample", type=WholeNumber(0, 600), metavar="N",
          help="How many requests a minute of each partner each worker keeps that were not "
          "refused.")  # fmt: skip
@_setting("--key-requests", type=click.Choice(["on", "off"]), metavar="on|off",
          help="Let anybody ask the operator for a key at /request-key: on or off.")  # fmt: skip
@_setting("--audit-days", type=WholeNumber(1, 36_500), metavar="N",
          help="Days for which the audit trail is kept.")  # fmt: skip
@_setting("--event-days", type=WholeNumber(0, 36_500), metavar="N",
          help="Days for which events are kept, unless partners retention sets another number; "
          "0: for ever.")  # fmt: skip
@_setting("--attempt-days", type=WholeNumber(0, 36_500), metavar="N",
          help="Days for which attempts of webhooks are kept; 0: for ever.")  # fmt: skip
@_setting("--map-tiles", type=TILES, metavar="URL",
          help="A server of map tiles for the console, such as "
          "https://tiles.example.com/{z}/{x}/{y}.png.  [default: none is asked]")  # fmt: skip
@_setting("--cors-origins", type=ORIGINS, metavar="ORIGIN,…",
          help="Web origins that browsers may call from; * for all.  [default: none]",
          )  # fmt: skip
@_setting("--trusted-proxy", "trusted_proxies", type=NETWORKS, metavar="ADDRESS,…",
          help="Proxies, as addresses or networks such as 10.0.0.0/8, whose X-Forwarded-For "
          "tells the log who calls.  [default: none]")  # fmt: skip
@_setting("--log-level", type=click.Choice(["debug", "info", "warning", "error"]),
          metavar="LEVEL", help="debug, info (each request), warning or error.")  # fmt: skip
@_setting("--log-format", default="auto", type=click.Choice(["auto", "json", "text"]),
          metavar="FORMAT", help="json, text, or auto: text in a terminal, else json.",
          )  # fmt: skip
@_setting("--workers", type=WholeNumber(1, 256), metavar="N",
          help="Processes that share the port; more than 1 only on PostgreSQL.")  # fmt: skip
@_setting("--pool-size", type=WholeNumber(1, 1000), metavar="N",
          help="Connections to PostgreSQL of each worker; fewer than 3 count as 3.")  # fmt: skip
@_setting("--max-connections", type=WholeNumber(1, 1_000_000), metavar="N",
          help="Connections of clients to each worker; more get 503.")  # fmt: skip
@_setting("--max-unread", type=WholeNumber(8, 100_000), metavar="MB",
          help="Answers that each worker holds for clients that do not read; beyond it they "
          "are cut off.")  # fmt: skip
@_setting("--redis", type=REDIS, metavar="URL",
          help="Redis or Valkey that shares the rate limits of all workers and nodes, such as "
          "redis://host:6379/0.  [default: each worker limits its share]")  # fmt: skip
@_setting("--secret-key", metavar="TEXT",
          help="Encrypts the secrets of webhooks: 32 or more random characters.  [default: in a "
          "file beside a SQLite database]")  # fmt: skip
@_setting("--webhooks-allow", type=NETWORKS, metavar="NETWORK,…",
          help="Networks inside to which webhooks may go, such as 10.0.0.0/8.  [default: none]",
          )  # fmt: skip
@_setting("--webhooks-allow-http", is_flag=True,
          help="Allow webhooks without encryption (http://).")  # fmt: skip
def serve(**settings: Any) -> None:
    """Serve the API until SIGTERM or Ctrl-C.

    Creates the database if there is none and brings an older one up to date.
    """
    start(Settings(**settings))


def start(settings: Settings) -> None:
    """Migrates and serves with these settings, in this process."""
    from tether.server import logging
    from tether.server.launch import launch

    try:
        launch(settings, lambda url: _say_listening(url, settings))
    except (TetherError, OSError) as error:
        if settings.log_format != "json":
            raise
        # With --log-format json every line is JSON.
        cause = error.__cause__ and repr(error.__cause__)
        logging.log.error("cannot serve", message=without_keys(str(error)), cause=cause)
        raise SystemExit(1) from error


def _say_listening(url: str, settings: Settings) -> None:
    from tether.server import logging

    database = database_of(settings.database).describe()
    text = f"Tether listens on {url} (database: {database})"
    logging.announce("ready", text, url=url, database=database)
