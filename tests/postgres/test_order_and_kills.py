"""The order of events holds while writing processes are killed and their clients try again."""

import asyncio
import random
from collections.abc import Callable

import psutil

from tests.conftest import Server
from tests.faults.rig import Partner, pid_of, run
from tests.postgres.rig import Follower, Load, check_exactly_once, load_and_follow

EVENTS = 100_000
WRITERS = 4


def test_a_follower_sees_every_event_once_while_writing_processes_are_killed(
    database: str, node: Callable[..., Server]
) -> None:
    server = node("--workers", str(WRITERS), database=database)
    load = Load(Partner(server))
    follower = Follower(load.partner)
    supervisor = psutil.Process(pid_of(server))
    killed = 0

    async def kill() -> None:
        nonlocal killed
        while len(load.answered) < EVENTS:
            await asyncio.sleep(random.uniform(1, 2.5))
            workers = supervisor.children()
            if len(workers) > 1:
                random.choice(workers).kill()
                killed += 1

    async def main() -> None:
        killing = asyncio.create_task(kill())
        await load_and_follow(load, follower, EVENTS)
        await killing

    run(main(), 300)
    assert killed >= 3
    check_exactly_once(load, follower, EVENTS)
    assert set(load.statuses) == {201}
    assert server.stop() == 0
