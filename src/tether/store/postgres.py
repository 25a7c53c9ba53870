"""PostgreSQL: many processes and machines on one database.

Every statement is its own transaction, so nothing is left open when a client or a node dies, and a
transaction pooler such as PgBouncer may stand between. The pool is our own because it must fail at
once while the database is away (the client gets its 503 and tries again) and be at work with the
first request after the database's return: pools that reconnect in the background do neither.
"""

import asyncio
from typing import Any, NamedTuple

import psycopg
from psycopg import AsyncConnection, AsyncRawCursor
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import Int8Dumper

from tether.errors import SetupError, Unavailable
from tether.store import migrate
from tether.store.dialect import POSTGRES
from tether.store.engine import Row

READ_TIMEOUT_S = 10.0
SCAN_TIMEOUT_S = 60.0
WRITE_TIMEOUT_S = 10.0
MIGRATION_LOCK = 0x54455448  # any number, as long as all versions use the same

# Notice within seconds a machine that is gone; what the URL itself says goes before.
_DEFAULTS = {
    "application_name": "tether",
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}
# What passes: the connection broke; the server starts, stops, is full, overloaded or a replica.
_PASSING = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
    TimeoutError,
)

Connection = AsyncConnection[tuple[Any, ...]]


class _Outcome(NamedTuple):
    rows: list[Row]
    changed: int


class PostgresEngine:
    """A pool of connections to one PostgreSQL database."""

    dialect = POSTGRES

    def __init__(self, url: str, pool_size: int) -> None:
        self._conninfo = _conninfo(url)
        self._free = asyncio.Semaphore(pool_size)
        self._idle: list[Connection] = []

    async def read(self, sql: str, *parameters: object) -> list[Row]:
        return (await self._run(sql, parameters, READ_TIMEOUT_S, again=True)).rows

    async def scan(self, sql: str, *parameters: object) -> list[Row]:
        return (await self._run(sql, parameters, SCAN_TIMEOUT_S, again=True)).rows

    async def write(self, sql: str, *parameters: object) -> int:
        return (await self._run(sql, parameters, WRITE_TIMEOUT_S)).changed

    async def write_returning(self, sql: str, *parameters: object) -> list[Row]:
        return (await self._run(sql, parameters, WRITE_TIMEOUT_S)).rows

    async def close(self) -> None:
        await self._close_idle()

    async def _run(
        self, sql: str, parameters: tuple[object, ...], timeout_s: float, *, again: bool = False
    ) -> _Outcome:
        """Runs a statement on a free connection.

        A pooled connection may have broken while it was idle: where `again` says that it does no
        harm, the statement is then run once more, on a new one.
        """
        try:
            async with asyncio.timeout(timeout_s), self._free:
                pooled = bool(self._idle)
                try:
                    return await self._run_once(sql, parameters)
                except _PASSING:
                    if not (again and pooled and not self._idle):
                        raise
                return await self._run_once(sql, parameters)
        except _PASSING as error:
            raise Unavailable from error

    async def _run_once(self, sql: str, parameters: tuple[object, ...]) -> _Outcome:
        connection = self._idle.pop() if self._idle else await _connect(self._conninfo)
        try:
            cursor = await connection.execute(sql, parameters)
            rows: list[Row] = list(await cursor.fetchall()) if cursor.description else []
            return _Outcome(rows, cursor.rowcount)
        finally:
            await self._give_back(connection)

    async def _give_back(self, connection: Connection) -> None:
        if connection.info.transaction_status == TransactionStatus.IDLE:
            self._idle.append(connection)
            return
        await connection.close()
        # What broke this one has probably broken the others: better a new one than to try them.
        await self._close_idle()

    async def _close_idle(self) -> None:
        while self._idle:
            await self._idle.pop().close()


async def _connect(conninfo: str) -> Connection:
    connection = await AsyncConnection.connect(
        conninfo, autocommit=True, cursor_factory=AsyncRawCursor
    )
    # One type for all whole numbers, lest every statement be prepared for each size of them.
    connection.adapters.register_dumper(int, Int8Dumper)
    cursor = await connection.execute("SELECT pg_backend_pid()")
    (pid,) = await cursor.fetchone() or (None,)
    # Behind a pooler the next statement may reach another server process than this one: there
    # what is prepared now is unknown then.
    connection.prepare_threshold = 0 if pid == connection.info.backend_pid else None
    return connection


# Making and describing the database ---------------------------------------------------------------


def migrate_postgres(url: str) -> int:
    """Brings the schema up to date; returns how many steps it took.

    However many nodes start at once, one of them does it while the others wait.
    Raises SetupError if the database cannot be reached, is not ours, or is newer.
    """
    name = describe_postgres(url)
    with _connect_once(url) as connection, connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [MIGRATION_LOCK])
        tables = _tables(connection)
        migrate.check_not_foreign(tables, name)
        if migrate.VERSION_TABLE not in tables:
            connection.execute(migrate.CREATE_VERSION_TABLE)
        missing = migrate.steps_after(POSTGRES, _version(connection), name)
        for step in missing:
            connection.execute(step.script)
            connection.execute(f"INSERT INTO {migrate.VERSION_TABLE} VALUES ({step.version})")
        return len(missing)


def pending_postgres(url: str) -> int:
    """How many steps the schema still needs. Raises SetupError as above."""
    name = describe_postgres(url)
    with _connect_once(url) as connection:
        tables = _tables(connection)
        migrate.check_not_foreign(tables, name)
        current = _version(connection) if migrate.VERSION_TABLE in tables else 0
        return len(migrate.steps_after(POSTGRES, current, name))


def version_of_postgres(url: str) -> str:
    """The server's version, such as `18.1`. Raises SetupError if it cannot be reached."""
    with _connect_once(url) as connection:
        number = connection.info.server_version
    return f"{number // 10_000}.{number % 10_000}"


def describe_postgres(url: str) -> str:
    """The database's address without anything secret, to show and to log. Raises SetupError."""
    try:
        parts = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        raise SetupError(f"The PostgreSQL URL cannot be read: {_one_line(error)}") from None
    user, host = parts.get("user"), parts.get("host") or "localhost"
    port, name = parts.get("port") or 5432, parts.get("dbname") or user or ""
    return f"postgresql://{f'{user}@' if user else ''}{host}:{port}/{name}"


def _conninfo(url: str) -> str:
    given: dict[str, Any] = conninfo_to_dict(url)
    return make_conninfo(**{**_DEFAULTS, **given})


def _connect_once(url: str) -> psycopg.Connection[tuple[Any, ...]]:
    name = describe_postgres(url)
    try:
        return psycopg.connect(_conninfo(url), autocommit=True, prepare_threshold=None)
    except psycopg.Error as error:
        raise SetupError(f"{name} cannot be reached: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _tables(connection: psycopg.Connection[tuple[Any, ...]]) -> set[str]:
    query = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
    return {str(name) for (name,) in connection.execute(query)}


def _version(connection: psycopg.Connection[tuple[Any, ...]]) -> int:
    (version,) = connection.execute(migrate.READ_VERSION).fetchone() or (0,)
    return int(version)
