"""Connections to PostgreSQL, for one purpose each.

While the database is away, these pools fail at once, so that the client gets its 503 and tries
again. They work with the first request after the database has returned. Pools that reconnect in the
background do neither.
"""

import asyncio
import logging
import re
import select
import sys
from collections.abc import Awaitable, Callable, Hashable, Mapping
from functools import lru_cache
from time import monotonic
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec
import psycopg
from psycopg import AsyncConnection, AsyncRawCursor, IsolationLevel
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import Int8Dumper

from tether.domain.errors import Unavailable
from tether.storage.engine import Connections
from tether.storage.turns import Turns

log = logging.getLogger(__name__)  # structlog takes a while to load

LOGGED_AGAIN_S = 60.0  # the same refusal is not logged again before
FULL_S = 1.0  # after PostgreSQL had no connection left, none is opened for this time

# Temporary errors, or errors that the operator can repair: the connection broke; the server starts,
# stops, is full, overloaded, a replica or damaged; a right, a table or a schema is missing.
TEMPORARY_ERRORS = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.InternalError,
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.InvalidCatalogName,
    psycopg.errors.InvalidSqlStatementName,  # this server process has not prepared it …
    psycopg.errors.FeatureNotSupported,  # … or did so before the table was changed
    TimeoutError,
)
# After these errors nothing was done, and a new connection may work: to the new primary server,
# with the current settings, or without the old prepared statements.
_STALE_CONNECTION = (
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.InvalidSqlStatementName,
    psycopg.errors.FeatureNotSupported,
)

NEEDED = {
    "default_transaction_isolation": "read committed",  # each statement sees what is committed
    "default_transaction_deferrable": "off",
    "statement_timeout": "0",  # Tether has its own timeouts
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",  # it could close a connection just when a write is sent
    "transaction_timeout": "0",
    "standard_conforming_strings": "on",
    "row_security": "off",  # if a policy hides rows, the statement fails
}
"""Settings that Tether needs, whatever the role, the database or the server sets."""

# All our statements find their rows in an index. A statement that was prepared while a table was
# nearly empty would read the whole table, until PostgreSQL analyses the table again.
INDEXES_ONLY = {
    **dict.fromkeys(("enable_seqscan", "enable_bitmapscan"), "off"),
    **dict.fromkeys(("enable_hashjoin", "enable_mergejoin"), "off"),
    **dict.fromkeys(("enable_indexscan", "enable_indexonlyscan", "enable_nestloop"), "on"),
}
# Not every version has every setting. With `off`, a commit would be acknowledged before it is on
# disk. Whether it also waits for a replica is the operator's choice.
_PREPARE = """
SELECT set_config(key, value, false) FROM jsonb_each_text({settings})
WHERE current_setting(key, true) IS NOT NULL
UNION ALL
SELECT set_config('synchronous_commit', 'on', false)
WHERE current_setting('synchronous_commit') = 'off'
"""

Connection = AsyncConnection[tuple[Any, ...]]
Purpose: TypeAlias = Literal["keys", "entities", "events"]
T = TypeVar("T")

_ABOUT_EVENTS = re.compile(
    r"\b(\w*events|withdrawals|event_heads|session\w*|derivations|vehicle_history|refused_requests"
    r"|retention)\b"
)
_ABOUT_ENTITIES = re.compile(r"\b(chargers|vehicles)\b")


@lru_cache
def purpose_of(sql: str) -> Purpose:
    """The purpose of the statement. Each purpose has its own connections.

    So the tables of keys, chargers and vehicles can be used while something locks or overloads the
    tables of events and sessions.
    """
    if _ABOUT_EVENTS.search(sql):
        return "events"
    return "entities" if _ABOUT_ENTITIES.search(sql) else "keys"


def pool_sizes(pool_size: int) -> dict[Purpose, int]:
    """The number of connections for each purpose: at least one."""
    keys, entities = max(1, pool_size // 8), max(1, pool_size // 4)
    return {"keys": keys, "entities": entities, "events": max(1, pool_size - keys - entities)}


class Pool:
    """A pool of up to `size` connections, opened when they are needed."""

    def __init__(self, conninfo: str, size: int) -> None:
        self._conninfo = conninfo
        # A partner never uses all connections.
        self._turns = Turns(size, max(1, size - 1), max_waiting=sys.maxsize, patience_s=None)
        self._size = size
        self._idle: list[Connection] = []
        self._busy = 0
        self._returned = asyncio.Event()
        self._full_until = 0.0
        self._logged = "", 0.0  # the last refusal, and when

    async def run(
        self,
        partner: Hashable,
        run: Callable[[Connection], Awaitable[T]],
        timeout_s: float,
        *,
        retry: bool = False,
    ) -> T:
        """Calls `run` with a free connection. Partners take turns. Raises Unavailable, Abandoned.

        A connection may have broken while it was idle. With `retry` the call is then repeated with
        another connection, at last with a new one.
        """
        try:
            async with asyncio.timeout(timeout_s), self._turns.of(partner):
                while True:
                    connection, is_new = await self._take()
                    try:
                        return await self._run_on(connection, run)
                    except _STALE_CONNECTION:
                        if is_new:
                            raise
                    except TEMPORARY_ERRORS:
                        if not retry or is_new or not connection.closed:
                            raise
        except TEMPORARY_ERRORS as error:
            if isinstance(error, psycopg.ProgrammingError):
                self._log(str(error).partition("\n")[0])
            raise Unavailable from error

    def connections(self) -> Connections:
        """The number of connections."""
        return Connections(self._busy, len(self._idle), self._size)

    def _log(self, refusal: str) -> None:
        """Logs what the operator has to repair."""
        last, at = self._logged
        if refusal != last or monotonic() - at > LOGGED_AGAIN_S:
            log.error("PostgreSQL refuses: %s", refusal)
            self._logged = refusal, monotonic()

    async def close(self) -> None:
        """Closes the idle connections."""
        while self._idle:
            await self._idle.pop().close()

    async def _run_on(self, connection: Connection, run: Callable[[Connection], Awaitable[T]]) -> T:
        self._busy += 1
        try:
            return await run(connection)
        except _STALE_CONNECTION:
            await connection.close()
            raise
        finally:
            try:
                await self._return(connection)
            finally:
                self._busy -= 1
                self._returned.set()
                self._returned = asyncio.Event()

    async def _take(self) -> tuple[Connection, bool]:
        """A connection, and whether it is new.

        If PostgreSQL has none left, it waits for one of the pool.
        """
        while True:
            if connection := self._take_idle():
                return connection, False
            if not (self._busy and monotonic() < self._full_until):
                try:
                    return await _connect(self._conninfo), True
                except psycopg.OperationalError as error:
                    if not (self._busy or self._idle):
                        raise
                    self._log(" ".join(str(error).split()))
                    self._full_until = monotonic() + FULL_S
            if not self._idle:  # none was returned just now
                await self._returned.wait()

    def _take_idle(self) -> Connection | None:
        """An idle connection that the server has not closed."""
        while self._idle:
            connection = self._idle.pop()
            if not _has_input(connection):
                return connection
            connection.pgconn.finish()
        return None

    async def _return(self, connection: Connection) -> None:
        if connection.info.transaction_status == TransactionStatus.IDLE:
            self._idle.append(connection)
            return
        broken = connection.broken
        await connection.close()
        if broken:  # the others are probably broken, too
            await self.close()


def preparing(settings: Mapping[str, str]) -> bytes:
    """The statement that sets these settings of a connection, and durable commits."""
    text = msgspec.json.encode(settings).decode()
    return _PREPARE.format(settings=f"'{text}'").encode()


def _has_input(connection: Connection) -> bool:
    """Whether the server sent something, nearly always because it closed the connection."""
    waiting = select.poll()
    waiting.register(connection.pgconn.socket, select.POLLIN)
    return bool(waiting.poll(0))


async def _connect(conninfo: str) -> Connection:
    connection = await AsyncConnection.connect(
        conninfo, autocommit=True, cursor_factory=AsyncRawCursor
    )
    # One type for all integers. Otherwise each statement is prepared once for each size of them.
    connection.adapters.register_dumper(int, Int8Dumper)
    cursor = await connection.execute(
        "SELECT pg_backend_pid(), current_setting('default_transaction_isolation')"
    )
    pid, isolation = await cursor.fetchone() or (None, None)
    # With a pooler the next statement may reach another server process, which does not have the
    # prepared statements and settings of this one.
    if pid == connection.info.backend_pid:
        connection.prepare_threshold = 0
        await connection.execute(preparing({**NEEDED, **INDEXES_ONLY}))
    else:
        connection.prepare_threshold = None
        if isolation != NEEDED["default_transaction_isolation"]:
            await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
    return connection
