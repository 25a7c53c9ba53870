"""What ends a stream, and what does not: its key, the server, a consumer that does not read."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx

from tests.conftest import Server
from tests.sse import Message, events_in, states_in, streaming, without_age
from tests.wire import (
    Partner,
    Wire,
    address_of,
    event,
    memory_mb,
    metric,
    post_events,
    run,
    until,
)

LAST_CHUNK = b"0\r\n\r\n"
STALLED = 30


def open_streams(partner: Partner) -> float:
    return metric(partner.client.get("/metrics").text, "tether_open_streams")


def store_events(partner: Partner, count: int) -> None:
    """Posts this number of events in one request."""
    lines = b"\n".join(event(number) for number in range(count))
    assert partner.client.post("/events/bulk", content=lines).status_code == 200


async def connected(partner: Partner, path: str = "/stream") -> Wire:
    """A stream that has begun."""
    wire = await Wire.to(partner.server)
    wire.send(partner.request("GET", path))
    head = await wire.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    await wire.reader.readuntil(b"id: ")
    return wire


def test_silence_is_broken_by_heartbeats_with_the_place(
    server_with_constants: Callable[..., Server],
) -> None:
    server = server_with_constants("tether.http.handlers.stream.HEARTBEAT_S=0.2")
    partner = Partner(server)
    with streaming(partner.client, vehicleId="V2") as found:
        place = next(found)
        assert next(found) == next(found) == place
        run(post_events(partner, 3))  # no event matches, but the position moves on
        while (moved := next(found)) == place:
            pass
        assert moved.is_place


def test_a_key_that_is_revoked_ends_its_streams_only(new_server: Callable[..., Server]) -> None:
    server = new_server()
    partner = Partner(server)
    others = Partner(server)

    async def scenario() -> None:
        wire, other = await connected(partner), await connected(others)
        done = await asyncio.create_subprocess_exec(
            *server.program, "keys", "revoke", partner.key[:17], "--database", server.database,
            stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert await done.wait() == 0
        async with asyncio.timeout(60):
            await wire.reader.readuntil(LAST_CHUNK)
        await post_events(others, 1)
        assert b"event: event" in await other.reader.readuntil(b"data: ")

    run(scenario())
    assert any('"reason":"the key works no more"' in line for line in server.log)


def test_sigterm_ends_streams_at_once_also_those_that_nobody_reads(
    server_with_constants: Callable[..., Server],
) -> None:
    server = server_with_constants("tether.server.protocol.STOP_TIMEOUT_S=0.5")
    partner = Partner(server)
    store_events(partner, 3000)

    async def scenario() -> None:
        wires = [await connected(partner) for _ in range(5)]
        with deaf(partner):
            await until(lambda: open_streams(partner) == 6)
            partner.client.close()
            assert server.process is not None
            server.process.terminate()
            for wire in wires:
                assert (await wire.ended()).endswith(LAST_CHUNK)
            # Far below the 30 s that open requests may take.
            assert await asyncio.to_thread(server.process.wait, 15) == 0

    run(scenario())
    assert server.failures() == []
    assert sum('"reason":"the server stops"' in line for line in server.log) >= 5


def deaf(partner: Partner) -> socket.socket:
    """A consumer that asks for all events and reads nothing."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)  # or the kernel buffers megabytes
    one.connect(address_of(partner.server))
    one.sendall(partner.request("GET", "/stream?cursor=start"))
    return one


def test_consumers_that_do_not_read_cost_no_memory_and_are_cut_off(
    server_with_constants: Callable[..., Server],
) -> None:
    server = server_with_constants("tether.server.protocol.READER_TIMEOUT_S=2")
    partner = Partner(server)

    async def scenario() -> None:
        store_events(partner, 4000)  # 1 MB for each of them
        before = memory_mb(server)
        stalled = [deaf(partner) for _ in range(STALLED)]
        await until(lambda: open_streams(partner) == STALLED)
        await post_events(partner, 500, first=4000)
        assert memory_mb(server) - before < STALLED * 0.5
        await until(lambda: open_streams(partner) == 0)
        for one in stalled:
            one.close()

    run(scenario())
    assert server.failures() == []


def test_a_consumer_that_does_not_read_the_little_that_comes_is_cut_off_too(
    server_with_constants: Callable[..., Server],
) -> None:
    limits = (
        "tether.server.protocol.READER_TIMEOUT_S=2",
        "tether.http.handlers.stream.HEARTBEAT_S=0.5",
    )
    server = server_with_constants(*limits)
    partner = Partner(server)
    store_events(partner, 100)  # so little that the kernel buffers all of it

    async def scenario() -> None:
        wire = await connected(partner)
        with deaf(partner):
            await until(lambda: open_streams(partner) == 2)
            await until(lambda: open_streams(partner) == 1)
        await post_events(partner, 1, first=100)  # the one that reads stays connected
        await wire.reader.readuntil(b"event: event")

    run(scenario())
    assert server.failures() == []


def test_a_stream_ends_with_its_connection_also_where_more_requests_wait_on_that(
    server_with_constants: Callable[..., Server],
) -> None:
    server = server_with_constants("tether.http.handlers.stream.HEARTBEAT_S=0.5")
    partner = Partner(server)

    async def scenario() -> None:
        for more in (partner.request("GET", "/stream"), b"no request\r\n\r\n"):
            wire = await connected(partner)
            wire.send(more)
            await wire.reader.readuntil(b": nothing new")
            wire.hang_up()
        await until(lambda: open_streams(partner) == 0)

    run(scenario())
    assert server.failures() == []


class Consumer(threading.Thread):
    """Reads the stream of a partner, reconnects when it is cut off, and keeps all messages."""

    def __init__(self, partner: Partner, count: int) -> None:
        super().__init__(daemon=True)
        self._partner = partner
        self._count = count
        self.found: list[Message] = []
        self.connections = 0

    def run(self) -> None:
        last_id = None
        while not self._has_all():
            try:
                with (
                    self._partner.server.client(self._partner.key) as client,
                    streaming(client, last_id, cursor="start") as found,
                ):
                    self.connections += 1
                    for message in found:
                        last_id = message.id
                        if not message.is_place:
                            self.found.append(message)
                        if self._has_all():
                            return
            except httpx.TransportError:
                time.sleep(0.05)

    def _has_all(self) -> bool:
        ends = len(self.found) > self._count and self.found[-1].name == "state"
        return ends and sum(one.name == "event" for one in self.found) >= self._count


def test_kill_minus_nine_makes_no_gap(new_server: Callable[..., Server]) -> None:
    server = new_server()
    port = address_of(server)[1]
    partner = Partner(server)
    consumer = Consumer(partner, 1200)
    consumer.start()
    for number in range(3):
        run(post_events(partner, 400, first=400 * number))
        if number < 2:
            server.kill()
            server.start(port)
            partner.again()
    consumer.join(60)
    assert not consumer.is_alive()
    assert consumer.connections >= 3
    stored: Any = partner.events()
    assert events_in(consumer.found) == stored
    state = partner.client.get("/vehicles/V1/state").json()
    assert states_in(consumer.found) == {"V1": without_age(state)}
