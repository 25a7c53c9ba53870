"""PostgreSQL: many processes and machines on one database.

Every statement is its own transaction. So nothing stays open when a client or a node dies, and a
transaction pooler such as PgBouncer can be used.
"""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tether.domain.errors import SetupError, Unavailable, for_another
from tether.storage import migrate
from tether.storage.dialect import POSTGRES
from tether.storage.engine import Connections, Row, Size, Statement
from tether.storage.log_positions import Epoch, EpochState, log_restored_copy, new_epoch
from tether.storage.postgres.batch_loader import BatchLoader
from tether.storage.postgres.pool import NEEDED, Connection, Pool, preparing, purpose_of, shares
from tether.storage.turns import Turns, whose

PING_TIMEOUT_S = 4.0
READ_TIMEOUT_S = 10.0
SCAN_TIMEOUT_S = 60.0
WRITE_TIMEOUT_S = 10.0
VACUUM_TIMEOUT_S = 3_600.0
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
_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
_FORM = (
    "write postgresql://user:password@host:5432/name, and in user and password %40 for @, "
    "%2F for /, %25 for %."
)


class _Outcome(NamedTuple):
    rows: list[Row]
    changed: int


class PostgresEngine:
    """Pools of connections to one PostgreSQL database."""

    dialect = POSTGRES

    def __init__(self, url: str, pool_size: int) -> None:
        conninfo, sizes = _conninfo(url), shares(pool_size)
        self._pools = {name: Pool(conninfo, size) for name, size in sizes.items()}
        # Scans leave connections for everything else.
        self._turns = {name: _scans((size + 1) // 2) for name, size in sizes.items()}
        self._batch_loader = BatchLoader(self.read)
        self._pinging: asyncio.Future[list[Row]] | None = None

    async def ping(self, sql: str) -> None:
        # Pings at the same time share one query. It is not cancelled: the driver takes long to give
        # up a statement if the server hangs.
        if self._pinging is None or self._pinging.done():
            self._pinging = asyncio.ensure_future(self.read(sql))
            self._pinging.add_done_callback(_look_at)
        done, _ = await asyncio.wait({self._pinging}, timeout=PING_TIMEOUT_S)
        if not done:
            raise Unavailable(cause=f"no answer for {PING_TIMEOUT_S:g} s")
        if isinstance(error := self._pinging.exception(), Exception):
            raise for_another(error)

    async def read(self, sql: str, *parameters: object) -> list[Row]:
        return (await self._run(sql, parameters, READ_TIMEOUT_S, again=True)).rows

    async def look_up(self, sql: str, partner: int, key: str) -> Row | None:
        return await self._batch_loader.look_up(sql, partner, key)

    async def scan(self, sql: str, partner: int, *parameters: object) -> list[Row]:
        run = partial(self._run, sql, (partner, *parameters), SCAN_TIMEOUT_S, again=True)
        return (await self._turns[purpose_of(sql)].run(partner, run)).rows

    async def write(self, sql: str, *parameters: object) -> int:
        return (await self._run(sql, parameters, WRITE_TIMEOUT_S)).changed

    async def write_returning(self, sql: str, *parameters: object) -> list[Row]:
        return (await self._run(sql, parameters, WRITE_TIMEOUT_S)).rows

    async def write_all(self, *statements: Statement) -> list[int]:
        async def run(connection: Connection) -> list[int]:
            # The pipeline sends all statements at once, so the transaction never waits for us.
            async with connection.pipeline(), connection.transaction():
                cursors = [await connection.execute(*statement) for statement in statements]
            return [cursor.rowcount for cursor in cursors]

        first = statements[0]
        return await self._pool(first.sql).run(whose(first.parameters), run, WRITE_TIMEOUT_S)

    async def list_events(self, partner: int, last: int, until: int) -> None:
        pass  # PostgreSQL has indexes instead: a list would cost a row for each event

    async def size(self) -> Size:
        ((used,),) = await self.read("SELECT pg_database_size(current_database())")
        return Size(int(used))

    def connections(self) -> dict[str, Connections]:
        return {name: pool.connections() for name, pool in self._pools.items()}

    async def scrub(self) -> None:
        """Frees the room of deleted rows in the tables that the role owns. Until the room is used
        again, the rows may still be on the disk.
        """

        async def vacuum(connection: Connection) -> None:
            cursor = await connection.execute(_TABLES)
            for (table,) in await cursor.fetchall():
                if table in migrate.OUR_TABLES:
                    await connection.execute(f"VACUUM {table}")

        await self._pools["events"].run(None, vacuum, VACUUM_TIMEOUT_S)

    async def forget(self, text: str) -> None:
        await self.scrub()  # which blocks no statement

    async def shrink(self) -> None:
        pass  # autovacuum frees the room in the tables

    async def close(self) -> None:
        for pool in self._pools.values():
            await pool.close()

    def _pool(self, sql: str) -> Pool:
        return self._pools[purpose_of(sql)]

    async def _run(
        self, sql: str, parameters: tuple[object, ...], timeout_s: float, *, again: bool = False
    ) -> _Outcome:
        async def run(connection: Connection) -> _Outcome:
            if connection.isolation_level is None:
                cursor = await connection.execute(sql, parameters)
            else:  # the database has another default
                async with connection.pipeline(), connection.transaction():
                    cursor = await connection.execute(sql, parameters)
            rows: list[Row] = list(await cursor.fetchall()) if cursor.description else []
            return _Outcome(rows, cursor.rowcount)

        return await self._pool(sql).run(whose(parameters), run, timeout_s, again=again)


def _look_at(asked: "asyncio.Future[list[Row]]") -> None:
    """Retrieves the error. Otherwise asyncio logs it if nobody waits for it."""
    if not asked.cancelled():
        asked.exception()


def _scans(at_once: int) -> Turns:
    return Turns(at_once, (at_once + 1) // 2, most_waiting=sys.maxsize, patience_s=None)


# Making and describing the database ---------------------------------------------------------------


def migrate_postgres(url: str) -> int:
    """Brings the schema up to date; returns how many steps it took.

    If several nodes start at once, one of them does it and the others wait.
    Raises SetupError if the database cannot be reached, is not ours, or is newer.
    """
    name = describe_postgres(url)
    with session(url) as connection, connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [MIGRATION_LOCK])
        tables = _tables(connection)
        migrate.check_not_foreign(tables, name)
        migrate.check_whole(tables, name)
        if migrate.VERSION_TABLE not in tables:
            _check_encoding(connection, name)
            connection.execute(migrate.CREATE_VERSION_TABLE)
        missing = migrate.steps_after(POSTGRES, _version(connection), name)
        for step in missing:
            connection.execute(step.script)
            connection.execute(f"INSERT INTO {migrate.VERSION_TABLE} VALUES ({step.version})")
        if copied := epoch_of(connection).ends:
            begin_epoch(connection, new_epoch())
    if copied:
        log_restored_copy()
    return len(missing)


def pending_postgres(url: str) -> int:
    """How many steps the schema still needs. Raises SetupError as above."""
    name = describe_postgres(url)
    with session(url) as connection:
        tables = _tables(connection)
        migrate.check_not_foreign(tables, name)
        migrate.check_whole(tables, name)
        current = _version(connection) if migrate.VERSION_TABLE in tables else 0
        return len(migrate.steps_after(POSTGRES, current, name))


def describe_postgres(url: str) -> str:
    """The database's address without secrets, for display and logs. Raises SetupError."""
    parts = _parts_of(url)
    user, name = parts.get("user"), parts.get("dbname") or parts.get("user") or ""
    hosts = (parts.get("host") or "localhost").split(",")
    ports = (parts.get("port") or "5432").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    places = ",".join(f"{host}:{port}" for host, port in zip(hosts, ports, strict=False))
    return f"postgresql://{f'{user}@' if user else ''}{places}/{name}"


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


@contextmanager
def session(url: str, *, prepare: bool = True) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A connection with the settings that we need, unless a pooler is used; `prepare=False` keeps
    the settings that it has. Raises SetupError for all errors on it.
    """
    name = describe_postgres(url)
    try:
        with psycopg.connect(_conninfo(url), autocommit=True, prepare_threshold=None) as connection:
            if prepare and is_direct(connection):
                connection.execute(preparing(NEEDED))
            yield connection
    except psycopg.Error as error:
        raise SetupError(f"{name} cannot be used: {_one_line(error)}") from None


def is_direct(connection: psycopg.Connection[tuple[Any, ...]]) -> bool:
    """Whether no pooler is used. A pooler may share our settings with other clients."""
    return connection.execute("SELECT pg_backend_pid()").fetchone() == (
        connection.info.backend_pid,
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _check_encoding(connection: psycopg.Connection[tuple[Any, ...]], name: str) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise SetupError(
            f"{name} has the encoding {encoding} and cannot hold every text: make a database with "
            "ENCODING 'UTF8' TEMPLATE template0."
        )


def _tables(connection: psycopg.Connection[tuple[Any, ...]]) -> set[str]:
    if connection.execute("SELECT current_schema()").fetchone() == (None,):
        raise SetupError(
            "The role may use no schema of its search_path: GRANT USAGE ON SCHEMA … to it."
        )
    return {str(name) for (name,) in connection.execute(_TABLES)}


# In a restored dump the database or the table has another number. A fail-over keeps both.
_HOME = """
(SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
|| '.' || CAST('epoch'::regclass AS OID)
"""


def epoch_of(connection: psycopg.Connection[tuple[Any, ...]]) -> EpochState:
    """Which epoch the database says it is."""
    query = f"SELECT id, began_ms, home <> ({_HOME}) FROM epoch"
    ((id, began_ms, ends),) = connection.execute(query).fetchall()
    return EpochState(Epoch(id, began_ms), ends=ends)


def begin_epoch(connection: psycopg.Connection[tuple[Any, ...]], epoch: Epoch) -> None:
    """Sets the epoch of the database. It is no copy any more."""
    query = f"UPDATE epoch SET id = %s, began_ms = %s, home = {_HOME}"
    connection.execute(query, epoch)


def _version(connection: psycopg.Connection[tuple[Any, ...]]) -> int:
    (version,) = connection.execute(migrate.READ_VERSION).fetchone() or (0,)
    return int(version)
