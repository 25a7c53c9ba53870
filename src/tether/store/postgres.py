"""PostgreSQL: many processes and machines on one database.

Every statement is its own transaction, so nothing is left open when a client or a node dies, and a
transaction pooler such as PgBouncer may stand between. The pool is our own because it must fail at
once while the database is away (the client gets its 503 and tries again) and be at work with the
first request after the database's return: pools that reconnect in the background do neither.
"""

import asyncio
import select
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg import AsyncConnection, AsyncRawCursor
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import Int8Dumper

from tether.errors import SetupError, Unavailable
from tether.store import migrate
from tether.store.dialect import POSTGRES
from tether.store.engine import Row, Statement
from tether.store.gathering import Gathering

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
# All that we do finds its rows in an index, one after the other. A statement that was prepared
# while a table was nearly empty would go on to read the whole table while it fills, until
# PostgreSQL analyses it again.
_INDEXES_ONLY = """
SELECT set_config('enable_seqscan', 'off', false), set_config('enable_bitmapscan', 'off', false),
       set_config('enable_hashjoin', 'off', false), set_config('enable_mergejoin', 'off', false)
"""
_FORM = (
    "write postgresql://user:password@host:5432/name, and in user and password %40 for @, "
    "%2F for /, %25 for %."
)
# What passes: the connection broke; the server starts, stops, is full, overloaded or a replica.
_PASSING = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
    TimeoutError,
)

Connection = AsyncConnection[tuple[Any, ...]]
T = TypeVar("T")


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
        self._gathering = Gathering(self.read)

    async def read(self, sql: str, *parameters: object) -> list[Row]:
        return (await self._run(_one(sql, parameters), READ_TIMEOUT_S, again=True)).rows

    async def look_up(self, sql: str, partner: int, key: str, *, again: bool = True) -> Row | None:
        return await self._gathering.look_up(sql, partner, key)

    async def scan(self, sql: str, *parameters: object) -> list[Row]:
        return (await self._run(_one(sql, parameters), SCAN_TIMEOUT_S, again=True)).rows

    async def write(self, sql: str, *parameters: object) -> int:
        return (await self._run(_one(sql, parameters), WRITE_TIMEOUT_S)).changed

    async def write_returning(self, sql: str, *parameters: object) -> list[Row]:
        return (await self._run(_one(sql, parameters), WRITE_TIMEOUT_S)).rows

    async def write_all(self, *statements: Statement) -> list[int]:
        async def run(connection: Connection) -> list[int]:
            # The pipeline sends all of it at once, so nothing waits within the transaction.
            async with connection.pipeline(), connection.transaction():
                cursors = [await connection.execute(*statement) for statement in statements]
            return [cursor.rowcount for cursor in cursors]

        return await self._run(run, WRITE_TIMEOUT_S)

    async def close(self) -> None:
        await self._close_idle()

    async def _run(
        self, run: Callable[[Connection], Awaitable[T]], timeout_s: float, *, again: bool = False
    ) -> T:
        """Runs something on a free connection.

        A pooled connection may have broken while it was idle: where `again` says that it does no
        harm, it is then run again, in the end on a new one.
        """
        try:
            async with asyncio.timeout(timeout_s), self._free:
                while connection := self._take_idle():
                    try:
                        return await self._run_on(connection, run)
                    except _PASSING:
                        if not (again and connection.closed):
                            raise
                return await self._run_on(await _connect(self._conninfo), run)
        except _PASSING as error:
            raise Unavailable from error

    async def _run_on(self, connection: Connection, run: Callable[[Connection], Awaitable[T]]) -> T:
        try:
            return await run(connection)
        except psycopg.errors.ReadOnlySqlTransaction:
            await connection.close()  # a new one may find the server that has taken over
            raise
        finally:
            await self._give_back(connection)

    def _take_idle(self) -> Connection | None:
        """A connection that the server has not ended while it was idle."""
        while self._idle:
            connection = self._idle.pop()
            if not _has_news(connection):
                return connection
            connection.pgconn.finish()
        return None

    async def _give_back(self, connection: Connection) -> None:
        if connection.info.transaction_status == TransactionStatus.IDLE:
            self._idle.append(connection)
            return
        broken = connection.broken
        await connection.close()
        if broken:  # whatever did it has probably broken the others: better new ones
            await self._close_idle()

    async def _close_idle(self) -> None:
        while self._idle:
            await self._idle.pop().close()


def _one(sql: str, parameters: tuple[object, ...]) -> Callable[[Connection], Awaitable[_Outcome]]:
    """What runs this statement by itself."""

    async def run(connection: Connection) -> _Outcome:
        cursor = await connection.execute(sql, parameters)
        rows: list[Row] = list(await cursor.fetchall()) if cursor.description else []
        return _Outcome(rows, cursor.rowcount)

    return run


def _has_news(connection: Connection) -> bool:
    """Whether the server said something unasked: nearly always that the connection has ended."""
    waiting = select.poll()
    waiting.register(connection.pgconn.socket, select.POLLIN)
    return bool(waiting.poll(0))


async def _connect(conninfo: str) -> Connection:
    connection = await AsyncConnection.connect(
        conninfo, autocommit=True, cursor_factory=AsyncRawCursor
    )
    # One type for all whole numbers, lest every statement be prepared for each size of them.
    connection.adapters.register_dumper(int, Int8Dumper)
    cursor = await connection.execute("SELECT pg_backend_pid()")
    (pid,) = await cursor.fetchone() or (None,)
    # Behind a pooler the next statement may reach another server process than this one: there
    # what is prepared or set now is unknown then.
    if pid == connection.info.backend_pid:
        connection.prepare_threshold = 0
        await connection.execute(_INDEXES_ONLY)
    else:
        connection.prepare_threshold = None
    return connection


# Making and describing the database ---------------------------------------------------------------


def migrate_postgres(url: str) -> int:
    """Brings the schema up to date; returns how many steps it took.

    However many nodes start at once, one of them does it while the others wait.
    Raises SetupError if the database cannot be reached, is not ours, or is newer.
    """
    name = describe_postgres(url)
    with _session(url) as connection, connection.transaction():
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
    with _session(url) as connection:
        tables = _tables(connection)
        migrate.check_not_foreign(tables, name)
        current = _version(connection) if migrate.VERSION_TABLE in tables else 0
        return len(migrate.steps_after(POSTGRES, current, name))


def version_of_postgres(url: str) -> str:
    """The server's version, such as `18.1`. Raises SetupError if it cannot be reached."""
    with _session(url) as connection:
        number = connection.info.server_version
    return f"{number // 10_000}.{number % 10_000}"


def risks_of_postgres(url: str) -> list[str]:
    """The settings that let a commit be answered before it is on disk, such as `fsync = off`."""
    query = """
    SELECT name || ' = ' || setting FROM pg_settings
    WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting = 'off'
    ORDER BY name
    """
    with _session(url) as connection:
        return [str(risk) for (risk,) in connection.execute(query)]


def describe_postgres(url: str) -> str:
    """The database's address without anything secret, to show and to log. Raises SetupError."""
    parts = _parts_of(url)
    user, name = parts.get("user"), parts.get("dbname") or parts.get("user") or ""
    hosts = (parts.get("host") or "localhost").split(",")
    ports = (parts.get("port") or "5432").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    places = ",".join(f"{host}:{port}" for host, port in zip(hosts, ports, strict=False))
    return f"postgresql://{f'{user}@' if user else ''}{places}/{name}"


def _parts_of(url: str) -> dict[str, str]:
    """The options that the URL gives. Raises SetupError, which does not show any of it.

    A password in which @ or / are not encoded ends in what looks like host, port and name.
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
    options: dict[str, Any] = {**_DEFAULTS, **_parts_of(url)}
    return make_conninfo(**options)


@contextmanager
def _session(url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A connection for one purpose. Raises SetupError for whatever goes wrong on it."""
    name = describe_postgres(url)
    try:
        with psycopg.connect(_conninfo(url), autocommit=True, prepare_threshold=None) as connection:
            yield connection
    except psycopg.Error as error:
        raise SetupError(f"{name} cannot be used: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _tables(connection: psycopg.Connection[tuple[Any, ...]]) -> set[str]:
    query = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
    return {str(name) for (name,) in connection.execute(query)}


def _version(connection: psycopg.Connection[tuple[Any, ...]]) -> int:
    (version,) = connection.execute(migrate.READ_VERSION).fetchone() or (0,)
    return int(version)
