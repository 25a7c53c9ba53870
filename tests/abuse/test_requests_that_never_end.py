"""Incomplete requests: all of them together use no more memory than their limit."""

import asyncio
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import sleep

import pytest

from tests.conftest import Server
from tests.wire import (
    Partner,
    Wire,
    address_of,
    event,
    head_of,
    many_files,
    memory_mb,
    metric,
    run,
    until,
)

MANY = 1_500
LONG_HEAD = b"GET /health HTTP/1.1\r\nhost: tether\r\nname: " + b"x" * 60_000
LONG_TARGET = b"GET /health?" + b"x" * 60_000
LONG_HEADERS = b"GET /health HTTP/1.1\r\nhost: tether\r\n" + (b"n: " + b"x" * 400 + b"\r\n") * 150


def refused(partner: Partner) -> float:
    return metric(partner.client.get("/metrics").text, "tether_refused_total", reason="arriving")


@pytest.mark.parametrize("what", ["head", "target", "headers", "body", "chunked body"])
def test_what_never_becomes_whole_is_bounded_and_keeps_nobody_out(
    new_server: Callable[..., Server], what: str
) -> None:
    server = new_server("--log-level", "warning")
    partner = Partner(server)
    before = memory_mb(server)
    part = {
        "head": LONG_HEAD,
        "target": LONG_TARGET,
        "headers": LONG_HEADERS,
        "body": head_of("POST", "/events", partner.key, 65_000) + b" " * 64_900,
        "chunked body": head_of("POST", "/events", partner.key, None, "transfer-encoding: chunked")
        + b"ffff\r\n"
        + b" " * 64_900,
    }[what]

    async def scenario() -> None:
        wires = []
        for _ in range(MANY):
            wires.append(await Wire.to(server))
            wires[-1].send(part)
        await until(lambda: refused(partner) >= MANY - 600)
        good = await Wire.to(server)
        for number in range(20):
            whole = partner.post(number)
            for cut in (10, len(whole) - 5):  # it need not come in one piece
                good.send(whole[:cut])
                await asyncio.sleep(0.01)
                assert (await good.ask(whole[cut:])).status in (200, 201)
        assert memory_mb(server) < before + 120
        first = await wires[0].answer()
        assert first.status == 503
        assert int(first.headers["retry-after"]) >= 1
        for wire in wires:
            wire.reset()

    with many_files(2 * MANY):
        run(scenario())
    assert partner.client.get("/health").status_code == 200
    assert server.failures() == []


def test_a_head_of_very_many_headers_is_431(new_server: Callable[..., Server]) -> None:
    """Each takes much more memory than it has bytes."""
    server = new_server()

    async def scenario() -> None:
        wire = await Wire.to(server)
        wire.send(b"GET /health HTTP/1.1\r\nhost: tether\r\n" + b"a:\r\n" * 10_000)
        assert (await wire.answer()).status == 431
        wire = await Wire.to(server)
        wire.send(b"GET /health HTTP/1.1\r\nhost: tether\r\n" + b"name: value\r\n" * 150 + b"\r\n")
        assert (await wire.answer()).status == 200

    run(scenario())


def test_of_a_bulk_that_breaks_off_nothing_is_stored(new_server: Callable[..., Server]) -> None:
    """Otherwise a client that was cut off would have to ask which of its events were stored."""
    server = new_server()
    partner = Partner(server)
    lines = b"\n".join(map(event, range(2_000))) + b"\n"
    chunked = "transfer-encoding: chunked"

    def chunk(data: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(data), data)

    async def scenario() -> None:
        for head, body in (
            (head_of("POST", "/events/bulk", partner.key, len(lines) + 1), lines),
            (head_of("POST", "/events/bulk", partner.key, None, chunked), chunk(lines)),
            (head_of("POST", "/events", partner.key, None, chunked), chunk(event(1))),
        ):
            wire = await Wire.to(server)
            wire.send(head + body)
            await asyncio.sleep(0.3)
            wire.hang_up()
            await asyncio.sleep(0.3)

    run(scenario())
    assert partner.events() == []
    assert server.failures() == []


@pytest.mark.parametrize("with_key", [False, True])
def test_bodies_sent_as_fast_as_possible_leave_others_their_share(
    new_server: Callable[..., Server], with_key: bool
) -> None:
    server = new_server("--log-level", "warning")
    partner = Partner(server)
    key = server.key() if with_key else "none"
    head = head_of("POST", "/events/bulk", key, None, "transfer-encoding: chunked")
    chunks = b"1\r\nx\r\n" * 10_000
    stop, sent = threading.Event(), [0] * 30

    def flood(number: int) -> None:
        while not stop.is_set():
            with suppress(OSError), socket.create_connection(address_of(server), 5) as connection:
                connection.sendall(head)
                while not stop.is_set():
                    connection.sendall(chunks)
                    sent[number] += len(chunks)

    with ThreadPoolExecutor(len(sent)) as threads:
        floods = [threads.submit(flood, number) for number in range(len(sent))]
        try:
            while sum(sent) < 20_000_000:
                sleep(0.01)
            before = sum(sent)
            for number in range(20):
                assert partner.client.post("/events", content=event(number)).status_code == 201
            during = sum(sent) - before
        finally:
            stop.set()
    assert not any(done.exception() for done in floods)
    assert during / 20 < 8_000_000  # bytes that were read for each of the others' requests
