"""`tether serve`."""

import click

from tether.cli.options import (
    MetricsType,
    NetworksType,
    OriginsType,
    RedisType,
    TilesType,
    WholeNumber,
    database_option,
)
from tether.domain.errors import TetherError
from tether.domain.keys import without_keys
from tether.server.settings import Settings


@click.command()
@database_option
@click.option("--host", default="127.0.0.1", envvar="TETHER_HOST", show_default=True,
              show_envvar=True, metavar="HOST", help="Address to listen on.")  # fmt: skip
@click.option("--port", default=8000, type=WholeNumber(0, 65535), envvar="TETHER_PORT",
              show_default=True, show_envvar=True, metavar="PORT",
              help="Port; 0 takes a free one.")  # fmt: skip
@click.option("--metrics", default="on", type=MetricsType(), envvar="TETHER_METRICS",
              show_default=True, show_envvar=True, metavar="WHERE",
              help="Prometheus metrics: on (at /metrics), off, or HOST:PORT of an address of their "
              "own.")  # fmt: skip
@click.option("--metrics-by-partner", is_flag=True, envvar="TETHER_METRICS_BY_PARTNER",
              show_envvar=True, help="Count requests and refusals by partner, too.")  # fmt: skip
@click.option("--console", default="on", envvar="TETHER_CONSOLE", show_default=True,
              show_envvar=True, type=click.Choice(["on", "off"]), metavar="on|off",
              help="The web console at /console: on or off.")  # fmt: skip
@click.option("--requests-kept", default=5000, type=WholeNumber(0, 1_000_000),
              envvar="TETHER_REQUESTS_KEPT", show_default=True, show_envvar=True, metavar="N",
              help="Refused requests of each partner that the console shows; of others a tenth of "
              "that.")  # fmt: skip
@click.option("--requests-days", default=7, type=WholeNumber(1, 366),
              envvar="TETHER_REQUESTS_DAYS", show_default=True, show_envvar=True, metavar="DAYS",
              help="How long they are kept.")  # fmt: skip
@click.option("--requests-body", default=16384, type=WholeNumber(0, 65536),
              envvar="TETHER_REQUESTS_BODY", show_default=True, show_envvar=True, metavar="BYTES",
              help="How much of each body is kept.")  # fmt: skip
@click.option("--requests-sample", default=6, type=WholeNumber(0, 600),
              envvar="TETHER_REQUESTS_SAMPLE", show_default=True, show_envvar=True, metavar="N",
              help="Requests that were not refused: so many a minute of each partner are kept by "
              "each worker, too.")  # fmt: skip
@click.option("--key-requests", default="off", envvar="TETHER_KEY_REQUESTS", show_default=True,
              show_envvar=True, type=click.Choice(["on", "off"]), metavar="on|off",
              help="Let strangers ask for a key at /request-key, which the operator decides: on or "
              "off.")  # fmt: skip
@click.option("--audit-days", default=400, envvar="TETHER_AUDIT_DAYS", show_default=True,
              show_envvar=True, type=WholeNumber(1, 36_500), metavar="N",
              help="Days for which the audit trail is kept.")  # fmt: skip
@click.option("--event-days", default=0, envvar="TETHER_EVENT_DAYS", show_default=True,
              show_envvar=True, type=WholeNumber(0, 36_500), metavar="N",
              help="Days for which events are kept, unless partners retention says something else; "
              "0: for ever.")  # fmt: skip
@click.option("--attempt-days", default=30, envvar="TETHER_ATTEMPT_DAYS", show_default=True,
              show_envvar=True, type=WholeNumber(0, 36_500), metavar="N",
              help="The same of attempts of webhooks.")  # fmt: skip
@click.option("--map-tiles", default="", envvar="TETHER_MAP_TILES", show_envvar=True,
              type=TilesType(), metavar="URL",
              help="A server of map tiles for the console, such as "
              "https://tiles.example.com/{z}/{x}/{y}.png.  [default: none is asked]",
              )  # fmt: skip
@click.option("--cors-origins", default="", type=OriginsType(), envvar="TETHER_CORS_ORIGINS",
              show_envvar=True, metavar="ORIGIN,…",
              help="Web origins that browsers may call from; * for all.  [default: none]",
              )  # fmt: skip
@click.option("--trusted-proxy", "trusted_proxies", default="", type=NetworksType(),
              envvar="TETHER_TRUSTED_PROXY", show_envvar=True, metavar="ADDRESS,…",
              help="Proxies, as addresses or networks such as 10.0.0.0/8, whose X-Forwarded-For "
              "tells the log who calls.  [default: none]")  # fmt: skip
@click.option("--log-level", default="info", envvar="TETHER_LOG_LEVEL", show_default=True,
              show_envvar=True, type=click.Choice(["debug", "info", "warning", "error"]),
              metavar="LEVEL", help="debug, info (each request), warning or error.")  # fmt: skip
@click.option("--log-format", default="auto", envvar="TETHER_LOG_FORMAT", show_default=True,
              show_envvar=True, type=click.Choice(["auto", "json", "text"]), metavar="FORMAT",
              help="json, text, or auto: text in a terminal, else json.")  # fmt: skip
@click.option("--workers", default=1, envvar="TETHER_WORKERS", show_default=True,
              show_envvar=True, type=WholeNumber(1, 256), metavar="N",
              help="Processes that share the port; more than 1 only on PostgreSQL.")  # fmt: skip
@click.option("--pool-size", default=12, envvar="TETHER_POOL_SIZE", show_default=True,
              show_envvar=True, type=WholeNumber(1, 1000), metavar="N",
              help="Connections to PostgreSQL of each worker, 3 at least.")  # fmt: skip
@click.option("--max-connections", default=5000, envvar="TETHER_MAX_CONNECTIONS",
              show_default=True, show_envvar=True, type=WholeNumber(1, 1_000_000), metavar="N",
              help="Connections of clients to each worker; more get 503.")  # fmt: skip
@click.option("--max-unread", default=64, envvar="TETHER_MAX_UNREAD", show_default=True,
              show_envvar=True, type=WholeNumber(8, 100_000), metavar="MB",
              help="Answers that each worker holds for clients that do not read; beyond it they "
              "are cut off.")  # fmt: skip
@click.option("--redis", default="", type=RedisType(), envvar="TETHER_REDIS", show_envvar=True,
              metavar="URL", help="Redis or Valkey that shares the rate limits of all workers and "
              "nodes, such as redis://host:6379/0.  [default: each worker limits its share]",
              )  # fmt: skip
@click.option("--secret-key", default="", envvar="TETHER_SECRET_KEY", show_envvar=True,
              metavar="TEXT", help="Encrypts the secrets of webhooks: 32 or more random "
              "characters.  [default: in a file beside a SQLite database]")  # fmt: skip
@click.option("--webhooks-allow", default="", type=NetworksType(), envvar="TETHER_WEBHOOKS_ALLOW",
              show_envvar=True, metavar="NETWORK,…", help="Networks inside to which webhooks may "
              "go, such as 10.0.0.0/8.  [default: none]")  # fmt: skip
@click.option("--webhooks-allow-http", is_flag=True, envvar="TETHER_WEBHOOKS_ALLOW_HTTP",
              show_envvar=True, help="Allow webhooks without encryption (http://).")  # fmt: skip
def serve(
    database: str,
    host: str,
    port: int,
    metrics: str,
    metrics_by_partner: bool,
    console: str,
    requests_kept: int,
    requests_days: int,
    requests_body: int,
    requests_sample: int,
    key_requests: str,
    audit_days: int,
    event_days: int,
    attempt_days: int,
    map_tiles: str,
    cors_origins: tuple[str, ...],
    trusted_proxies: tuple[str, ...],
    log_level: str,
    log_format: str,
    workers: int,
    pool_size: int,
    max_connections: int,
    max_unread: int,
    redis: str,
    secret_key: str,
    webhooks_allow: tuple[str, ...],
    webhooks_allow_http: bool,
) -> None:
    """Serve the API until SIGTERM or Ctrl-C.

    Creates the database if there is none and brings an older one up to date.
    """
    start(
        Settings(
            database=database,
            host=host,
            port=port,
            metrics=metrics,
            metrics_by_partner=metrics_by_partner,
            console=console,
            requests_kept=requests_kept,
            requests_days=requests_days,
            requests_body=requests_body,
            requests_sample=requests_sample,
            key_requests=key_requests,
            audit_days=audit_days,
            event_days=event_days,
            attempt_days=attempt_days,
            map_tiles=map_tiles,
            cors_origins=cors_origins,
            trusted_proxies=trusted_proxies,
            log_level=log_level,
            log_format=log_format,
            workers=workers,
            pool_size=pool_size,
            max_connections=max_connections,
            max_unread=max_unread,
            redis=redis,
            secret_key=secret_key,
            webhooks_allow=webhooks_allow,
            webhooks_allow_http=webhooks_allow_http,
        )
    )


def start(settings: Settings) -> None:
    """Migrates and serves with these settings, in this process."""
    from tether.server import logging
    from tether.server.launch import launch

    try:
        launch(settings, lambda url: _say_listening(url, settings))
    except (TetherError, OSError) as error:
        if settings.log_format != "json":
            raise
        # Whoever asked for JSON gets nothing else.
        cause = error.__cause__ and repr(error.__cause__)
        logging.log.error("cannot serve", message=without_keys(str(error)), cause=cause)
        raise SystemExit(1) from error


def _say_listening(url: str, settings: Settings) -> None:
    from tether.server import logging
    from tether.server.bootstrap import database_of

    database = database_of(settings.database).describe()
    text = f"Tether listens on {url} (database: {database})"
    logging.announce("ready", text, url=url, database=database)
