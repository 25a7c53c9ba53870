"""The order of events with many writers: a follower misses none and sees none twice."""

from collections.abc import Callable

from tests.conftest import Server
from tests.faults.rig import Partner, run
from tests.postgres.rig import Follower, Load, check_exactly_once, load_and_follow

EVENTS = 100_000
WRITERS = 4


def test_a_follower_of_four_writing_processes_sees_every_event_once(
    database: str, node: Callable[..., Server]
) -> None:
    server = node("--workers", str(WRITERS), database=database)
    load = Load(Partner(server))
    follower = Follower(load.partner)
    run(load_and_follow(load, follower, EVENTS), 300)
    check_exactly_once(load, follower, EVENTS)
    assert load.statuses == {201: EVENTS}
    assert follower.requests > 200, "it did not follow, it read afterwards"
    assert server.stop() == 0
