"""Clients without a key cannot exceed the limits of the server, nor keep others out."""

import asyncio
from collections.abc import Callable
from time import perf_counter

import pytest

from tests.conftest import Server
from tests.wire import (
    CUT_OFF,
    Wire,
    address_of,
    cpu_seconds,
    many_files,
    memory_mb,
    metric,
    request_of,
    run,
    until,
)
from tether.domain.keys import new_key

SCRIPT = b"GET /static/scalar-api-reference.js HTTP/1.1\r\nhost: tether\r\n\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nhost: tether\r\n\r\n"
OPENAPI = b"GET /openapi.json HTTP/1.1\r\nhost: tether\r\n\r\n"
QUIET = ("--log-level", "warning")


def refused(server: Server, reason: str) -> int:
    """How many requests were refused for this reason."""
    with server.client(key="x") as client:
        return int(metric(client.get("/metrics").text, "tether_refused_total", reason=reason))


async def deaf(server: Server, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that sends requests, but reads almost nothing."""
    reader, writer = await asyncio.open_connection(*address_of(server), limit=1024)
    writer.write(request)
    return reader, writer


@pytest.mark.parametrize(
    "request_bytes",
    [SCRIPT, SCRIPT * 50, SCRIPT + HEALTH * 5000, OPENAPI * 40],
    ids=["script", "pipelined", "then many", "openapi"],
)
def test_answers_that_nobody_reads_take_little_memory_and_delay_nobody(
    new_server: Callable[..., Server], request_bytes: bytes
) -> None:
    server = new_server(*QUIET)
    with server.client(key="x") as client:
        client.get("/static/scalar-api-reference.js")
        client.get("/openapi.json")
    before = memory_mb(server)

    async def scenario() -> None:
        wires = await asyncio.gather(*(deaf(server, request_bytes) for _ in range(300)))
        await asyncio.sleep(1)
        good = await Wire.to(server)
        for _ in range(50):
            assert (await good.ask(HEALTH)).status == 200
        assert memory_mb(server) < before + 110
        for _, writer in wires:
            writer.transport.abort()

    with many_files():
        run(scenario())
    assert server.failures() == []


def test_those_who_read_least_lose_their_connection_when_too_much_waits(
    new_server: Callable[..., Server],
) -> None:
    server = new_server("--max-unread", "8", *QUIET)

    async def scenario() -> None:
        slow = await Wire.to(server)
        slow.send(SCRIPT)
        wires = []
        for _ in range(250):
            wires.append(await deaf(server, SCRIPT))
            if len(wires) % 10 == 0:  # this one reads, though slowly, and gets all of it
                await slow.reader.read(100_000)
        await until(lambda: refused(server, "unread") > 0)
        assert slow.reader.at_eof() is False
        for _, writer in wires:
            writer.transport.abort()

    with many_files():
        run(scenario())


def test_connections_beyond_the_bound_are_told_so_and_the_others_go_on(
    new_server: Callable[..., Server],
) -> None:
    server = new_server("--max-connections", "20", *QUIET)

    async def scenario() -> None:
        wires = [await Wire.to(server) for _ in range(20)]
        for wire in wires:
            assert (await wire.ask(HEALTH)).status == 200
        late = await Wire.to(server)
        answer = await late.ask(HEALTH)
        assert (answer.status, answer.json()) == (503, {"message": "Service Unavailable"})
        assert answer.headers["retry-after"] == "1"
        crowd = [await Wire.to(server) for _ in range(300)]
        await asyncio.gather(*(wire.reader.read() for wire in crowd), return_exceptions=True)
        for wire in wires:
            assert (await wire.ask(HEALTH)).status == 200
        for wire in [*crowd, late, *wires[:10]]:
            wire.writer.close()

        async def works() -> bool:
            wire = await Wire.to(server)
            try:
                return (await wire.ask(HEALTH)).status == 200
            except CUT_OFF:
                return False
            finally:
                wire.writer.close()

        async with asyncio.timeout(20):
            while not await works():  # noqa: ASYNC110 - it happens in another process
                await asyncio.sleep(0.1)

    with many_files():
        run(scenario())
    assert refused(server, "connections") >= 301


def test_nothing_is_kept_of_what_is_no_key(new_server: Callable[..., Server]) -> None:
    server = new_server(*QUIET)
    with server.client(key="x") as client:
        client.get("/events")
        before = memory_mb(server)
        for number in range(200):
            for key in (f"{number:060000}", f"ttr_live_{number:036}", new_key()):
                answer = client.get("/events", headers={"x-api-key": key})
                assert answer.status_code == 403
    assert memory_mb(server) < before + 15


def test_made_up_keys_of_the_right_form_delay_no_real_one(server: Server) -> None:
    key = server.key()
    made_up = [new_key() for _ in range(2000)]

    async def make_up(done: asyncio.Event, number: int) -> None:
        wire = await Wire.to(server)
        while not done.is_set():
            number = (number + 1) % len(made_up)
            answer = await wire.ask(request_of("GET", "/events", made_up[number]))
            assert answer.status == 403

    async def scenario() -> None:
        done = asyncio.Event()
        good = await Wire.to(server)
        assert (await good.ask(request_of("GET", "/chargers", key))).status == 200
        crowd = [asyncio.create_task(make_up(done, 10 * number)) for number in range(150)]
        took = []
        for _ in range(30):  # three seconds: the key is read again some times
            began = perf_counter()
            assert (await good.ask(request_of("GET", "/chargers", key))).status == 200
            took.append(perf_counter() - began)
            await asyncio.sleep(0.1)
        done.set()
        await asyncio.gather(*crowd)
        assert max(took) < 5
        assert sorted(took)[len(took) // 2] < 1

    with many_files():
        run(scenario())


@pytest.mark.parametrize(
    "header",
    [b'Cookie: a="' + b'\\"' * 30_000 + b'"', b'Forwarded: host="' + b'\\"' * 30_000 + b'"'],
    ids=["cookie", "forwarded"],
)
def test_quotes_in_a_header_cost_little(server: Server, header: bytes) -> None:
    request = b"GET /console HTTP/1.1\r\nhost: tether\r\n%s\r\n\r\n" % header

    async def scenario() -> None:
        wire = await Wire.to(server)
        for _ in range(20):
            assert (await wire.ask(request)).status == 303

    before = cpu_seconds(server)
    run(scenario())
    assert (cpu_seconds(server) - before) / 20 < 0.1  # it was 3 s
