"""The leader is lost under load, twice: no acknowledged event is lost, and the outage is short."""

import asyncio
import time

from tests.conftest import Server
from tests.drills.cluster import Member, running_cluster, wait_until
from tests.postgres.load import Follower, Load, check_exactly_once, endless
from tests.services import create_database
from tests.wire import Partner, run

BACK_WITHIN_S = 30


def test_a_lost_leader_is_replaced_and_nothing_acknowledged_is_lost() -> None:
    with running_cluster() as members:
        database = create_database(f"postgresql://postgres@127.0.0.1:{members[0].port}/postgres")
        name = database.rpartition("/")[2]
        hosts = ",".join(f"127.0.0.1:{member.port}" for member in members)
        url = f"postgresql://postgres@{hosts}/{name}?target_session_attrs=read-write"
        server = Server(url, ["--workers", "2", "--log-level", "warning"]).start()
        load = Load(Partner(server))
        try:
            run(report_while_leaders_are_lost(load, members), 600)
        finally:
            failures = server.failures()
            server.kill()
        assert failures == []
        assert set(load.statuses) <= {201, 503}


async def report_while_leaders_are_lost(load: Load, members: list[Member]) -> None:
    working = asyncio.create_task(load.run(endless(), 24))
    for lost, other in (members, reversed(members)):
        await asyncio.to_thread(wait_until, lost.is_leader, members)
        await asyncio.to_thread(wait_until, other.is_synchronous, members)
        await asyncio.sleep(3)
        before = len(load.answered)
        killed = time.monotonic()
        await asyncio.to_thread(lost.kill)
        await asyncio.sleep(0.5)  # for answers that were on their way
        at_once = load.times[-1]
        while load.times[-1] <= max(at_once, killed + 0.5):
            assert time.monotonic() < killed + 120, "nothing was stored after the leader was lost"
            await asyncio.sleep(0.05)
        back = load.times[-1] - killed
        print(f"{before} events; back after {back:.1f} s")
        assert back < BACK_WITHIN_S
        await asyncio.to_thread(lost.start)  # it comes back as the standby
    load.stop()
    await working
    follower = Follower(load.partner)
    await follower.run(lambda: True)
    check_exactly_once(load, follower, len(load.answered))
    print(f"{len(load.answered)} events acknowledged, each there once; {load.statuses}")
