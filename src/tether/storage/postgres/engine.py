"""PostgreSQL: many processes and machines on one database.

Every statement is its own transaction. So nothing stays open when a client or a node dies, and a
transaction pooler such as PgBouncer can be used.
"""

import asyncio
import sys
from functools import lru_cache, partial
from typing import NamedTuple

from tether.domain.errors import Unavailable, for_another
from tether.domain.models import to_json
from tether.storage.batches import Batches
from tether.storage.dialect import POSTGRES
from tether.storage.engine import PING, Connections, Row, Size, Statement
from tether.storage.postgres.pool import Connection, Pool, pool_sizes, purpose_of
from tether.storage.tables import TABLES
from tether.storage.turns import Turns, partner_in

PING_TIMEOUT_S = 4.0
READ_TIMEOUT_S = 10.0
SCAN_TIMEOUT_S = 60.0
WRITE_TIMEOUT_S = 10.0
VACUUM_TIMEOUT_S = 3_600.0
FIND_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"


class _Outcome(NamedTuple):
    rows: list[Row]
    changed: int


class PostgresEngine:
    """Pools of connections to one PostgreSQL database."""

    dialect = POSTGRES

    def __init__(self, conninfo: str, pool_size: int) -> None:
        sizes = pool_sizes(pool_size)
        self._pools = {name: Pool(conninfo, size) for name, size in sizes.items()}
        # Scans use half of the connections.
        self._turns = {
            name: Turns((size + 1) // 2, (size + 3) // 4, max_waiting=sys.maxsize, patience_s=None)
            for name, size in sizes.items()
        }
        self._look_ups = Batches(self._look_up_all)
        self._pinging: asyncio.Future[list[Row]] | None = None

    async def ping(self) -> None:
        # Pings at the same time share one query. It is not cancelled: the driver takes long to give
        # up a statement if the server hangs.
        if self._pinging is None or self._pinging.done():
            self._pinging = asyncio.ensure_future(self.read(PING))
            self._pinging.add_done_callback(_retrieve_error)
        done, _ = await asyncio.wait({self._pinging}, timeout=PING_TIMEOUT_S)
        if not done:
            raise Unavailable(cause=f"no answer for {PING_TIMEOUT_S:g} s")
        if isinstance(error := self._pinging.exception(), Exception):
            raise for_another(error)

    async def read(self, sql: str, *parameters: object) -> list[Row]:
        return (await self._run(sql, parameters, READ_TIMEOUT_S, retry=True)).rows

    async def look_up(self, sql: str, partner: int, key: str) -> Row | None:
        return await self._look_ups.add((sql, partner), key)

    async def _look_up_all(self, query: tuple[str, int], keys: list[str]) -> list[Row | None]:
        """The rows of keys that are looked up at the same time.

        A statement costs the server process more than the rest of a request, however little it
        reads. Each look-up is asked for before its batch is sent, so it sees all writes that were
        acknowledged before it.
        """
        sql, partner = query
        wanted = to_json(dict.fromkeys(keys, 0)).decode()
        found = {key: row for key, *row in await self.read(for_each_key(sql), partner, wanted)}
        return [found.get(key) for key in keys]

    async def scan(self, sql: str, partner: int, *parameters: object) -> list[Row]:
        run = partial(self._run, sql, (partner, *parameters), SCAN_TIMEOUT_S, retry=True)
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
        return await self._pools[purpose_of(first.sql)].run(
            partner_in(first.parameters), run, WRITE_TIMEOUT_S
        )

    async def list_events(self, partner: int, last: int, until: int) -> None:
        pass  # PostgreSQL has indexes instead: a list would cost a row for each event

    async def size(self) -> Size:
        ((used,),) = await self.read("SELECT pg_database_size(current_database())")
        return Size(int(used))

    def connections(self) -> dict[str, Connections]:
        return {name: pool.connections() for name, pool in self._pools.items()}

    async def erase_deleted(self) -> None:
        """Frees the room of deleted rows in the tables that the role owns, and removes their values
        from the statistics. Until the room is used again, the rows may still be on the disk.
        """

        async def vacuum(connection: Connection) -> None:
            cursor = await connection.execute(FIND_TABLES)
            for (table,) in await cursor.fetchall():
                if table in TABLES:
                    await connection.execute(f"VACUUM (ANALYZE) {table}")

        await self._pools["events"].run(None, vacuum, VACUUM_TIMEOUT_S)

    async def erase_text(self, text: str) -> None:
        await self.erase_deleted()  # which blocks no statement

    async def shrink(self) -> None:
        pass  # autovacuum frees the room in the tables

    async def close(self) -> None:
        for pool in self._pools.values():
            await pool.close()

    async def _run(
        self, sql: str, parameters: tuple[object, ...], timeout_s: float, *, retry: bool = False
    ) -> _Outcome:
        async def run(connection: Connection) -> _Outcome:
            if connection.isolation_level is None:
                cursor = await connection.execute(sql, parameters)
            else:  # the database has another default
                async with connection.pipeline(), connection.transaction():
                    cursor = await connection.execute(sql, parameters)
            rows: list[Row] = list(await cursor.fetchall()) if cursor.description else []
            return _Outcome(rows, cursor.rowcount)

        return await self._pools[purpose_of(sql)].run(
            partner_in(parameters), run, timeout_s, retry=retry
        )


@lru_cache
def for_each_key(sql: str) -> str:
    """Turns a statement for one key $2 into one for all keys of a JSON object $2.

    OFFSET 0 keeps the planner from turning it into a join, which might begin at the wrong end.
    """
    each = sql.replace("$2", "wanted_keys.key")  # no statement has a table of this name
    return f"""
SELECT wanted_keys.key, x.* FROM jsonb_each($2) wanted_keys
CROSS JOIN LATERAL ({each} OFFSET 0) x
"""


def _retrieve_error(ping: "asyncio.Future[list[Row]]") -> None:
    """Retrieves the error. Otherwise asyncio logs it if nobody waits for it."""
    if not ping.cancelled():
        ping.exception()
