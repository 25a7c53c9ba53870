"""Opens the database for a command: checks the schema, and runs the event loop."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from tether.cli.display.output import counted, note
from tether.cli.options import database_option
from tether.domain.errors import SetupError
from tether.domain.timestamps import now_ms
from tether.server.databases import database_of, default_database
from tether.server.store import Store, open_store
from tether.storage.database import Database

T = TypeVar("T")

DEMO_DATABASE = Path(".tether/tether.db")  # of `make run` in this folder
TIMEOUT_S = 1.0


def require_existing(database: Database) -> None:
    """Raises SetupError if there is no database."""
    if not database.exists():
        raise SetupError(
            f"There is no database {database.describe()}: `tether serve` makes it, --database "
            "(TETHER_DATABASE) names another."
        )


def require_current(database: Database) -> None:
    """Raises SetupError if the database is missing or outdated."""
    require_existing(database)
    if steps := database.pending_steps():
        raise SetupError(
            f"{database.describe()} is not up to date: run tether migrate, which has "
            f"{counted(steps, 'step')} to do."
        )


def in_store(
    database: str,
    use: Callable[[Store, int], Awaitable[T]],
    *,
    create: bool = False,
    force: bool = False,
    announce: bool = True,
) -> T:
    """Opens the store, and returns the result of `use(store, now in ms)`.

    `create`: creates a missing database. It refuses if a server runs here on another database,
    unless `force`. `announce`: prints which database is used, if that may be unclear. Raises
    SetupError if the database is missing or outdated.
    """
    found = database_of(database)
    if create and not found.exists():
        if not force and (other := _server_here()):
            raise SetupError(
                f"There is no database {found.describe()}, and {other}: name its database with "
                "--database (TETHER_DATABASE), or make this one with --create."
            )
        found.migrate()
        note(f"New database {found.describe()}.")
    elif announce:
        announce_database(database)
    require_current(found)

    async def run() -> T:
        async with open_store(database) as store:
            return await use(store, now_ms())

    return asyncio.run(run())


def with_store(command: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Adds the option --database to a command, which gets the store and the time in ms."""

    @database_option
    @wraps(command)
    def run(database: str, **values: Any) -> None:
        in_store(database, lambda store, now_ms: command(store, now_ms, **values))

    return run


@cache  # a command may open the database several times
def announce_database(database: str) -> None:
    """Prints which database a command uses, if the user named none, or if a server runs here on
    another one. Otherwise a change to the wrong database would go unnoticed.
    """
    found = database_of(database)
    elsewhere = found.file is not None and _is_demo_served() and not found.is_served()
    if _is_default(database) or elsewhere:
        note(f"Database: {found.describe()}")
    if elsewhere:
        note(f"A server runs here on {DEMO_DATABASE}, and none on this one.")


def _is_default(database: str) -> bool:
    try:
        return database == default_database()
    except SetupError:  # there is no home folder
        return False


def _is_demo_served() -> bool:
    return database_of(str(DEMO_DATABASE)).is_served()


def _server_here() -> str | None:
    """Describes the server that runs here: the demo in this folder, or one at the address in the
    environment variables of servers and clients.
    """
    if _is_demo_served():
        return f"a server runs here on {DEMO_DATABASE}"
    host, port = os.environ.get("TETHER_HOST", "127.0.0.1"), os.environ.get("TETHER_PORT", "8000")
    urls = [f"http://{host}:{port}", os.environ.get("TETHER_URL", "")]
    return next((f"a server runs at {url} on another" for url in urls if _is_ours(url)), None)


def _is_ours(url: str) -> bool:
    """Whether a Tether server answers there, on this machine."""
    from tether.cli.servers import is_healthy

    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError:  # an invalid port
        return False
    is_here = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")
    return is_here and is_healthy(parts.hostname or "", port, TIMEOUT_S)
