"""A database of a PostgreSQL server: its address, its schema, its epoch, and how it is copied."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tether.domain.errors import SetupError
from tether.domain.timestamps import now_ms
from tether.storage import copying, migrate
from tether.storage.database import Certificate, ServerReport, Values
from tether.storage.dialect import POSTGRES
from tether.storage.engine import Engine
from tether.storage.log_positions import Epoch, EpochState, log_restored_copy, new_epoch
from tether.storage.postgres.engine import FIND_TABLES, PostgresEngine
from tether.storage.postgres.pool import NEEDED, preparing

Connection: TypeAlias = "psycopg.Connection[tuple[Any, ...]]"

MIGRATION_LOCK = 0x54455448  # any number, as long as all versions use the same

# With these a lost machine is noticed within seconds. Options of the URL take precedence.
_DEFAULTS = {
    "application_name": "tether",
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}
_FORM = (
    "write postgresql://user:password@host:5432/name, and in user and password %40 for @, "
    "%2F for /, %25 for %."
)
_NOW_MS = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)"
# In a restored dump the database or the table has another number. A fail-over keeps both.
_HOME = """
(SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
|| '.' || CAST('epoch'::regclass AS OID)
"""


class PostgresDatabase:
    """See `Database`."""

    file = None

    def __init__(self, url: str) -> None:
        self._url = url

    def describe(self) -> str:
        parts = _parts_of(self._url)
        user, name = parts.get("user"), parts.get("dbname") or parts.get("user") or ""
        hosts = (parts.get("host") or "localhost").split(",")
        ports = (parts.get("port") or "5432").split(",")
        ports = ports * len(hosts) if len(ports) == 1 else ports
        places = ",".join(f"{host}:{port}" for host, port in zip(hosts, ports, strict=False))
        return f"postgresql://{f'{user}@' if user else ''}{places}/{name}"

    def exists(self) -> bool:
        return True

    def migrate(self) -> int:
        # If several nodes start at once, one of them migrates and the others wait.
        with self._connected() as connection, connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [MIGRATION_LOCK])
            tables = self._checked_tables(connection)
            if migrate.VERSION_TABLE not in tables:
                self._check_encoding(connection)
                connection.execute(migrate.CREATE_VERSION_TABLE)
            missing = migrate.missing_steps(POSTGRES, tables, _version(connection), self.describe())
            for step in missing:
                connection.execute(step.script)
                connection.execute(f"INSERT INTO {migrate.VERSION_TABLE} VALUES ({step.version})")
            if copied := _epoch_of(connection).ends:
                _begin_epoch(connection, new_epoch())
        if copied:
            log_restored_copy()
        return len(missing)

    def pending_steps(self) -> int:
        with self._connected() as connection:
            tables = self._checked_tables(connection)
            current = _version(connection) if migrate.VERSION_TABLE in tables else 0
            return len(migrate.missing_steps(POSTGRES, tables, current, self.describe()))

    def open(self, connections: int) -> Engine:
        return PostgresEngine(_conninfo(self._url), connections)

    def only_server(self) -> AbstractContextManager[None]:
        return nullcontext()

    def is_served(self) -> bool:
        return False

    def version(self) -> str:
        with self._connected() as connection:
            number = connection.info.server_version
        return f"PostgreSQL {number // 10_000}.{number % 10_000}"

    def epoch(self) -> EpochState:
        with self._connected() as connection:
            return _epoch_of(connection)

    def begin_epoch(self) -> None:
        with self._connected() as connection:
            _begin_epoch(connection, new_epoch())

    def clock_ahead_ms(self) -> int | None:
        with self._connected() as connection:
            began_ms = now_ms()
            ((there_ms,),) = connection.execute(_NOW_MS).fetchall()
            return (began_ms + now_ms()) // 2 - int(there_ms)

    def damages(self, *, full: bool = False) -> list[str]:
        return []  # PostgreSQL checks its pages when they are read

    def server_report(self) -> ServerReport | None:
        from tether.storage.postgres.check import server_report

        with self._connected(prepare=False) as connection:
            return server_report(connection, is_direct=_is_direct(connection))

    def certificates(self) -> Iterable[Certificate]:
        from tether.storage.postgres.check import certificates

        return certificates(conninfo_to_dict(self._url))

    def back_up(self, target: Path, progress: Callable[[float], None], *, replace: bool) -> None:
        raise SetupError(
            "tether backup copies a SQLite file. For PostgreSQL: pg_dump --format=custom "
            f"--file={target} {self.describe()}"
        )

    def restore(self, source: Path, progress: Callable[[float], None]) -> Path | None:
        raise SetupError(
            "tether restore is for SQLite files. PostgreSQL has tools of its own, such as "
            "pg_restore; then: tether epoch new"
        )

    @contextmanager
    def copy_connection(self) -> Iterator["PostgresCopyConnection"]:
        with self._connected() as connection:
            yield PostgresCopyConnection(self.describe(), connection)

    @contextmanager
    def _connected(self, *, prepare: bool = True) -> Iterator[Connection]:
        """A connection with the settings that we need, unless a pooler is used. With
        `prepare=False` it keeps the settings that it has. Raises SetupError for all errors on it.
        """
        name = self.describe()
        try:
            with psycopg.connect(
                _conninfo(self._url), autocommit=True, prepare_threshold=None
            ) as connection:
                if prepare and _is_direct(connection):
                    connection.execute(preparing(NEEDED))
                yield connection
        except psycopg.Error as error:
            raise SetupError(f"{name} cannot be used: {_one_line(error)}") from None

    def _checked_tables(self, connection: Connection) -> set[str]:
        """The tables of the database. Raises SetupError if it is foreign."""
        if connection.execute("SELECT current_schema()").fetchone() == (None,):
            raise SetupError(
                "The role may use no schema of its search_path: GRANT USAGE ON SCHEMA … to it."
            )
        tables = {str(name) for (name,) in connection.execute(FIND_TABLES)}
        migrate.check_not_foreign(tables, self.describe())
        return tables

    def _check_encoding(self, connection: Connection) -> None:
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise SetupError(
                f"{self.describe()} has the encoding {encoding} and cannot hold every text: make a "
                "database with ENCODING 'UTF8' TEMPLATE template0."
            )


def _parts_of(url: str) -> dict[str, str]:
    """The options in the URL. Raises SetupError, without any part of the URL in the message.

    An unencoded @ or / in a password would put part of it into host, port or name.
    """
    try:
        parts = {name: str(value) for name, value in conninfo_to_dict(url).items()}
    except psycopg.ProgrammingError as error:
        harmless = "query parameter" in str(error) and "@" not in url.partition("?")[2]
        reason = f" ({_one_line(error)})" if harmless else ""
        raise SetupError(f"The PostgreSQL URL cannot be read{reason}: {_FORM}") from None
    split = parts.get("host", "") + parts.get("dbname", "")
    if "@" in split or not parts.get("port", "5432").replace(",", "").isdecimal():
        raise SetupError(f"The PostgreSQL URL cannot be read: {_FORM}")
    return parts


def _conninfo(url: str) -> str:
    options: dict[str, Any] = {**_DEFAULTS, **_parts_of(url), "client_encoding": "UTF8"}
    return make_conninfo(**options)


def _one_line(error: Exception) -> str:
    """The message in one line. Each of its lines, such as a hint, is a sentence."""
    return " ".join(re.sub(r"(?<=[^\s.:?!])\s*\n(?=\s*\S)", ". ", str(error)).split())


def _is_direct(connection: Connection) -> bool:
    """Whether no pooler is used. A pooler may share our settings with other clients."""
    return connection.execute("SELECT pg_backend_pid()").fetchone() == (
        connection.info.backend_pid,
    )


def _version(connection: Connection) -> int:
    (version,) = connection.execute(migrate.READ_VERSION).fetchone() or (0,)
    return int(version)


def _epoch_of(connection: Connection) -> EpochState:
    query = f"SELECT id, began_ms, home <> ({_HOME}) FROM epoch"
    ((id, began_ms, ends),) = connection.execute(query).fetchall()
    return EpochState(Epoch(id, began_ms), ends=ends)


def _begin_epoch(connection: Connection, epoch: Epoch) -> None:
    """Sets the epoch of the database, which is not a restored copy any more."""
    connection.execute(f"UPDATE epoch SET id = %s, began_ms = %s, home = {_HOME}", epoch)


# Copying ------------------------------------------------------------------------------------------

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


class PostgresCopyConnection:
    """See `CopyConnection`."""

    def __init__(self, name: str, connection: Connection) -> None:
        self.name = name
        self._connection = connection

    def query(self, sql: str, *parameters: object) -> list[Values]:
        cursor = self._connection.execute(sql.replace("?", "%s").encode(), parameters)
        return list(cursor.fetchall()) if cursor.description else []

    def transaction(self) -> AbstractContextManager[object]:
        return self._connection.transaction()

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

    def finish(self, epoch: Epoch) -> None:
        self.query(_HEADS)
        _begin_epoch(self._connection, epoch)
        for table in copying.KEYS:
            self.query(f"ANALYZE {table}")
