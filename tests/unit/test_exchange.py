"""The bytes on the wire for what the application sends."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tether.server.connections import Bounds
from tether.server.protocol import RequestCycle

Headers = list[tuple[bytes, bytes]]
LENGTH: Headers = [(b"content-length", b"5")]


class Wire:
    """The connection of one request, which remembers what is written."""

    def __init__(
        self, method: str = "GET", *, keep_alive: bool = True, knows_chunks: bool = True
    ) -> None:
        self.writes: list[bytes] = []
        self.closed = False
        self.answered = 0
        transport = SimpleNamespace(
            write=self.writes.append, close=self._close, is_closing=lambda: self.closed, abort=None
        )
        flow = SimpleNamespace(write_paused=False, resume_reading=lambda: None)
        connection: Any = SimpleNamespace(
            flow=flow,
            request_transport=transport,
            on_response_complete=self._count,
            server_state=SimpleNamespace(default_headers=[(b"date", b"today")]),
            expect_100_continue=False,
            tasks=set(),
            bounds=Bounds(1, 1),
            url=b"/",
            headers=[],
            server=None,
            client=None,
            scheme="http",
            root_path="",
            asgi_version="3.0",
        )
        self.exchange = RequestCycle(
            connection, method.encode(), keep_alive=keep_alive, knows_chunks=knows_chunks
        )

    def _close(self) -> None:
        self.closed = True

    def _count(self) -> None:
        self.answered += 1

    def answer(self, status: int, headers: Headers, *parts: bytes) -> None:
        """Runs an application that answers so, in one part or more."""

        async def app(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
            await send({"type": "http.response.start", "status": status, "headers": headers})
            for place, part in enumerate(parts, start=1):
                more = place < len(parts)
                await send({"type": "http.response.body", "body": part, "more_body": more})

        asyncio.run(self.exchange.run_asgi(app))


def test_an_answer_of_known_length_is_one_write() -> None:
    wire = Wire()
    wire.answer(200, LENGTH, b"hello")
    assert wire.writes == [b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-length: 5\r\n\r\nhello"]
    assert (wire.answered, wire.closed) == (1, False)


def test_so_is_one_without_a_body() -> None:
    for method, status, headers in (("HEAD", 200, LENGTH), ("GET", 304, []), ("GET", 204, [])):
        wire = Wire(method)
        wire.answer(status, headers, b"")
        assert len(wire.writes) == wire.answered == 1
        assert wire.writes[0].endswith(b"\r\n\r\n")
        assert b"transfer-encoding" not in wire.writes[0]


def test_a_body_in_parts_does_not_wait_for_its_end() -> None:
    wire = Wire()
    wire.answer(200, LENGTH, b"he", b"llo")
    assert b"".join(wire.writes).endswith(b"content-length: 5\r\n\r\nhello")
    wire = Wire()
    wire.answer(200, [], b"he", b"llo")
    assert wire.writes[0].endswith(b"transfer-encoding: chunked\r\n\r\n")
    assert b"".join(wire.writes[1:]) == b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
    assert wire.answered == 1


def test_for_who_knows_no_chunks_the_end_of_the_connection_ends_the_body() -> None:
    wire = Wire(keep_alive=False, knows_chunks=False)
    wire.answer(200, [], b"he", b"llo", b"")
    assert wire.writes[0] == b"HTTP/1.1 200 OK\r\ndate: today\r\nconnection: close\r\n\r\n"
    assert b"".join(wire.writes[1:]) == b"hello"
    assert (wire.answered, wire.closed) == (1, True)


def test_the_connection_closes_when_it_shall_not_be_kept() -> None:
    wire = Wire(keep_alive=False)
    wire.answer(200, LENGTH, b"hello")
    assert b"connection: close\r\n" in wire.writes[0]
    assert wire.closed
    wire = Wire()
    wire.answer(200, [*LENGTH, (b"connection", b"Close")], b"hello")
    assert wire.writes[0].count(b"lose\r\n") == 1
    assert wire.closed


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb", b"a\0b", b"a\x7f"])
def test_no_header_can_begin_another(value: bytes) -> None:
    wire = Wire()
    wire.answer(200, [*LENGTH, (b"x-odd", value)], b"hello")
    assert len(wire.writes) == 1
    assert wire.writes[0].startswith(b"HTTP/1.1 500 ")
    assert b"x-odd" not in wire.writes[0]


@pytest.mark.parametrize("body", [b"hell", b"hello!"])
def test_no_body_is_longer_or_shorter_than_it_says(body: bytes) -> None:
    wire = Wire()
    wire.answer(200, LENGTH, body)
    assert wire.writes == []
    assert wire.closed


def test_an_application_that_fails_before_its_answer_is_a_500() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ValueError

    wire = Wire()
    asyncio.run(wire.exchange.run_asgi(app))
    assert wire.writes[0].startswith(b"HTTP/1.1 500 ")
    assert wire.closed


def test_whoever_waits_for_the_body_gets_it_in_the_parts_in_which_it_comes() -> None:
    async def run() -> list[Any]:
        exchange = Wire("POST").exchange
        first = asyncio.ensure_future(exchange.receive())
        await asyncio.sleep(0)
        exchange.body += b"he"
        exchange.message_event.set()
        received = [await first]
        exchange.body += b"llo"
        exchange.more_body = False
        exchange.message_event.set()
        received.append(await exchange.receive())
        last = asyncio.ensure_future(exchange.receive())
        await asyncio.sleep(0)
        exchange.disconnected = True
        exchange.message_event.set()
        return [*received, await last]

    assert asyncio.run(run()) == [
        {"type": "http.request", "body": b"he", "more_body": True},
        {"type": "http.request", "body": b"llo", "more_body": False},
        {"type": "http.disconnect"},
    ]
