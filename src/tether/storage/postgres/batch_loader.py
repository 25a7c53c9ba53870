"""Reads by key that are asked for together become one statement, on PostgreSQL.

There a statement costs the server process more than all the rest of a request, however little it
reads. So, as the intake does with events: while the rows of some keys are being read, the next keys
gather, and then all of them go in one statement. A lone read goes at once. A batch is sent after
everybody in it has asked, so whoever was told of a write before it asked finds it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import NamedTuple

import msgspec

from tether.domain.errors import for_another
from tether.storage.engine import Row

Read = Callable[[str, int, str], Awaitable[list[Row]]]


class _Question(NamedTuple):
    key: str
    answer: "asyncio.Future[Row | None]"


@lru_cache
def for_each_key(sql: str) -> str:
    """The statement, which finds a row for the key $2, for each key of a JSON object $2.

    OFFSET 0 keeps the planner from making a join of it, which might begin at the wrong end: so it
    has the plan that it has by itself.
    """
    each = sql.replace("$2", "asked.key")  # no statement has a table of this name
    return f"SELECT asked.key, x.* FROM jsonb_each($2) asked CROSS JOIN LATERAL ({each} OFFSET 0) x"


class BatchLoader:
    """Loads rows by key: those that are asked for meanwhile together, by statement and partner."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._waiting: dict[tuple[str, int], list[_Question]] = {}
        self._readers: set[asyncio.Task[None]] = set()

    def look_up(self, sql: str, partner: int, key: str) -> "asyncio.Future[Row | None]":
        """The row of the key, None if there is none."""
        question = _Question(key, asyncio.get_running_loop().create_future())
        waiting = self._waiting.get((sql, partner))
        if waiting is None:
            self._waiting[sql, partner] = [question]
            reader = asyncio.create_task(self._read_all(sql, partner))
            self._readers.add(reader)
            reader.add_done_callback(self._readers.discard)
        else:
            waiting.append(question)
        return question.answer

    async def _read_all(self, sql: str, partner: int) -> None:
        """Reads until nobody asks any more."""
        batch: list[_Question] = []
        try:
            while batch := self._waiting[sql, partner]:
                self._waiting[sql, partner] = []
                keys = msgspec.json.encode(dict.fromkeys((key for key, _ in batch), 0)).decode()
                rows = await self._read(for_each_key(sql), partner, keys)
                found = {key: row for key, *row in rows}
                for key, answer in batch:
                    if not answer.done():  # the client may be gone
                        answer.set_result(found.get(key))
        except Exception as error:
            # What came behind it meanwhile would only wait as long again.
            for _, answer in [*batch, *self._waiting[sql, partner]]:
                if not answer.done():
                    answer.set_exception(for_another(error))
        del self._waiting[sql, partner]
