"""PostgreSQL restarts, freezes or goes away, and so do clients."""

import asyncio
import time
from collections.abc import Callable

import psutil

from tests.conftest import Server
from tests.postgres.load import Follower, Load, check_exactly_once, endless, sessions
from tests.services import Postgres
from tests.sql import query
from tests.wire import Partner, Wire, many_files, pid_of, run, until

POOL = 4


def settled(url: str) -> bool:
    """The pool is not too large, and all its connections are idle."""
    found = sessions(url)
    return len(found) <= POOL and all(
        state == "idle" and started is None for _, state, started in found
    )


async def follow(partner: Partner, load: Load) -> Follower:
    """The events that a follower sees after the load."""
    follower = Follower(partner)
    await follower.run(lambda: True)
    check_exactly_once(load, follower, len(load.answered))
    return follower


def test_a_restart_under_load_loses_nothing_and_is_over_in_seconds(
    own_postgres: Postgres, node: Callable[..., Server]
) -> None:
    database = own_postgres.new_database()
    server = node("--pool-size", str(POOL), database=database)
    load = Load(Partner(server))

    async def main() -> None:
        working = asyncio.create_task(load.run(endless(), 32))
        await asyncio.sleep(3)
        before = time.monotonic()
        await asyncio.to_thread(own_postgres.restart)
        back = time.monotonic()
        await until(lambda: load.rate(back, back + 5) > 0)
        # Half of the speed will do, and not in each second: machines have other things to do.
        speed = load.rate(before - 2, before)
        await until(lambda: load.rate(time.monotonic() - 1, time.monotonic()) > 0.5 * speed)
        load.stop()
        await working
        assert set(load.statuses) == {201, 503}
        assert load.surprises == []
        await follow(load.partner, load)
        await until(lambda: settled(database))

    run(main())
    assert server.failures() == []
    assert server.stop() == 0


def test_a_restart_in_a_quiet_moment_is_not_even_noticed(
    own_postgres: Postgres, node: Callable[..., Server]
) -> None:
    server = node("--pool-size", str(POOL), database=own_postgres.new_database())
    partner = Partner(server)

    async def main() -> None:
        wires = [await Wire.to(server) for _ in range(8)]
        for first in (0, 8, 16):
            answers = await asyncio.gather(
                *(wire.ask(partner.post(first + n)) for n, wire in enumerate(wires))
            )
            assert [answer.status for answer in answers] == [201] * 8
            await asyncio.to_thread(own_postgres.restart)
        assert (await wires[0].ask(partner.request("GET", "/events"))).status == 200

    run(main())
    assert server.stop() == 0


def test_a_database_that_is_away_is_answered_at_once_and_used_when_it_is_back(
    own_postgres: Postgres, node: Callable[..., Server]
) -> None:
    server = node("--pool-size", str(POOL), database=own_postgres.new_database())
    partner = Partner(server)
    requests = [
        partner.post(1),
        partner.request("GET", "/chargers/C1"),
        partner.request("GET", "/events"),
        partner.request("PUT", "/vehicles/V2", b'{"chargeCapacity":1,"chargePowers":[1]}'),
        partner.request("GET", "/ready"),
    ]

    async def main() -> None:
        wire = await Wire.to(server)
        own_postgres.stop()
        started = time.monotonic()
        for request in requests * 4:
            answer = await wire.ask(request)
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert answer.json() == {"message": "Service Unavailable"}
        assert (await wire.ask(partner.request("GET", "/health"))).status == 200
        assert time.monotonic() - started < 5
        own_postgres.start()
        for request in requests:
            assert (await wire.ask(request)).status in (200, 201)

    run(main())
    assert server.stop() == 0


def test_reads_that_share_a_statement_fail_together_and_recover_together(
    own_postgres: Postgres, server_with_constants: Callable[..., Server]
) -> None:
    server = server_with_constants(
        "tether.storage.postgres.engine.READ_TIMEOUT_S=2",
        "tether.storage.postgres.engine.PING_TIMEOUT_S=1",
        options=("--pool-size", str(POOL)),
        database=own_postgres.new_database(),
    )
    partner = Partner(server)
    # States take turns, and none of them has the answer of another.
    paths = ["/chargers/C1", "/vehicles/V1"] * 29 + ["/vehicles/V1/state", "/chargers/C1/state"]

    async def main() -> None:
        wires = [await Wire.to(server) for _ in paths]

        async def statuses() -> set[int]:
            requests = (partner.request("GET", path) for path in paths)
            asked = zip(wires, requests, strict=True)
            answers = await asyncio.gather(*(wire.ask(request) for wire, request in asked))
            return {answer.status for answer in answers}

        assert await statuses() == {200}
        own_postgres.stop()
        assert await statuses() == {503}
        own_postgres.start()
        assert await statuses() == {200}
        with own_postgres.frozen():
            started = time.monotonic()
            ready = await Wire.to(server)
            assert (await ready.ask(partner.request("GET", "/ready"))).status == 503
            assert time.monotonic() - started < 5  # not what the driver takes to give it up
            assert await statuses() == {503}
            assert time.monotonic() - started < 15  # 2 s and what the driver takes to give it up
            assert (await ready.ask(partner.request("GET", "/ready"))).status == 503
        assert await statuses() == {200}
        assert (await ready.ask(partner.request("GET", "/ready"))).status == 200

    run(main())
    assert server.failures() == []
    assert server.stop() == 0


def test_a_database_that_stands_still_holds_no_request_for_long(
    own_postgres: Postgres, server_with_constants: Callable[..., Server]
) -> None:
    database = own_postgres.new_database()
    server = server_with_constants(
        "tether.storage.postgres.engine.READ_TIMEOUT_S=2",
        "tether.storage.postgres.engine.WRITE_TIMEOUT_S=2",
        options=("--pool-size", str(POOL), "--log-level", "warning"),
        database=database,
    )
    load = Load(Partner(server))

    async def main() -> None:
        await load.run(range(200), 32)
        with own_postgres.frozen():
            working = asyncio.create_task(load.run(endless(200), 32))
            end = time.monotonic() + 6
            wire = await Wire.to(server)
            while time.monotonic() < end:
                started = time.monotonic()
                assert (await wire.ask(load.partner.request("GET", "/health"))).status == 200
                assert time.monotonic() - started < 5
                await asyncio.sleep(0.5)
        thawed = time.monotonic()
        await until(lambda: load.rate(thawed + 3, thawed + 6) > 0)
        load.stop()
        await working
        assert load.statuses[503] > 0
        assert load.surprises == []
        assert load.slowest_s < 15  # 2 s and what the driver takes to give a statement up
        await follow(load.partner, load)
        await until(lambda: settled(database))

    run(main())
    assert server.failures() == []
    assert server.stop() == 0


def test_a_thousand_clients_that_hang_up_leave_nothing_open(
    own_postgres: Postgres, node: Callable[..., Server]
) -> None:
    database = own_postgres.new_database()
    server = node("--pool-size", str(POOL), database=database)
    partner = Partner(server)
    process = psutil.Process(pid_of(server))

    async def hang_up(number: int) -> None:
        wire = await Wire.to(server)
        if number % 3 == 0:
            wire.send(partner.post(number))
        elif number % 3 == 1:
            wire.send(partner.request("GET", "/events?type=VEHICLE_CONNECTED"))
        else:
            wire.send(partner.request("PUT", "/chargers/C1", b'{"chargePowers":[22]}'))
        await asyncio.sleep(number % 7 * 0.002)
        wire.reset()

    async def main() -> None:
        await Load(partner).run(range(5000, 5100), 16)
        files = process.num_fds()
        for first in range(0, 1000, 200):
            await asyncio.gather(*(hang_up(number) for number in range(first, first + 200)))
        await until(lambda: settled(database))
        await until(lambda: process.num_fds() <= files + POOL)
        # The server may still derive, so for a moment a transaction may be open.
        blocked = "SELECT 1 FROM pg_stat_activity WHERE state LIKE 'idle in%'"
        await until(lambda: query(database, blocked) == [])
        load = Load(partner)
        await load.run(range(6000, 6200), 32)
        assert load.statuses == {201: 200}
        await until(lambda: settled(database))

    with many_files():
        run(main())
    assert server.failures() == []
    assert server.stop() == 0
