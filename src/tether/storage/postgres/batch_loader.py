"""On PostgreSQL, reads by key that happen at the same time become one statement.

A statement costs the server process more than the rest of a request, however little it reads. So
while one batch of keys is read, the next keys wait, and then go in one statement. A single read is
sent at once. A batch is sent after all its reads were asked for, so each read sees all writes that
were acknowledged before it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import NamedTuple

import msgspec

from tether.domain.errors import for_another
from tether.storage.engine import Row

Read = Callable[[str, int, str], Awaitable[list[Row]]]


class _Request(NamedTuple):
    key: str
    row: "asyncio.Future[Row | None]"


@lru_cache
def for_each_key(sql: str) -> str:
    """Turns a statement for one key $2 into one for all keys of a JSON object $2.

    OFFSET 0 keeps the planner from turning it into a join, which might begin at the wrong end.
    """
    each = sql.replace("$2", "asked.key")  # no statement has a table of this name
    return f"SELECT asked.key, x.* FROM jsonb_each($2) asked CROSS JOIN LATERAL ({each} OFFSET 0) x"


class BatchLoader:
    """Loads rows by key, in batches by statement and partner."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._waiting: dict[tuple[str, int], list[_Request]] = {}
        self._readers: set[asyncio.Task[None]] = set()

    def look_up(self, sql: str, partner: int, key: str) -> "asyncio.Future[Row | None]":
        """The row of the key; None if there is none."""
        request = _Request(key, asyncio.get_running_loop().create_future())
        waiting = self._waiting.get((sql, partner))
        if waiting is None:
            self._waiting[sql, partner] = [request]
            reader = asyncio.create_task(self._read_all(sql, partner))
            self._readers.add(reader)
            reader.add_done_callback(self._readers.discard)
        else:
            waiting.append(request)
        return request.row

    async def _read_all(self, sql: str, partner: int) -> None:
        """Reads until no request waits."""
        batch: list[_Request] = []
        try:
            while batch := self._waiting[sql, partner]:
                self._waiting[sql, partner] = []
                keys = msgspec.json.encode(dict.fromkeys((key for key, _ in batch), 0)).decode()
                rows = await self._read(for_each_key(sql), partner, keys)
                found: dict[str, Row] = {key: row for key, *row in rows}
                for key, row in batch:
                    if not row.done():  # the client may be gone
                        row.set_result(found.get(key))
        except Exception as error:
            # The requests that came since would only wait as long again.
            for _, row in [*batch, *self._waiting[sql, partner]]:
                if not row.done():
                    row.set_exception(for_another(error))
        del self._waiting[sql, partner]
