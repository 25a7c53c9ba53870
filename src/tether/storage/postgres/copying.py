"""A PostgreSQL database as one of the two sides of a copy."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from tether.domain.errors import SetupError
from tether.storage import copying, migrate
from tether.storage.copying import Values
from tether.storage.log_positions import EpochState
from tether.storage.postgres.engine import begin_epoch, describe_postgres, session

_COLUMNS = """
SELECT attname FROM pg_attribute
WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
_OTHERS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'tether' AND pid <> pg_backend_pid()
"""
# The number of the last entry of each partner's log, which later ones follow.
_HEADS = """
INSERT INTO event_heads (partner, seq)
SELECT p.id, greatest(
    0, (SELECT max(e.seq) FROM events e WHERE e.partner = p.id),
    (SELECT max(w.seq) FROM withdrawals w WHERE w.partner = p.id)
) FROM partners p
ON CONFLICT (partner) DO UPDATE SET seq = excluded.seq
"""


class PostgresSide:
    """A database, which must be up to date."""

    def __init__(self, name: str, connection: "psycopg.Connection[tuple[Any, ...]]") -> None:
        self.name = name
        self._connection = connection

    def query(self, sql: str, *parameters: object) -> list[Values]:
        cursor = self._connection.execute(sql.replace("?", "%s").encode(), parameters)
        return list(cursor.fetchall()) if cursor.description else []

    def columns(self, table: str) -> list[str]:
        return [str(name) for (name,) in self.query(_COLUMNS, table)]

    def check_alone(self) -> None:
        ((others,),) = self.query(_OTHERS)
        if others:
            raise SetupError(f"{self.name} is in use: stop its servers, so that nothing is lost.")

    def freeze(self) -> None:
        self.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    def add(self, table: str, columns: Sequence[str], rows: Sequence[Values]) -> None:
        sql = f"COPY {table} ({', '.join(columns)}) FROM STDIN"
        with (
            self._connection.transaction(),
            self._connection.cursor() as cursor,
            cursor.copy(sql.encode()) as lines,
        ):
            for row in rows:
                lines.write_row(row)

    def origin(self) -> str | None:
        if self.query("SELECT to_regclass(?)", migrate.COPY_TABLE) == [(None,)]:
            return None
        return str(self.query(copying.READ_MARK)[0][0])

    def begin(self, origin: str) -> None:
        with self._connection.transaction():
            self.query(copying.CREATE_MARK)
            self.query(f"INSERT INTO {migrate.COPY_TABLE} VALUES (?)", origin)

    def finish(self, epoch: EpochState) -> None:
        with self._connection.transaction():
            self.query(_HEADS)
            begin_epoch(self._connection, epoch.epoch)
            self.query(copying.DROP_MARK)
        for table in copying.KEYS:
            self.query(f"ANALYZE {table}")


@contextmanager
def postgres_side(url: str) -> Iterator[PostgresSide]:
    """The database, for a copy. Raises SetupError."""
    with session(url) as connection:
        yield PostgresSide(describe_postgres(url), connection)
