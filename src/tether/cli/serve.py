"""`tether serve`."""

import sys

import click

from tether.cli.options import database_option
from tether.config import Settings


@click.command()
@database_option
@click.option("--host", default="127.0.0.1", envvar="TETHER_HOST", show_default=True,
              show_envvar=True, help="Address to listen on.")  # fmt: skip
@click.option("--port", default=8000, type=click.IntRange(0, 65535), envvar="TETHER_PORT",
              show_default=True, show_envvar=True, help="Port; 0 takes a free one.")  # fmt: skip
@click.option("--metrics", default="on", envvar="TETHER_METRICS", show_default=True,
              show_envvar=True, metavar="on|off|HOST:PORT",
              help="Prometheus metrics: at /metrics, not at all, or at an address of their own.",
              )  # fmt: skip
@click.option("--cors-origins", default="", envvar="TETHER_CORS_ORIGINS", show_envvar=True,
              metavar="ORIGIN,…", help="Web origins that browsers may call from; * for all. "
              "Default: none.")  # fmt: skip
@click.option("--log-level", default="info", envvar="TETHER_LOG_LEVEL", show_default=True,
              show_envvar=True, type=click.Choice(["debug", "info", "warning", "error"]),
              help="How much to log; requests are logged at info.")  # fmt: skip
@click.option("--log-format", default="auto", envvar="TETHER_LOG_FORMAT", show_default=True,
              show_envvar=True, type=click.Choice(["auto", "json", "text"]),
              help="auto: text in a terminal, else JSON.")  # fmt: skip
def serve(
    database: str,
    host: str,
    port: int,
    metrics: str,
    cors_origins: str,
    log_level: str,
    log_format: str,
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
            cors_origins=tuple(filter(None, map(str.strip, cors_origins.split(",")))),
            log_level=log_level,
            log_format=log_format,
        )
    )


def start(settings: Settings) -> None:
    """Migrates and serves with these settings, in this process."""
    import uvloop

    from tether import logs, wiring

    as_json = settings.log_format == "json" or (
        settings.log_format == "auto" and not sys.stderr.isatty()
    )
    logs.configure(level=settings.log_level, as_json=as_json)
    wiring.migrate(settings.database)
    uvloop.run(wiring.serve(settings, lambda url: _say_listening(url, settings)))


def _say_listening(url: str, settings: Settings) -> None:
    click.echo(f"Tether listens on {url} (database: {settings.database})")
