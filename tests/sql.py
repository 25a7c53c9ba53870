"""Statements of a test on a database of either engine, beside its server."""

from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

from tether.server.databases import is_postgres
from tether.storage.sqlite.file import connect


def execute(database: str, *statements: str) -> None:
    """Runs these statements one after the other."""
    for statement in statements:
        query(database, statement)


def query(database: str, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """The rows of a statement, or none if it has no result.

    The engine decides how its parameters are written.
    """
    if is_postgres(database):
        with psycopg.connect(database, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []
    with closing(connect(Path(database))) as connection:
        return connection.execute(statement, parameters).fetchall()
