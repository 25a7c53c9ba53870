"""SIGTERM: open requests are answered, and the server ends in time."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.conftest import Server
from tests.wire import (
    CUT_OFF,
    Partner,
    Wire,
    check_integrity,
    event,
    head_of,
    pid_of,
    run,
    until,
)

CLIENTS = 32


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_every_request_under_way_is_answered_and_nothing_acknowledged_is_lost(
    number: signal.Signals, server_with_constants: Callable[..., Server]
) -> None:
    # Clients on a busy machine may take longer than LINGER_S to send their next request.
    server = server_with_constants("tether.server.protocol.LINGER_S=10")
    partner = Partner(server)
    partner.client.close()
    ids: list[str] = []
    bodies = iter(range(1_000_000))

    async def work() -> None:
        wire = await Wire.to(server)
        while True:
            answer = await wire.ask(partner.post(next(bodies)))
            assert answer.status == 201
            ids.append(answer.json()["id"])
            if answer.headers.get("connection") == "close":
                assert await wire.ended() == b""
                return

    async def scenario() -> None:
        working = [asyncio.create_task(work()) for _ in range(CLIENTS)]
        await asyncio.sleep(0.7)
        assert server.process is not None
        server.process.send_signal(number)
        await asyncio.gather(*working)

    run(scenario())
    assert server.process is not None
    assert server.process.wait(timeout=180) == 0
    server.start()
    partner.again()
    assert {found["id"] for found in partner.events()} == set(ids)
    check_integrity(server.database)
    partner.client.close()
    assert server.stop() == 0


async def begun(partner: Partner, body: bytes) -> Wire:
    """A connection with an incomplete request: this part of the body has arrived."""
    wire = await Wire.to(partner.server)
    expect = "expect: 100-continue"
    whole = len(event(1))
    assert (await wire.ask(head_of("POST", "/events", partner.key, whole, expect))).status == 100
    wire.send(body)
    return wire


async def told_to_stop(server: Server) -> None:
    """Returns when the server has begun to stop: it accepts no more connections."""
    assert server.process is not None
    server.process.terminate()
    async with asyncio.timeout(60):
        with suppress(*CUT_OFF):
            while True:
                (await Wire.to(server)).reset()
                await asyncio.sleep(0.05)


def test_a_request_that_is_slow_to_arrive_is_answered_before_the_end(
    server_with_constants: Callable[..., Server],
) -> None:
    server = server_with_constants("tether.server.protocol.STOP_TIMEOUT_S=60")
    partner = Partner(server)
    body = event(1)

    async def scenario() -> None:
        wire = await begun(partner, body[:40])
        await told_to_stop(server)
        await asyncio.sleep(1)  # longer than it lingers for requests that are on their way
        answer = await wire.ask(body[40:])
        assert (answer.status, answer.headers["connection"]) == (201, "close")

    run(scenario())
    assert server.process is not None
    assert server.process.wait(timeout=180) == 0


def test_stalled_connections_do_not_hold_up_the_end(
    server_with_constants: Callable[..., Server],
) -> None:
    server = server_with_constants(
        "tether.server.protocol.STOP_TIMEOUT_S=1",
        "tether.server.protocol.REQUEST_TIMEOUT_S=600",
        "tether.server.run.GRACE_S=600",
    )
    partner = Partner(server)
    body = event(1)
    moments = [
        b"",
        b"POST /events HTTP/1.1\r\n",
        head_of("POST", "/events", partner.key, len(body)),
        head_of("POST", "/events", partner.key, len(body)) + body[:40],
        partner.request("GET", "/health") + head_of("POST", "/events", partner.key, 5),
        partner.request("GET", "/health"),
    ]

    async def scenario() -> None:
        wires = []
        for _ in range(10):
            for sent in moments:
                wires.append(await Wire.to(server))
                wires[-1].send(sent)
        await asyncio.sleep(0.3)
        assert server.process is not None
        server.process.terminate()
        await until(lambda: server.process is not None and server.process.poll() is not None)
        for wire in wires:
            wire.reset()

    run(scenario())
    assert server.process is not None
    assert server.process.returncode == 0


def test_a_second_signal_ends_it_at_once(server_with_constants: Callable[..., Server]) -> None:
    server = server_with_constants(
        "tether.server.protocol.STOP_TIMEOUT_S=600",
        "tether.server.protocol.REQUEST_TIMEOUT_S=600",
        "tether.server.run.GRACE_S=600",
    )
    partner = Partner(server)
    body = event(1)

    async def scenario() -> None:
        wire = await begun(partner, body[:40])
        await told_to_stop(server)
        await asyncio.sleep(1)
        assert pid_of(server), "it waits for the request"
        assert server.process is not None
        server.process.terminate()
        server.process.wait(timeout=180)
        wire.reset()

    run(scenario())
    check_integrity(server.database)
    server.start()
    partner.again()
    assert partner.events() == []


def test_a_server_that_stops_takes_no_new_connections(
    server_with_constants: Callable[..., Server],
) -> None:
    server = server_with_constants("tether.server.protocol.STOP_TIMEOUT_S=600")
    partner = Partner(server)

    async def scenario() -> None:
        slow = await begun(partner, b"")
        await told_to_stop(server)
        slow.reset()
        await until(lambda: server.process is not None and server.process.poll() is not None)

    run(scenario())
    assert server.process is not None
    assert server.process.returncode == 0
