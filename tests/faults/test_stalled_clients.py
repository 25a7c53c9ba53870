"""Clients that stop in the middle, or never read, cost little and are disconnected in time."""

import asyncio
import resource
import socket
from collections.abc import Callable
from pathlib import Path

from tests.conftest import TETHER, Server
from tests.wire import (
    Partner,
    Wire,
    address_of,
    event,
    head_of,
    many_files,
    memory_mb,
    open_files,
    pid_of,
    post_events,
    run,
    until,
)

STALLED = 1000
LET_GO_SOON = ("tether.server.protocol.READER_TIMEOUT_S=3", "tether.server.run.KEEP_ALIVE_S=3")


def test_a_thousand_stalled_connections_slow_nobody_and_are_closed(
    server_with_constants: Callable[..., Server],
) -> None:
    server = server_with_constants("tether.server.protocol.REQUEST_TIMEOUT_S=7")
    before = open_files(server)
    partner = Partner(server)
    half_head = b"POST /events HTTP/1.1\r\nhost: tether\r\nx-api-"
    body = event(1)
    half_body = head_of("POST", "/events", partner.key, len(body)) + body[:40]

    async def scenario() -> None:
        stalled = await asyncio.gather(*(Wire.to(server) for _ in range(STALLED)))
        for number, wire in enumerate(stalled):
            wire.send(half_head if number % 2 else half_body)
        await post_events(partner, 300)
        for wire in stalled:
            farewell = await wire.ended()
            assert farewell.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
            assert farewell.endswith(b'{"message":"Request Timeout"}')
        # A few more than before, because the projector opens its own connections.
        await until(lambda: open_files(server) <= before + 20)

    with many_files():
        run(scenario())
    assert len(partner.events()) == 300
    assert not any('"status":500' in line for line in server.log)


def test_a_connection_that_never_says_anything_is_closed(
    server_with_constants: Callable[..., Server],
) -> None:
    server = server_with_constants("tether.server.protocol.REQUEST_TIMEOUT_S=0.5")

    async def scenario() -> None:
        silent, trickling = await Wire.to(server), await Wire.to(server)
        trickling.send(b"GET /")
        ending = asyncio.create_task(trickling.ended())
        while not ending.done() and not trickling.writer.is_closing():
            trickling.send(b"x")  # a byte now and then buys no time
            await asyncio.sleep(0.05)
        assert (await silent.ended()).startswith(b"HTTP/1.1 408 ")
        assert (await ending).startswith(b"HTTP/1.1 408 ")

    run(scenario())


def test_a_client_that_never_reads_its_answers_is_let_go(
    server_with_constants: Callable[..., Server],
) -> None:
    server = server_with_constants(*LET_GO_SOON)
    before = open_files(server)
    partner = Partner(server)
    run(post_events(partner, 1000))
    used = memory_mb(server)
    page = partner.request("GET", "/events?limit=1000")
    last = partner.request("GET", "/events?limit=1000", b"", "connection: close")

    async def scenario() -> None:
        deaf = []
        for number in range(20):
            one = socket.socket()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.connect(address_of(server))
            one.sendall(page * 60 if number % 2 else page * 59 + last)
            deaf.append(one)
        await until(lambda: open_files(server) >= before + 15)
        # A few more than before, because the projector opens its own connections.
        await until(lambda: open_files(server) <= before + 20)
        assert memory_mb(server) < used + 60
        assert (await (await Wire.to(server)).ask(page)).status == 200
        for one in deaf:
            one.close()

    run(scenario())


def test_a_slow_reader_gets_its_whole_answer(server_with_constants: Callable[..., Server]) -> None:
    server = server_with_constants(*LET_GO_SOON)
    partner = Partner(server)
    run(post_events(partner, 1000))
    request = partner.request("GET", "/events?limit=1000")
    whole = len(partner.client.get("/events?limit=1000").content)

    async def scenario() -> None:
        slow = socket.create_connection(address_of(server))
        slow.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(slow, request * 80)
        received = bytearray()
        while part := await loop.sock_recv(slow, 100_000):
            received += part
            await asyncio.sleep(0.04)
        assert received.count(b"HTTP/1.1 200 OK") == 80
        assert len(received) > 80 * whole
        slow.close()

    run(scenario())


def test_the_server_uses_as_many_connections_as_the_system_lets_it(tmp_path: Path) -> None:
    few = ["sh", "-c", 'ulimit -Sn 256 && exec "$0" "$@"', str(TETHER)]
    server = Server(str(tmp_path / "tether.db"), program=few)
    server.start()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def scenario() -> None:
        wires = [await Wire.to(server) for _ in range(400)]
        for wire in wires:
            assert (await wire.ask(b"GET /health HTTP/1.1\r\nhost: tether\r\n\r\n")).status == 200

    try:
        assert resource.prlimit(pid_of(server), resource.RLIMIT_NOFILE) == (hard, hard)
        run(scenario())
    finally:
        server.kill()
