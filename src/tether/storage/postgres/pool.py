"""Connections to PostgreSQL, for one purpose each.

The pools are our own because they must fail at once while the database is away, so that the client
gets its 503 and tries again, and work with the first request after the database has returned. Pools
that reconnect in the background do neither.
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

TOLD_S = 60.0  # the same refusal is logged once in this time
FULL_S = 1.0  # no new connection is tried for this time after PostgreSQL had none left

# Errors that pass, or that the operator can repair: the connection broke; the server starts, stops,
# is full, overloaded, a replica or damaged; a right, a table or a schema is missing.
PASSING = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.InternalError,
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.InvalidCatalogName,
    psycopg.errors.InvalidSqlStatementName,  # a server process that has not prepared it …
    psycopg.errors.FeatureNotSupported,  # … or did so before the table was changed
    TimeoutError,
)
# After these errors nothing was done, and a new connection may work: to the server that has taken
# over, with the current settings, or without the old prepared statements.
_SPENT = (
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.InvalidSqlStatementName,
    psycopg.errors.FeatureNotSupported,
)

NEEDED = {
    "default_transaction_isolation": "read committed",  # each statement sees what is committed
    "default_transaction_deferrable": "off",
    "statement_timeout": "0",  # how long something may take is decided here
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",  # or it may end a connection just when a write goes out
    "transaction_timeout": "0",
    "standard_conforming_strings": "on",
    "row_security": "off",  # rows that a policy hides are an error, and not missing in silence
}
"""Settings that Tether needs, whatever the role, the database or the server sets."""

# All that we do finds its rows in an index, one after the other. A statement that was prepared
# while a table was nearly empty would go on to read the whole table while it fills, until
# PostgreSQL analyses it again.
INDEXES_ONLY = {
    **dict.fromkeys(("enable_seqscan", "enable_bitmapscan"), "off"),
    **dict.fromkeys(("enable_hashjoin", "enable_mergejoin"), "off"),
    **dict.fromkeys(("enable_indexscan", "enable_indexonlyscan", "enable_nestloop"), "on"),
}
# Not every version has every setting. `off` alone would acknowledge what is not on disk; how much
# more than that is waited for (a replica) is the operator's choice.
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

    So keys are recognised, and chargers and vehicles are read and written, while something locks or
    overloads the tables of events and sessions.
    """
    if _ABOUT_EVENTS.search(sql):
        return "events"
    return "entities" if _ABOUT_ENTITIES.search(sql) else "keys"


def shares(pool_size: int) -> dict[Purpose, int]:
    """The number of connections for each purpose: at least one."""
    keys, entities = max(1, pool_size // 8), max(1, pool_size // 4)
    return {"keys": keys, "entities": entities, "events": max(1, pool_size - keys - entities)}


class Pool:
    """A pool of up to `size` connections, opened when they are needed."""

    def __init__(self, conninfo: str, size: int) -> None:
        self._conninfo = conninfo
        # One connection is left for others, however much a partner asks for at once.
        of_each = max(1, size - 1)
        self._turns = Turns(size, of_each, most_waiting=sys.maxsize, patience_s=None)
        self._size = size
        self._idle: list[Connection] = []
        self._busy = 0
        self._returned = asyncio.Event()
        self._full_until = 0.0
        self._told = "", 0.0

    async def run(
        self,
        whose: Hashable,
        run: Callable[[Connection], Awaitable[T]],
        timeout_s: float,
        *,
        again: bool = False,
    ) -> T:
        """Runs something on a free connection; partners take turns. Raises Unavailable, Abandoned.

        A pooled connection may have broken while it was idle. With `again` it is then run again, in
        the end on a new connection.
        """
        try:
            async with asyncio.timeout(timeout_s), self._turns.of(whose):
                while True:
                    connection, is_new = await self._take()
                    try:
                        return await self._run_on(connection, run)
                    except _SPENT:
                        if is_new:
                            raise
                    except PASSING:
                        if not again or is_new or not connection.closed:
                            raise
        except PASSING as error:
            if isinstance(error, psycopg.ProgrammingError):
                self._tell(str(error).partition("\n")[0])
            raise Unavailable from error

    def connections(self) -> Connections:
        """The number of connections."""
        return Connections(self._busy, len(self._idle), self._size)

    def _tell(self, refusal: str) -> None:
        """Logs what the operator has to repair."""
        told, when = self._told
        if refusal != told or monotonic() - when > TOLD_S:
            log.error("PostgreSQL refuses: %s", refusal)
            self._told = refusal, monotonic()

    async def close(self) -> None:
        """Closes the idle connections."""
        while self._idle:
            await self._idle.pop().close()

    async def _run_on(self, connection: Connection, run: Callable[[Connection], Awaitable[T]]) -> T:
        self._busy += 1
        try:
            return await run(connection)
        except _SPENT:
            await connection.close()
            raise
        finally:
            try:
                await self._give_back(connection)
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
                    self._tell(str(error).strip().rpartition("\n")[2])
                    self._full_until = monotonic() + FULL_S
            if not self._idle:  # else one was given back just now
                await self._returned.wait()

    def _take_idle(self) -> Connection | None:
        """An idle connection that the server has not closed."""
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
        if broken:  # the others are probably broken, too
            await self.close()


def preparing(settings: Mapping[str, str]) -> bytes:
    """The statement that gives a connection these settings, and durable commits."""
    text = msgspec.json.encode(settings).decode()
    return _PREPARE.format(settings=f"'{text}'").encode()


def _has_news(connection: Connection) -> bool:
    """Whether the server sent something: nearly always that it has closed the connection."""
    waiting = select.poll()
    waiting.register(connection.pgconn.socket, select.POLLIN)
    return bool(waiting.poll(0))


async def _connect(conninfo: str) -> Connection:
    connection = await AsyncConnection.connect(
        conninfo, autocommit=True, cursor_factory=AsyncRawCursor
    )
    # One type for all integers: otherwise each statement is prepared once for each size of them.
    connection.adapters.register_dumper(int, Int8Dumper)
    cursor = await connection.execute(
        "SELECT pg_backend_pid(), current_setting('default_transaction_isolation')"
    )
    pid, isolation = await cursor.fetchone() or (None, None)
    # Behind a pooler the next statement may reach another server process, which does not know what
    # is prepared or set here.
    if pid == connection.info.backend_pid:
        connection.prepare_threshold = 0
        await connection.execute(preparing({**NEEDED, **INDEXES_ONLY}))
    else:
        connection.prepare_threshold = None
        if isolation != NEEDED["default_transaction_isolation"]:
            await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
    return connection
