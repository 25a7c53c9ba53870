"""SQLite files give the space of deleted data back, while others write."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.commands import Command
from tether.domain.partners import Partner
from tether.domain.timestamps import DAY_MS
from tether.server.databases import database_of
from tether.server.store import Store, open_store
from tether.storage.refused_requests import RefusedRequest

ROWS, BODY = 3_000, "y" * 8_000


async def filled(store: Store) -> None:
    """Fills the file with about 25 MB that are deleted later."""
    for start in range(0, ROWS, 500):
        made = [
            RefusedRequest(10**12 + number, str(number), "", "GET", "/", 404, 1, "x", "", BODY)
            for number in range(start, start + 500)
        ]
        await store.refused_requests.add(1, made, 10**12)


def pragma(path: Path, name: str) -> int:
    with contextlib.closing(apsw.Connection(str(path))) as connection:
        return int(str(connection.execute(f"PRAGMA {name}").fetchall()[0][0]))


@pytest.mark.parametrize("old", [False, True])
def test_the_file_gets_smaller_and_an_old_one_when_it_is_written_anew(
    tmp_path: Path, old: bool
) -> None:
    command = Command(tmp_path, str(tmp_path / "tether.db"))
    path = Path(command.database)
    if old:  # as earlier versions made them
        with contextlib.closing(apsw.Connection(str(path))) as connection:
            connection.execute("PRAGMA application_id = 0x54455448; CREATE TABLE x (y)")
            connection.execute("DROP TABLE x")
    database_of(command.database).migrate()

    async def work() -> Any:
        async with open_store(command.database) as store:
            await store.partners.add(Partner(1, "acme", 0))
            await filled(store)
            await store.refused_requests.delete_old(1, 10**12 + 100 * DAY_MS)
            full = pragma(path, "page_count")
            shrinking = asyncio.create_task(store.engine.shrink())
            writes = 0
            while not shrinking.done():
                await store.retention.set(1, {"attempts_ms": writes * DAY_MS})
                writes += 1
            await shrinking
            shrunk = pragma(path, "page_count")
            await store.engine.shrink()  # nothing is left to do, and some free space remains
            assert pragma(path, "page_count") == shrunk
            return full, shrunk, writes

    full, shrunk, writes = asyncio.run(work())
    assert command.ok("check", "--full")
    if old:
        assert (pragma(path, "auto_vacuum"), shrunk) == (0, full)
        command.ok("partners", "delete", "acme", "--yes")
        assert pragma(path, "auto_vacuum") == 2
        return
    assert writes > 1
    assert shrunk < full / 2
    command.ok("backup", "copy.db")
    command.ok("restore", "copy.db")
    assert pragma(path, "auto_vacuum") == 2
    assert path.stat().st_size < 4096 * (full + shrunk) / 2
