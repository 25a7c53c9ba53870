"""Starts a server: in this process, or several workers of it."""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from tether.domain.errors import SetupError, TetherError
from tether.server import bootstrap, logging
from tether.server.databases import database_of
from tether.server.settings import Settings
from tether.version import version

log = structlog.get_logger()


def launch(settings: Settings, listening: Callable[[str], None]) -> None:
    """Migrates the database and serves until SIGTERM or Ctrl-C. `listening` gets the address.

    Raises SetupError for wrong settings, an unusable database or a port that is in use.
    """
    as_json = settings.log_format == "json" or (
        settings.log_format == "auto" and not sys.stderr.isatty()
    )
    settings = replace(settings, log_format="json" if as_json else "text")
    logging.configure(level=settings.log_level, as_json=as_json)
    # This variable is for another program. With it the library would keep our metrics in files.
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    database = database_of(settings.database).describe()
    started = time.monotonic()
    log.info(
        "start", version=version(), pid=os.getpid(), workers=settings.workers, database=database
    )
    try:
        _run(settings, listening)
    except (TetherError, OSError):
        logging.finish()  # the message about the error comes last
        raise
    log.info("stop", pid=os.getpid(), s=round(time.monotonic() - started, 3))


def _run(settings: Settings, listening: Callable[[str], None]) -> None:
    database = database_of(settings.database)
    if settings.workers > 1 and database.file is not None:
        raise SetupError(
            "A SQLite file has one server process: use --workers 1, or a PostgreSQL database."
        )
    bootstrap.check(settings)
    database.migrate()
    with database.only_server():
        if settings.workers > 1:
            from tether.server.supervisor import supervise

            asyncio.run(supervise(settings, listening))
        else:
            import uvloop

            uvloop.run(_serve_alone(settings, listening))


async def _serve_alone(settings: Settings, listening: Callable[[str], None]) -> None:
    from tether.server.listeners import listen, url_of
    from tether.server.metrics import Metrics
    from tether.server.run import serve

    with listen(settings.host, settings.port) as listener:
        metrics = Metrics(by_partner=settings.metrics_by_partner)
        await serve(settings, metrics, listener, lambda: listening(url_of(listener)))
