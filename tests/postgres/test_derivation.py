"""Several workers derive the same sessions, while they are killed and PostgreSQL is restarted."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil
import pytest

from tests.conftest import Server
from tests.derivation.helpers import read_all
from tests.derivation.load import Load, derived
from tests.postgres.load import Load as EventLoad
from tests.postgres.load import endless
from tests.services import Postgres, create_database
from tests.sql import query
from tests.wire import Partner, pid_of, run, until


@dataclass
class Follower:
    """Follows the changes of the sessions of a partner, and keeps the last that it saw of each."""

    client: httpx.AsyncClient
    seen: dict[str, dict[str, Any]] = field(default_factory=dict)
    stamps: list[str] = field(default_factory=list)

    async def run(self, enough: Callable[[], bool]) -> None:
        """Follows until `enough` says so when an empty page came."""
        url = "/sessions?updatedFrom=2026-01-01T00:00:00Z&limit=200"
        while True:
            last = enough()
            try:
                answer = await self.client.get(url)
            except httpx.TransportError:
                await asyncio.sleep(0.05)
                continue
            if answer.status_code == 503:
                await asyncio.sleep(0.05)
                continue
            assert answer.status_code == 200, answer.text
            page = answer.json()
            for session in page:
                before = self.seen.get(session["id"])
                assert before is None or before["version"] < session["version"]
                self.seen[session["id"]] = session
                self.stamps.append(session["updatedAt"])
            if page:
                url = answer.links["next"]["url"]
            elif last:
                return
            await asyncio.sleep(0.05)


def check(load: Load, follower: Follower, database: str) -> None:
    sessions, _ = run(derived(database))
    with load.server.client(load.key) as client:
        stored = {session["id"]: session for session in read_all(client, "/sessions")}
    assert len(stored) == sessions > 100
    assert follower.stamps == sorted(follower.stamps)
    live = {id: one for id, one in follower.seen.items() if one["status"] != "removed"}
    assert {id: (one["version"], one["updatedAt"]) for id, one in live.items()} == {
        id: (one["version"], one["updatedAt"]) for id, one in stored.items()
    }, "a follower has the last of all, and of nothing else"


def test_a_follower_of_the_changes_misses_nothing_while_workers_are_killed(
    database: str, node: Callable[..., Server]
) -> None:
    server = node("--workers", "3", database=database)
    load = Load(server, vehicles=200)
    supervisor = psutil.Process(pid_of(server))
    done = False

    async def kill() -> None:
        for _ in range(3):
            await asyncio.sleep(random.uniform(0.3, 0.8))
            if len(workers := supervisor.children()) > 1:
                random.choice(workers).kill()

    async def main() -> Follower:
        nonlocal done
        async with httpx.AsyncClient(
            base_url=server.url, headers={"x-api-key": load.key}, verify=False
        ) as client:
            follower = Follower(client)
            following = asyncio.create_task(follower.run(lambda: done))
            await asyncio.gather(load.run(), kill())
            done = True
            await following
        return follower

    check(load, run(main()), database)
    assert load.statuses == {201}


def test_a_restart_of_postgres_under_load_leaves_nothing_behind(
    own_postgres: Postgres, node: Callable[..., Server]
) -> None:
    database = create_database(own_postgres.url())
    server = node("--workers", "2", database=database)
    load = Load(server, vehicles=120)

    async def main() -> None:
        working = asyncio.create_task(load.run())
        await asyncio.sleep(0.5)
        await asyncio.to_thread(own_postgres.restart, "immediate")
        await working

    run(main())
    run(derived(database))
    assert load.statuses <= {201, 503}
    with server.client(load.key) as client:
        assert len(read_all(client, "/events")) == load.acknowledged


LEFT = """
SELECT (SELECT max(seq) FROM events) - (SELECT max(seq) FROM derivations)
"""


@pytest.mark.parametrize("killed", [0, 1])
def test_one_of_two_nodes_derives_and_the_other_takes_over_without_being_asked(
    killed: int, database: str, node: Callable[..., Server]
) -> None:
    servers = [node(database=database) for _ in range(2)]
    load = EventLoad(Partner(servers[1 - killed]), servers)

    async def main() -> None:
        working = asyncio.create_task(load.run(endless(), 16))
        await asyncio.sleep(1.5)
        servers[killed].kill()
        await asyncio.sleep(0.5)
        load.stop()
        await working
        await until(lambda: query(database, LEFT) == [(0,)], seconds=60)

    run(main())
    assert load.surprises == []
    assert servers[1 - killed].stop() == 0
