"""Hostile bodies are limited before they are read: memory stays low, and others are served."""

import asyncio
import gzip
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from time import monotonic

import pytest

from tests.conftest import Server
from tests.faults.test_locked_database import locked
from tests.wire import (
    POWERS,
    Partner,
    Wire,
    ask_at_once,
    cpu_seconds,
    event,
    head_of,
    memory_mb,
    peak_mb,
    request_of,
    run,
)

MIB = 1024 * 1024
LONGEST_WAIT_S = 1.0  # on a busy machine; by itself it is some 20 ms
GROWTH_MB = 25
PEAK_MB = 150
MANY, WAIT = 150, 108  # bodies of a partner; of those, 8 arrive and 100 wait for their turn
GZIP = "content-encoding: gzip"
WRONG = b'{"type":"X","chargerId":"C1","vehicleId":"V1","timestamp":"2023-05-11T22:06:40.738Z"}\n'
LONG_LINE = b'{"a":"' + b"x" * (8 * MIB - 10)
# Each would make millions of objects, or take quadratic time.
HOSTILE = {
    "one long line": LONG_LINE,
    "a line of commas": b'{"a":[' + b"," * (8 * MIB - 10),
    "an array of numbers": b"[" + b"1," * (4 * MIB - 10) + b"1]",
    "an array in an array": b"[[" + b"1," * (4 * MIB - 10) + b"1]]",
    "an array of empty arrays": b"[" + b"[]," * 2_700_000 + b"[]]",
    "an array of brackets": b"[" + (b"[" + b"[]," * 20_000 + b"[]],") * 130 + b"[]]",
    "an array of long strings": b'["' + b'\\"' * (4 * MIB - 10),
    "an array of blanks": b"[1" + b" " * (8 * MIB - 10),
    "empty lines": b"\n" * (8 * MIB),
    "short lines": b"1\n" * (4 * MIB),
    "lines of commas": (b'{"type":[' + b"1," * 400 + b"1]}\n") * 9_000,
    "lines of escapes": (b'{"type":"' + b"\\u0041" * 130 + b'"}\n') * 9_900,
    "wrong events": WRONG * 10_000,
}


@pytest.fixture(scope="module")
def partner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Partner]:
    """A partner of a server in which nothing frees what refers to itself: all these tests' together
    leave no more than one of them may.
    """
    server = Server(
        str(tmp_path_factory.mktemp("uncollected") / "tether.db"),
        ["--log-level", "warning"],
        program=[sys.executable, str(Path(__file__).with_name("without_collector.py"))],
    )
    yield Partner(server.start())
    assert server.failures() == []
    assert server.stop() == 0


def bulk(partner: Partner, body: bytes) -> bytes:
    """A bulk request with this body, compressed."""
    return partner.request("POST", "/events/bulk", gzip.compress(body, 1), GZIP)


async def longest_wait(server: Server, requests: list[bytes]) -> float:
    """The longest time in seconds that another client waits for an answer meanwhile."""
    wire, longest = await Wire.to(server), 0.0
    answering = asyncio.create_task(ask_at_once(server, requests))
    while not answering.done():
        asked = monotonic()
        answer = await wire.ask(request_of("GET", "/health", ""))
        longest = max(longest, monotonic() - asked)
        assert answer.status == 200
        await asyncio.sleep(0.001)
    for answer in await answering:
        assert answer.status in (200, 400, 413), answer.body[:200]
    return longest


@pytest.mark.parametrize("what", HOSTILE)
def test_one_body_stops_nobody_and_leaves_nothing(partner: Partner, what: str) -> None:
    request = bulk(partner, HOSTILE[what])
    run(ask_at_once(partner.server, [request] * 2))  # memory that is allocated once is not growth
    before = memory_mb(partner.server)
    assert run(longest_wait(partner.server, [request] * 6)) < LONGEST_WAIT_S
    assert memory_mb(partner.server) < before + GROWTH_MB
    assert peak_mb(partner.server) < PEAK_MB


def test_good_events_that_cannot_be_stored_leave_nothing(partner: Partner) -> None:
    request = bulk(partner, b"\n".join(map(event, range(10_000))))

    async def scenario() -> None:
        for _ in range(2):
            answers = await ask_at_once(partner.server, [request] * 2)
            assert {answer.status for answer in answers} == {503}

    with locked(partner.server):
        run(scenario())
        before = memory_mb(partner.server)
        for _ in range(3):
            run(scenario())
    assert memory_mb(partner.server) < before + GROWTH_MB


def test_events_that_are_refused_one_by_one_leave_nothing(partner: Partner) -> None:
    """An error keeps its body in memory as long as it exists."""
    padded = event(1).ljust(60_000)
    requests = [
        partner.request("POST", "/events", padded),
        partner.request("POST", "/events", event(2, vehicle="unknown").ljust(60_000)),
        partner.request("POST", "/events", b'{"type":"X"}'.ljust(60_000)),
        partner.request("PUT", "/chargers/N", b'{"chargePowers":[7]}'.ljust(60_000)),
    ] * 50

    with locked(partner.server):
        run(ask_at_once(partner.server, requests))
        before = memory_mb(partner.server)
        for _ in range(4):
            answers = run(ask_at_once(partner.server, requests))
            assert {answer.status for answer in answers} == {400, 503}
    assert memory_mb(partner.server) < before + GROWTH_MB


def test_texts_of_a_mebibyte_are_not_remembered(partner: Partner) -> None:
    for number in range(80):
        body = (
            b'{"type":"VEHICLE_CONNECTED","chargerId":"C1","vehicleId":"V1","timestamp":"%d'
            % number
        )
        answer = partner.client.post("/events", content=body + b"x" * (MIB - 200) + b'"}')
        assert answer.status_code == 400
    assert memory_mb(partner.server) < PEAK_MB


def test_large_bodies_of_the_other_calls_stop_nobody(partner: Partner) -> None:
    fill = MIB - 40
    bodies = [
        b'{"chargePowers":[11' + b" " * fill + b",]}",
        b'{"a":[' + b"," * fill,
        b'{"a":[' + b"1," * (fill // 2) + b"1]}",
        b'{"a":"' + b"\\\\" * (fill // 2) + b'",}',
        b'{"a":' + b"[]," * (fill // 3) + b"}",
        b"{" + b",".join(b'"%d":1' % number for number in range(80_000)) + b"}",
        b'{"chargePowers":[' + b"1" * fill + b"]}",
    ]
    calls = [("PUT", "/chargers/C1"), ("PATCH", "/vehicles/V1"), ("POST", "/events")]
    requests = [partner.request(*call, body) for body in bodies for call in calls]
    before = memory_mb(partner.server)
    assert run(longest_wait(partner.server, requests * 2)) < LONGEST_WAIT_S
    assert memory_mb(partner.server) < before + GROWTH_MB
    assert peak_mb(partner.server) < PEAK_MB


def test_a_few_bytes_of_commas_cost_little(partner: Partner) -> None:
    commas = gzip.compress(b"," * 65_000, 9)
    assert len(commas) < 120
    request = partner.request("PUT", "/chargers/C1", commas, GZIP)

    async def scenario() -> None:
        wire = await Wire.to(partner.server)
        for _ in range(200):
            assert (await wire.ask(request)).status == 400

    before = cpu_seconds(partner.server)
    run(scenario())
    assert (cpu_seconds(partner.server) - before) / 200 < 0.005  # it was 0.019


def test_bodies_that_never_end_take_little_and_keep_no_other_partner_waiting(
    partner: Partner,
) -> None:
    other = Partner(partner.server)
    before = memory_mb(partner.server)

    async def scenario() -> None:
        wires = [await Wire.to(partner.server) for _ in range(120)]
        for place, wire in enumerate(wires):
            path, size = (("/events/bulk", 8 * MIB), ("/events", MIB))[place % 2]
            wire.send(head_of("POST", path, partner.key, size) + b" " * (size - 1))
        await asyncio.sleep(1)
        good = await Wire.to(partner.server)
        async with asyncio.timeout(20):
            for number in range(10):
                line = event(number)
                assert (await good.ask(bulk(other, line))).status == 200
                assert (await good.ask(other.post(number, vehicle="V1"))).status == 201
                padded = other.request("PUT", "/chargers/C1", POWERS.ljust(100_000))
                assert (await good.ask(padded)).status == 200
        for wire in wires:
            wire.reset()

        assert memory_mb(partner.server) < before + 100

    run(scenario())
    assert peak_mb(partner.server) < before + 200


def test_of_a_partner_so_many_bodies_wait_and_no_more(partner: Partner) -> None:
    fresh = Partner(partner.server)  # no body of another test still waits there

    async def scenario() -> None:
        wires = [await Wire.to(fresh.server) for _ in range(MANY)]
        for wire in wires:
            wire.send(head_of("POST", "/events/bulk", fresh.key, MIB) + b" " * 1000)
        # The server may read them in any order.
        answers = [asyncio.create_task(wire.answer()) for wire in wires]
        refused = [await answer for answer in islice(asyncio.as_completed(answers), MANY - WAIT)]
        for answer in refused:
            assert answer.status == 429
            assert int(answer.headers["retry-after"]) >= 1
        assert sum(not task.done() for task in answers) == WAIT
        for task, wire in zip(answers, wires, strict=True):
            task.cancel()
            wire.reset()
        again = await Wire.to(fresh.server)
        assert (await again.ask(bulk(fresh, event(1)))).status == 200

    run(scenario())
