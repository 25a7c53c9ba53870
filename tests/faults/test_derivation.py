"""Sessions are right after kill -9 at any moment between event and derivation."""

import asyncio
import random
from collections.abc import Callable

from tests.conftest import Server
from tests.derivation.load import Load, derived, rebuilt
from tests.sql import execute
from tests.wire import metric, run

KILLS = 10


def test_ten_kills_under_load_leave_what_a_rebuild_would_make(
    new_server: Callable[..., Server],
) -> None:
    server = new_server("--log-level", "warning")
    load = Load(server, vehicles=300)

    async def until_killed() -> None:
        load.stopped = False
        working = asyncio.create_task(load.run())
        await asyncio.sleep(random.uniform(0.05, 0.5))
        load.stopped = True
        server.kill()
        await working

    behind = 0
    for _ in range(KILLS):
        run(until_killed())
        _, differing, waiting = run(rebuilt(server.database))
        assert differing == [], "what is behind is right as far as it goes"
        behind += waiting > 0
        server.start()
    assert behind > 0, "some kill came between event and derivation"
    sessions, _ = run(derived(server.database))
    assert sessions > 100
    assert load.statuses == {201}
    assert server.failures() == []


def test_what_waits_is_derived_after_a_start_and_counted(
    new_server: Callable[..., Server],
) -> None:
    server = new_server("--log-level", "warning")
    load = Load(server, vehicles=50)
    run(load.run())
    server.stop()
    # As after an upgrade, or when events were copied in.
    for table in ("sessions", "session_versions", "derivations"):
        execute(server.database, f"DELETE FROM {table}")
    server.start()
    sessions, _ = run(derived(server.database))
    assert sessions > 50
    with server.client(load.key) as client:
        assert metric(client.get("/metrics").text, "tether_derivation_failures_total") == 0
        assert "tether_derivation_waiting_events" in client.get("/metrics").text
