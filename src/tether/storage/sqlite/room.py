"""The room of deleted rows in a SQLite file, which is written anew, or gives some pages back."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import apsw

from tether.storage.sqlite.file import connect

INCREMENTAL = 2  # of PRAGMA auto_vacuum
# Pages are given back when more than this part of the file is free, until so much is left for what
# comes: else the file would shrink and grow all the time.
MOST_FREE, LEFT_FREE = 0.1, 0.05
LEAST_FREE_PAGES = 2_000
PAGES_AT_ONCE = 100  # for which others wait
PAUSE_S = 0.01
SCRUB_TRIES = 12


def give_back(most: float, writer: apsw.Connection, _: Sequence[object]) -> bool:
    """Gives some pages back if more than this part of all is free; returns whether it did."""
    mode, pages, free = (
        int(str(writer.execute(f"PRAGMA {name}").fetchall()[0][0]))
        for name in ("auto_vacuum", "page_count", "freelist_count")
    )
    if mode != INCREMENTAL or free <= max(most * pages, LEAST_FREE_PAGES):
        return False
    writer.execute(f"PRAGMA incremental_vacuum({PAGES_AT_ONCE})").fetchall()
    return True


async def shrink(give_back_some: Callable[[float], Awaitable[bool]]) -> bool:
    """Has pages given back until few are free, if many are; returns whether any were.

    `give_back_some` is told more than which part of the file must be free.
    """
    most, shrunk = MOST_FREE, False
    while await give_back_some(most):
        most, shrunk = LEFT_FREE, True
        await asyncio.sleep(PAUSE_S)
    return shrunk


def copy_log(path: Path) -> None:
    """Brings what is in the log into the file, as far as nobody has to wait for it."""
    connection = connect(path)
    try:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    finally:
        connection.close()


def write_anew(path: Path) -> None:
    """Leaves nothing in the file, or its log, of what was deleted. Raises BusyError."""
    connection = connect(path)
    try:
        connection.execute("PRAGMA temp_store = FILE")  # it may be larger than the memory
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # also if it was made without
        _insist(lambda: connection.execute("VACUUM").fetchall())
        # What was in the log is in the file then, and nothing in the log.
        _insist(lambda: _empty_log(connection))
    finally:
        connection.close()


def _empty_log(connection: apsw.Connection) -> None:
    ((busy, _, _),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    if busy:
        raise apsw.BusyError("somebody reads what is in the log")


def _insist(run: Callable[[], Any]) -> None:
    """Runs it until it meets nobody who reads or writes. Raises BusyError if that takes long."""
    for left in reversed(range(SCRUB_TRIES)):
        try:
            run()
            return
        except apsw.BusyError:  # after BUSY_TIMEOUT_MS
            if not left:
                raise
