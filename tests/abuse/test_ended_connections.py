"""A connection leaves nothing behind in the server, in whatever way it ended."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Server
from tests.wire import Partner, Wire, head_of, memory_mb, run

AT_ONCE = 60
ROUNDS = 6
GROWTH_MB = 10  # each that stays takes 6 to 20 kB, so that it would be 30


@pytest.fixture
def partner(tmp_path: Path) -> Iterator[Partner]:
    """A partner of a server without the cycle collector."""
    server = Server(
        str(tmp_path / "tether.db"),
        ["--log-level", "warning"],
        program=[sys.executable, str(Path(__file__).with_name("without_collector.py"))],
    )
    yield Partner(server.start())
    assert server.failures() == []
    assert server.stop() == 0


def test_connections_that_ended_leave_nothing(partner: Partner) -> None:
    get = partner.request("GET", "/chargers")
    put = head_of("PUT", "/chargers/C1", partner.key, 100_000)
    sent = [
        b"",
        b"GET /char",
        get,
        get * 30,
        partner.request("GET", "/static/scalar-api-reference.js") * 4,
        partner.request("GET", "/stream?cursor=start"),
        put + b" " * 50,
        put + b" " * 50_000,
        get + b"GET / HTTP/9\r\n\r\n",
        partner.request("PUT", "/chargers/C1", b"[]", "connection: close"),
    ]

    async def one(data: bytes, *, abort: bool) -> None:
        wire = await Wire.to(partner.server)
        wire.send(data)
        await asyncio.sleep(0.1)
        if abort:
            wire.reset()
        else:
            wire.writer.close()

    async def all_kinds() -> None:
        for data in sent:
            await asyncio.gather(*(one(data, abort=bool(n % 2)) for n in range(AT_ONCE)))

    async def scenario() -> None:
        await all_kinds()
        await asyncio.sleep(1)
        before = memory_mb(partner.server)
        for _ in range(ROUNDS):
            await all_kinds()
        for _ in range(120):  # until the server has seen the end of the last ones
            if memory_mb(partner.server) < before + GROWTH_MB:
                return
            await asyncio.sleep(0.5)
        raise AssertionError(f"{memory_mb(partner.server) - before:.0f} MB stayed")

    run(scenario())


def test_a_refused_connection_leaves_nothing_as_soon_as_its_client_is_gone(
    server_with_constants: Callable[..., Server],
) -> None:
    server = server_with_constants(
        "tether.server.protocol.LAST_READ_S=600", options=("--log-level", "warning")
    )

    async def refused(count: int) -> None:
        for _ in range(count):
            wire = await Wire.to(server)
            assert (await wire.ask(b"\x16\x03\x01\x00\xf8" + b"\x01" * 200)).status == 400
            wire.reset()

    async def scenario() -> None:
        await refused(500)
        before = memory_mb(server)
        await asyncio.gather(*(refused(200) for _ in range(20)))
        assert memory_mb(server) < before + GROWTH_MB

    run(scenario())
