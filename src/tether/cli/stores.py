"""How a command reaches the store: in an event loop of its own, once the database is fit."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tether.cli.display.output import note
from tether.domain.errors import SetupError
from tether.server.settings import is_postgres, sqlite_path
from tether.server.store import Store

T = TypeVar("T")


def exists(database: str) -> bool:
    """Whether there is a database; PostgreSQL's own answer comes with the first connection.

    Raises SetupError if it cannot be one.
    """
    if is_postgres(database):
        return True
    path = sqlite_path(database)
    if path.is_dir():
        raise SetupError(f"{path} is a folder: name a file in it, such as {path / 'tether.db'}.")
    return path.exists()


def require(database: str) -> None:
    """Raises SetupError if there is no database."""
    if not exists(database):
        raise SetupError(
            f"There is no database {sqlite_path(database)}: `tether serve` makes it, --database "
            "(TETHER_DATABASE) names another."
        )


def require_current(database: str) -> None:
    """Raises SetupError if there is no database, or it is outdated."""
    from tether.server import bootstrap

    require(database)
    if steps := bootstrap.pending_steps(database):
        raise SetupError(
            f"{bootstrap.describe(database)} is not up to date ({steps} missing): "
            "run tether migrate."
        )


def in_store(database: str, use: Callable[[Store, int], Awaitable[T]], *, make: bool = False) -> T:
    """What `use` returns of the open store and the time in ms.

    `make` makes a database where there is none. Raises SetupError if it is missing or outdated.
    """
    from tether.server import bootstrap

    if make and not exists(database):
        bootstrap.migrate(database)
        note(f"New database {bootstrap.describe(database)}.")
    require_current(database)

    async def run() -> T:
        async with bootstrap.open_store(database) as store:
            return await use(store, bootstrap.now_ms())

    return asyncio.run(run())
