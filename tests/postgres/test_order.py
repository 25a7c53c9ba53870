"""The order of events with many writers: a follower misses none and sees none twice.

Not even while writing processes are killed and their clients try again.
"""

import asyncio
import random
from collections.abc import Callable

import psutil
import psycopg

from tests.conftest import Server
from tests.fleet import put_fleet
from tests.postgres.load import Follower, Load, check_exactly_once
from tests.store.test_contract import event
from tests.wire import Partner, pid_of, run
from tether.domain.models import to_json

EVENTS = 40_000
UNDISTURBED = 20_000
WRITERS = 4

COPY_IN = """
INSERT INTO events (partner, seq, id, type, charger_id, vehicle_id, at_ms, stamp, body)
SELECT partner, seq + 3, 'copy of ' || id, type, charger_id, vehicle_id, at_ms + 60000, 0, body
FROM events
"""


def test_a_follower_sees_every_event_once_also_while_writing_processes_are_killed(
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
            await asyncio.sleep(random.uniform(0.3, 0.8))
            workers = supervisor.children()
            if len(workers) > 1:
                random.choice(workers).kill()
                killed += 1

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(follower.run(lambda: len(load.answered) == EVENTS))
            await load.run(range(UNDISTURBED), 96)
            assert load.statuses == {201: UNDISTURBED}
            group.create_task(kill())
            await load.run(range(UNDISTURBED, EVENTS), 96)

    run(main(), 300)
    assert killed >= 3
    assert follower.requests > 2 * EVENTS // 1000, "it did not follow, it read afterwards"
    check_exactly_once(load, follower, EVENTS)
    assert set(load.statuses) == {201}
    assert server.stop() == 0


def test_events_follow_those_that_were_copied_in_behind_the_counter(
    database: str, node: Callable[..., Server]
) -> None:
    server = node(database=database)
    with server.client() as client:
        put_fleet(client)
        for second in range(3):
            client.post("/events", content=to_json(event(second))).raise_for_status()
        with psycopg.connect(database) as connection:
            connection.execute(COPY_IN)
        for second in range(3, 5):
            assert client.post("/events", content=to_json(event(second))).status_code == 201
        stamps = [one["timestamp"][17:19] for one in client.get("/events").json()]
        assert stamps == ["00", "01", "02", "00", "01", "02", "03", "04"]
    assert server.stop() == 0
    assert server.failures() == []
