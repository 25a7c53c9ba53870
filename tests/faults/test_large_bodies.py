"""Bodies over the limit are refused and not kept in memory, in whatever way they arrive."""

import asyncio
import gzip
import http.client
import time
from collections.abc import Iterator

import pytest

from tests.conftest import Server
from tests.wire import (
    CUT_OFF,
    Partner,
    Wire,
    address_of,
    cpu_seconds,
    head_of,
    memory_mb,
    run,
)

LIMIT = 1024 * 1024
GROWTH_MB = 40
CHUNKED = "transfer-encoding: chunked"


@pytest.fixture(scope="module")
def partner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Partner]:
    server = Server(str(tmp_path_factory.mktemp("large") / "tether.db")).start()
    partner = Partner(server)
    whole = b'{"chargePowers":[11]' + b" " * (LIMIT - 22) + b"} "
    assert len(whole) == LIMIT + 1 - 1
    for _ in range(3):  # memory that Python allocates once for large bodies is not growth
        assert partner.client.put("/chargers/L", content=whole).status_code in (200, 201)
    yield partner
    assert server.stop() == 0


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def pour(wire: Wire, head: bytes, parts: Iterator[bytes]) -> None:
    """Sends until the server closes the connection or the data end."""
    wire.send(head)
    try:
        for part in parts:
            wire.send(part)
            await wire.writer.drain()
    except CUT_OFF:
        pass


def endless(part: bytes, seconds: float) -> Iterator[bytes]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield part


def test_a_body_over_the_limit_is_413_and_the_client_gets_to_read_it(partner: Partner) -> None:
    used = memory_mb(partner.server)
    for path in ("/chargers/L", "/vehicles/L"):
        answer = partner.client.put(path, content=b" " * (LIMIT + 1))
        assert answer.status_code == 413
        assert answer.json()["message"].startswith("Payload Too Large")
    answer = partner.client.post("/events", content=(b" " * 65536 for _ in range(17)))
    assert answer.status_code == 413
    answer = partner.client.post("/events", content=b" " * (40 * LIMIT))
    assert answer.status_code == 413
    assert memory_mb(partner.server) < used + GROWTH_MB


def test_a_client_that_keeps_no_connection_gets_to_read_the_413_too(partner: Partner) -> None:
    for _ in range(20):  # if the server closes at once, the client may or may not read it
        connection = http.client.HTTPConnection(*address_of(partner.server))
        headers = {"x-api-key": partner.key, "connection": "close"}
        connection.request("PUT", "/chargers/L", b" " * (3 * LIMIT), headers)
        assert connection.getresponse().status == 413
        connection.close()


def test_a_body_that_says_it_is_huge_is_refused_before_it_comes(partner: Partner) -> None:
    async def scenario() -> None:
        wire = await Wire.to(partner.server)
        answer = await wire.ask(head_of("POST", "/events", partner.key, 10**12) + b"{")
        assert answer.status == 413

    run(scenario())


@pytest.mark.parametrize(
    "part",
    [
        pytest.param(chunk(b" " * 65536), id="data"),
        pytest.param(chunk(b" ") * 1000, id="tiny chunks"),
        pytest.param(b"1;" + b"x" * 65536 + b"\r\n \r\n", id="chunk extensions"),
        pytest.param(b"1;" + b"x" * 65536, id="one chunk extension"),
        pytest.param(b"2\r\n{}\r\n0\r\n" + b"Name: value\r\n" * 5000, id="trailers"),
        pytest.param(b"0\r\nName: " + b"x" * 65536, id="one trailer"),
    ],
)
def test_an_endless_chunked_body_does_not_grow_the_server(partner: Partner, part: bytes) -> None:
    """The parts that are not well-formed a second time end the connection even sooner."""
    used, most = memory_mb(partner.server), 0.0
    computed = cpu_seconds(partner.server)
    head = head_of("POST", "/events", partner.key, None, CHUNKED)
    opening, repeated = part, part.rpartition(b"\r\n0\r\n")[2] or part
    if part.startswith((b"1;", b"0\r\n")) and not part.endswith(b"\r\n"):
        repeated = b"x" * 65536

    async def scenario() -> None:
        nonlocal most
        wire = await Wire.to(partner.server)
        pouring = asyncio.create_task(pour(wire, head + opening, endless(repeated, 1)))
        while not pouring.done():
            await asyncio.sleep(0.05)
            most = max(most, memory_mb(partner.server))
            health = await (await Wire.to(partner.server)).ask(
                partner.request("GET", "/health", b"", "connection: close")
            )
            assert health.status == 200
        wire.reset()

    run(scenario())
    assert most < used + GROWTH_MB
    # One long trailer took ten seconds, in which no other client was served.
    assert cpu_seconds(partner.server) - computed < 5


def test_an_endless_head_is_431(partner: Partner) -> None:
    async def scenario() -> None:
        for line in (b"GET /" + b"x" * 4096, b"GET / HTTP/1.1\r\nname: " + b"x" * 4096):
            wire = await Wire.to(partner.server)
            await pour(wire, line, iter([b"x" * 4096] * 40))
            assert (await wire.ended()).startswith(b"HTTP/1.1 431 ")

    run(scenario())


def test_a_gzip_bomb_is_413_and_stays_folded(partner: Partner) -> None:
    bomb = gzip.compress(b" " * (256 * LIMIT), compresslevel=9)
    assert len(bomb) < LIMIT
    used = memory_mb(partner.server)
    for _ in range(3):
        answer = partner.client.put(
            "/chargers/L", content=bomb, headers={"content-encoding": "gzip"}
        )
        assert answer.status_code == 413
    assert memory_mb(partner.server) < used + GROWTH_MB


def test_a_hundred_bodies_over_the_limit_at_once_do_not_add_up(partner: Partner) -> None:
    used = memory_mb(partner.server)
    head = head_of("POST", "/events", "no key", None, CHUNKED)

    async def scenario() -> None:
        wires = [await Wire.to(partner.server) for _ in range(100)]
        pouring = [pour(wire, head, iter([chunk(b" " * 65536)] * 48)) for wire in wires]
        await asyncio.gather(*pouring)
        for wire in wires:
            assert (await wire.answer()).status == 403
        assert memory_mb(partner.server) < used + GROWTH_MB

    run(scenario())


def test_what_was_read_of_a_refused_body_does_not_stay(partner: Partner) -> None:
    """The numbers of a mebibyte need 50 MiB, which the next such body must be able to have."""
    body = b'{"chargePowers":[' + b"1," * (LIMIT // 2 - 20) + b"1]}"
    used = memory_mb(partner.server)
    for method, path in (("PUT", "/chargers/L"), ("PATCH", "/chargers/L"), ("POST", "/events")):
        for _ in range(5):
            assert partner.client.request(method, path, content=body).status_code == 400
    assert memory_mb(partner.server) < used + 2 * GROWTH_MB


def test_many_requests_in_one_go_are_not_taken_for_a_large_head(partner: Partner) -> None:
    body = b'{"chargePowers":[11]}' + b" " * 100_000
    put = partner.request("PUT", "/chargers/L", body)
    get = partner.request("GET", "/chargers/L")

    async def scenario() -> None:
        wire = await Wire.to(partner.server)
        wire.send(put + get * 1000 + get[:30])
        await asyncio.sleep(0.1)
        wire.send(get[30:])
        for _ in range(1002):
            assert (await wire.answer()).status == 200

    run(scenario())


def test_a_wish_to_upgrade_does_not_lose_the_body(partner: Partner) -> None:
    """Some clients (Java's own) offer HTTP/2 with each request over plain HTTP."""
    body = b'{"chargePowers":[43]}'
    upgrade = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABk")

    async def scenario() -> None:
        wire = await Wire.to(partner.server)
        for _ in range(2):
            answer = await wire.ask(partner.request("PUT", "/chargers/L", body, *upgrade))
            assert answer.status == 200
        head = head_of("PUT", "/chargers/L", partner.key, len(body), *upgrade)
        wire.send(head[:60])
        await asyncio.sleep(0.05)
        wire.send(head[60:])
        await asyncio.sleep(0.05)
        assert (await wire.ask(body)).status == 200
        answer = await wire.ask(partner.request("GET", "/chargers/L"))
        assert answer.json()["chargePowers"] == [43]

    run(scenario())


def test_what_is_not_http_is_400_but_takes_no_other_answers_place(partner: Partner) -> None:
    async def scenario() -> None:
        wire = await Wire.to(partner.server)
        wire.send(partner.request("GET", "/chargers/L") + b"\x16\x03\x01 hello\r\n\r\n")
        answer = await wire.answer()
        assert (answer.status, answer.json()["id"]) == (200, "L")
        assert await wire.ended() == b""
        for nonsense in (b"\x16\x03\x01\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n"):
            wire = await Wire.to(partner.server)
            answer = await wire.ask(nonsense)
            assert (answer.status, "message" in answer.json()) == (400, True)

    run(scenario())
