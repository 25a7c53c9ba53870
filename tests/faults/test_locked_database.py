"""Another process that locks the database for a long time stops only the writes."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.conftest import Server
from tests.faults.test_full_disk import is_refused
from tests.wire import Answer, Partner, Wire, many_files, run
from tether.storage.sqlite.file import connect

QUEUED = 3000  # six of the writer's batches: each must not wait the whole time-out in turn


@contextmanager
def locked(server: Server) -> Iterator[None]:
    """Another connection holds the write lock of the database meanwhile."""
    with closing(connect(Path(server.database))) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def writes_of(partner: Partner, count: int) -> list[bytes]:
    """Writes of all kinds."""
    body = b'{"chargePowers":[7]}'
    return [
        partner.post(number)
        if number % 6 == 0
        else partner.request("PUT", f"/chargers/N{number}", body)
        for number in range(count)
    ]


async def ask_all(wires: list[Wire], requests: list[bytes]) -> list[Answer]:
    return await asyncio.gather(
        *(wire.ask(request) for wire, request in zip(wires, requests, strict=True))
    )


def test_a_long_lock_stops_the_writes_only_and_those_are_answered_in_time(
    new_server: Callable[..., Server],
) -> None:
    server = new_server()
    partner = Partner(server)
    requests = writes_of(partner, QUEUED)

    async def scenario() -> None:
        wires = await asyncio.gather(*(Wire.to(server) for _ in requests))
        reading = await Wire.to(server)
        with locked(server):
            first = asyncio.create_task(wires[0].ask(requests[0]))
            for path in [
                "/health",
                "/ready",
                "/chargers/C1",
                "/events",
                "/events?vehicleId=V1",
            ] * 4:
                assert (await reading.ask(partner.request("GET", path))).status == 200
            assert not first.done(), "reads are answered while a write waits for the lock"
            assert is_refused(await first)
            async with asyncio.timeout(24):
                answers = await ask_all(wires, requests)
            assert all(map(is_refused, answers))
        answers = await ask_all(wires, requests)
        assert [answer.status for answer in answers] == [201] * len(requests)

    with many_files():
        run(scenario())
    assert len(partner.events()) == QUEUED // 6
    assert not any('"status":500' in line for line in server.log)


def test_a_short_lock_only_makes_the_writes_wait(new_server: Callable[..., Server]) -> None:
    server = new_server()
    partner = Partner(server)
    requests = writes_of(partner, 40)

    async def scenario() -> None:
        wires = await asyncio.gather(*(Wire.to(server) for _ in requests))
        with locked(server):
            writing = asyncio.create_task(ask_all(wires, requests))
            await asyncio.sleep(0.5)
            assert not writing.done()
        assert [answer.status for answer in await writing] == [201] * len(requests)

    run(scenario())
