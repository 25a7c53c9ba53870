"""The order of events with many writers: a follower misses none and sees none twice."""

from collections.abc import Callable

import psycopg

from tests.conftest import Server
from tests.faults.rig import Partner, run
from tests.postgres.rig import Follower, Load, check_exactly_once, load_and_follow
from tests.store.test_contract import event, put_site
from tether.domain.models import to_json

EVENTS = 100_000
WRITERS = 4

COPY_IN = """
INSERT INTO events (partner, seq, id, type, charger_id, vehicle_id, at_ms, stamp, body)
SELECT partner, seq + 3, 'copy of ' || id, type, charger_id, vehicle_id, at_ms + 60000, 0, body
FROM events
"""


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


def test_events_follow_those_that_were_copied_in_behind_the_counter(
    database: str, node: Callable[..., Server]
) -> None:
    server = node(database=database)
    with server.client() as client:
        put_site(client)
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
