"""Databases by name: which file or server a path or a URL means, and with which engine."""

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_data_path

from tether.domain.errors import SetupError

if TYPE_CHECKING:
    from tether.storage.database import Database

_SCHEME = re.compile(r"[^/]*?:")
_ASSIGNMENT = re.compile(r"\s*[A-Za-z_ ]+=")  # host=… dbname=…, Server=…;Database=…
_ACCOUNT = re.compile(r"[^/]*@[^/]*/")  # user@host/name
_VARIABLE = re.compile(r"\$[A-Za-z_{(]|%[A-Za-z_]+%")
_FORMS = "give a file's path, sqlite:///path or postgresql://user:password@host/name"


def default_database() -> str:
    """The file in the user's data folder, for commands without `--database`.

    Raises SetupError for a user without a home, as in a container.
    """
    try:
        return str(user_data_path("tether", appauthor=False) / "tether.db")
    except RuntimeError:
        raise SetupError(
            "You have no home folder here: name the database with --database (TETHER_DATABASE)."
        ) from None


@cache
def database_of(name: str) -> "Database":
    """The database with this name, a path or a URL. Raises SetupError if the name is invalid."""
    # Engines are imported on first use, so that commands start fast.
    if is_postgres(name):
        from tether.storage.postgres.database import PostgresDatabase

        return PostgresDatabase(name)
    from tether.storage.sqlite.database import SqliteDatabase

    return SqliteDatabase(sqlite_path(name))


def is_postgres(database: str) -> bool:
    """Whether this is the name of a PostgreSQL database, not of a file."""
    return database.startswith(("postgresql://", "postgres://"))


def sqlite_path(database: str) -> Path:
    """The file with this name: a path, perhaps after `sqlite:///`; `~` is expanded.

    Raises SetupError for a name that probably does not mean a file. Its message never contains a
    password.
    """
    if database.startswith(("'", '"')):
        raise SetupError("The database has quotes around its name: leave them out.")
    if _ASSIGNMENT.match(database) or _ACCOUNT.match(database):
        raise SetupError(f"The database is no path: {_FORMS} (./ before a path with = or @).")
    path = database
    if database.startswith("sqlite://"):
        path = database.removeprefix("sqlite:///")
        if not path or path == database:
            raise SetupError(f"{database} names no file: write sqlite:///path or a plain path.")
        if "?" in path or path == ":memory:":
            raise SetupError(f"{database} names no file alone: write sqlite:///path.")
    elif scheme := _SCHEME.match(database):  # also one with a slash too few
        raise SetupError(
            f"{scheme[0]} is not a database that Tether knows: {_FORMS} "
            "(./ before the path of a file whose name has a colon)"
        )
    if _VARIABLE.search(path):
        raise SetupError(f"{path} has a variable in it that nothing expands: write the whole path.")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise SetupError(f"{path} begins with a user who is not known here.") from None
