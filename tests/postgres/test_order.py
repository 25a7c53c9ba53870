"""The order of events with many writers: a follower misses none and sees none twice."""

import asyncio
import random
from collections.abc import Callable

import psutil

from tests.conftest import Server
from tests.faults.rig import Partner, pid_of, run
from tests.postgres.rig import Follower, Load, check_exactly_once

EVENTS = 100_000
WRITERS = 4


async def load_and_follow(load: Load, follower: Follower) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(follower.run(lambda: len(load.answered) == EVENTS))
        await load.run(range(EVENTS), 96)


def test_a_follower_of_four_writing_processes_sees_every_event_once(
    database: str, node: Callable[..., Server]
) -> None:
    server = node("--workers", str(WRITERS), database=database)
    load = Load(Partner(server))
    follower = Follower(load.partner)
    run(load_and_follow(load, follower), 300)
    check_exactly_once(load, follower, EVENTS)
    assert load.statuses == {201: EVENTS}
    assert follower.requests > 200, "it did not follow, it read afterwards"
    assert server.stop() == 0


def test_it_does_while_writing_processes_are_killed_and_their_clients_try_again(
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
        await load_and_follow(load, follower)
        await killing

    run(main(), 300)
    assert killed >= 3
    check_exactly_once(load, follower, EVENTS)
    assert set(load.statuses) == {201}
    assert server.stop() == 0
