"""A hostile or broken server costs the SDK only limited memory and time."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from tests.abuse.hostile import (
    BOMB,
    CHUNKED,
    HEAD,
    Behaviour,
    Hostile,
    answer,
    chunks,
    drop_by_drop,
    endlessly,
)
from tests.client.calls import asynchronous, blocking
from tests.client.scripted import Reply, ScriptedServer
from tether.client import (
    Client,
    Event,
    RateLimited,
    TetherError,
    Unavailable,
    UnexpectedAnswer,
)

GZIP = b"Content-Encoding: gzip"
YEAR_S = 365 * 86_400.0
MAX_MEMORY = 150 * 1024 * 1024

Ask = Callable[..., Any]


@pytest.fixture(params=[blocking, asynchronous], ids=["Client", "AsyncClient"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Makes a client for a URL and does a call with it."""
    found: Ask = request.param
    return found


def get(client: Any) -> Any:
    return client.chargers.get("C1")


# Memory -------------------------------------------------------------------------------------------

_MEASURED = """
import asyncio, json, resource, sys
from tether.client import AsyncClient, Client, TetherError, async_http
kind, urls = sys.argv[1], json.loads(sys.argv[2])

def call(client, what):
    if what == "stream":
        return next(client.stream()) if kind == "Client" else anext(client.stream())
    return client.chargers.get("C1")

def blocking(url, what):
    with Client(url, "key", retries=0, timeout=1) as client:
        call(client, what)

async def awaiting(url, what):
    async with AsyncClient(url, "key", retries=0, timeout=1) as client:
        await call(client, what)

def memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

began = memory()
for name, (url, what) in urls.items():
    before = memory()
    try:
        blocking(url, what) if kind == "Client" else asyncio.run(awaiting(url, what))
    except TetherError as error:
        print(json.dumps([name, type(error).__name__, memory() - before]))
print(json.dumps(["all", "", memory() - began]))
"""
_SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
_BOMB_PIECES = [BOMB[start : start + 16384] for start in range(0, len(BOMB), 16384)]
GREEDY: dict[str, tuple[str, Behaviour]] = {
    "a bomb": ("get", answer(BOMB, GZIP)),
    "a bomb as refusal": ("get", answer(BOMB, GZIP, status=b"400 Bad Request")),
    "a bomb in chunks": (
        "get",
        lambda: [CHUNKED[:-2] + GZIP + b"\r\n\r\n", chunks(*_BOMB_PIECES), b"0\r\n\r\n"],
    ),
    "a body without end": ("get", endlessly(HEAD + b"\r\n", b"[" * 1000)),
    "chunks without end": ("get", endlessly(CHUNKED, chunks(b"0" * 1000))),
    "a refusal without end": ("get", endlessly(b"HTTP/1.1 500 No\r\n\r\n", b"no " * 1000)),
    "headers without end": ("get", endlessly(HEAD, b"X-More: and more\r\n")),
    "a header line without end": ("get", endlessly(HEAD + b"X-More: ", b"more " * 1000)),
    "a status line without end": ("get", endlessly(b"HTTP/1.1 200 ", b"OK" * 1000)),
    "hints without end": ("get", endlessly(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n")),
    "a size of a chunk without end": ("get", endlessly(CHUNKED, b"0" * 1000)),
    "an extension of a chunk without end": ("get", endlessly(CHUNKED + b"1;", b"x=" * 1000)),
    "trailers without end": ("get", endlessly(CHUNKED + b"0\r\n", b"X-More: and more\r\n")),
    "a stream whose line has no end": ("stream", endlessly(_SSE + b"\r\ndata: ", b"x" * 1000)),
    "a stream whose message has no end": ("stream", endlessly(_SSE + b"\r\n", b"data: x\n")),
    "a stream that is a bomb": (
        "stream",
        lambda: [_SSE + GZIP + b"\r\n\r\n", BOMB],
    ),
    "a stream that is refused without end": (
        "stream",
        endlessly(b"HTTP/1.1 400 No\r\n\r\n", b"no " * 1000),
    ),
}


@pytest.mark.parametrize("kind", ["Client", "AsyncClient"])
def test_no_answer_takes_all_memory(kind: str) -> None:
    with ExitStack() as stack:
        urls = {
            name: (stack.enter_context(Hostile(behaviour)).url, call)
            for name, (call, behaviour) in GREEDY.items()
        }
        command = [sys.executable, "-c", _MEASURED, kind, json.dumps(urls)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.stderr == ""
    *each, (_, _, grown) = map(json.loads, done.stdout.splitlines())
    assert {name for name, _, _ in each} == set(GREEDY)
    assert {error for _, error, _ in each} == {"UnexpectedAnswer", "Unavailable"}
    assert grown < MAX_MEMORY, each


# Time ---------------------------------------------------------------------------------------------

SLOW = {
    "a status line": drop_by_drop(b"HTTP/1.1 200 ", b"O"),
    "a header": drop_by_drop(HEAD + b"X-More: ", b"x"),
    "headers": drop_by_drop(HEAD, b"X-More: x\r\n"),
    "hints": drop_by_drop(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "a body": drop_by_drop(HEAD + b"Content-Length: 100000\r\n\r\n", b" "),
    "chunks": drop_by_drop(CHUNKED, b"1\r\n \r\n"),
    "an extension of a chunk": drop_by_drop(CHUNKED + b"1;", b"x"),
    "a refusal": drop_by_drop(b"HTTP/1.1 503 No\r\nContent-Length: 100000\r\n\r\n", b" "),
}


@pytest.mark.parametrize("what", SLOW)
def test_an_answer_that_drips_is_given_up(ask: Ask, what: str) -> None:
    with Hostile(SLOW[what]) as server:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            ask(server.url, get, timeout=0.4, retries=0)
        assert time.monotonic() - began < 10
    assert len(server.requests) == 1


def test_a_slow_but_steady_answer_is_waited_for(ask: Ask) -> None:
    body = json.dumps({"id": "C1", "chargePowers": [11], "more": "x" * 20_000}).encode()

    def steadily() -> Any:
        yield HEAD + b"Content-Length: %d\r\n\r\n" % len(body)
        for start in range(0, len(body), 1000):
            time.sleep(0.06)
            yield body[start : start + 1000]

    with Hostile(steadily) as server:
        assert ask(server.url, get, timeout=1, retries=0).id == "C1"


WISHES = [
    "-1", "-99999999999", "NaN", "nan", "inf", "1e400", "1.5", "0x10", "", " ", "soon", "0", "0007",
    "9" * 12, "9" * 400, "9" * 6000, "\u0661".encode().decode("latin-1"), "1" + "0" * 5000 + "1",
    "Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT",
    "Mon, 01 Jan 99999999999 00:00:00 GMT", "Mon, 01 Jan 2035 00:00:00 +9999999999",
    "Fri, 31 Dec 9999 23:59:59 -2359", "Mon, 01 Jan 2035 99:99:99 GMT", "Mon, 01 Jan 2035",
    "Mon, 01 Jan 2035 00:00:00 -0000", "Sat, 32 Feb 2035 00:00:00 GMT", ", ".join("9" * 1000),
]  # fmt: skip


@pytest.mark.parametrize("wish", WISHES)
@pytest.mark.parametrize("status", [429, 503])
def test_no_wish_to_wait_is_too_absurd(status: int, wish: str) -> None:
    refusal = Reply(status, b'{"message":"Later"}', {"Retry-After": wish})
    later = pytest.raises((RateLimited, Unavailable))
    with ScriptedServer(refusal) as server, later as caught:
        blocking(server.url, get, retries=0)
    found = caught.value.retry_after  # type: ignore[attr-defined]
    assert found is None or 0 <= found <= YEAR_S


# Nonsense -----------------------------------------------------------------------------------------

NONSENSE = [
    b"", b"<html>Welcome to the hotel</html>", b"null", b"[]", b"7", b'"C1"', b"{", b'{"id":',
    b'{"id":"\xff\xfe"}', b'{"id":"\xed\xa0\x80"}', b'\xef\xbb\xbf{"id":"C1"}', b'{"id":7}',
    b'{"id":null}', b'{"id":"C1","latitude":"NaN"}', b'{"id":"C1","latitude":NaN}',
    b'{"id":"C1","latitude":1e400}', b'{"id":"C1","latitude":"Infinity"}',
    b'{"id":"C1","latitude":"sNaN"}', b'{"id":"C1","latitude":1e999999999999999999999}',
    b'{"id":"C1","latitude":1e-999999999}', b'{"id":"C1","latitude":' + b"9" * 100_000 + b"}",
    b'{"id":"C1","chargePowers":[1,2,1E+999999]}', b'{"id":"C1","chargePowers":{}}',
    b"[" * 100_000, b'{"a":' * 100_000, b'{"id":"C1","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    '{"id":"C1"}'.encode("utf-16"), b'{"id":"C1"}\0',
]  # fmt: skip


@pytest.mark.parametrize("body", NONSENSE, ids=lambda body: body[:30].decode("latin-1"))
def test_an_answer_that_makes_no_sense_is_said_to_be_none(ask: Ask, body: bytes) -> None:
    with Hostile(answer(body)) as server, pytest.raises(UnexpectedAnswer):
        ask(server.url, get, retries=0)


@pytest.mark.parametrize("body", NONSENSE, ids=lambda body: body[:30].decode("latin-1"))
@pytest.mark.parametrize("status", [b"400 No", b"409 No", b"500 No", b"999 No"])
def test_a_refusal_that_makes_no_sense_is_said_to_be_none(status: bytes, body: bytes) -> None:
    with Hostile(answer(body, status=status)) as server, pytest.raises(UnexpectedAnswer):
        blocking(server.url, get, retries=0)


@pytest.mark.parametrize("coding", [b"br", b"zstd", b"gzip, gzip", b"deflate", b"gzip", b"x" * 999])
def test_an_answer_that_cannot_be_unpacked_is_none(ask: Ask, coding: bytes) -> None:
    behaviour = answer(b"\x1f\x8b nonsense", b"Content-Encoding: " + coding)
    with Hostile(behaviour) as server, pytest.raises(UnexpectedAnswer):
        ask(server.url, get, retries=0)
    assert b"Accept-Encoding: gzip\r\n" in server.requests[0]


@pytest.mark.parametrize("body", [b"[]", b'[{"status":1e999}]', b'[{"status":201}]', b"{}"])
def test_a_bulk_answer_that_makes_no_sense_is_none(ask: Ask, body: bytes) -> None:
    event = Event(type="VEHICLE_CONNECTED", charger_id="C1", vehicle_id="V1")
    with Hostile(answer(body)) as server, pytest.raises(UnexpectedAnswer):
        ask(server.url, lambda client: client.events.bulk([event, event]), retries=0)


# Elsewhere ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["{}/chargers/C1", "//{}/", "file:///etc/passwd", "{}"])
def test_the_key_is_not_carried_elsewhere(ask: Ask, status: int, where: str) -> None:
    with ScriptedServer(Reply(200, b'{"id":"C1"}')) as elsewhere:
        moved = Reply(status, b"", {"Location": where.format(elsewhere.url)})
        with ScriptedServer(moved) as server, pytest.raises(UnexpectedAnswer):
            ask(server.url, get, retries=0)
    assert elsewhere.requests == []


def pages(client: Client) -> list[str]:
    return [charger.id for charger in client.chargers.list(page_size=1)]


def test_the_next_page_is_asked_of_our_server_only() -> None:
    with ScriptedServer(Reply(200, b"[]")) as elsewhere:
        link = {"Link": f'<{elsewhere.url}/chargers?cursor=A&limit=1>; rel="next"'}
        with ScriptedServer(Reply(200, b'[{"id":"C1"}]', link), Reply(200, b"[]")) as server:
            assert blocking(server.url, pages) == ["C1"]
        assert [request.target for request in server.requests][1] == "/chargers?limit=1&cursor=A"
    assert elsewhere.requests == []


@pytest.mark.parametrize("length", [1, 2, 7])
def test_pages_that_lead_in_a_circle_end(length: int) -> None:
    script = [
        Reply(200, b'[{"id":"C1"}]', {"Link": f'<?cursor={page % length}>; rel="next"'})
        for page in range(100)
    ]
    with ScriptedServer(*script) as server, pytest.raises(UnexpectedAnswer, match="circle"):
        blocking(server.url, pages)
    assert len(server.requests) <= 4 * length + 4


@pytest.mark.parametrize(
    "link", ["<" * 60_000, "<>;" * 20_000, "<http://[>; rel=next", "<a>; " + "rel=" * 15_000]
)
def test_a_link_that_makes_no_sense_takes_no_time(link: str) -> None:
    with ScriptedServer(Reply(200, b'[{"id":"C1"}]', {"Link": link})) as server:
        began = time.process_time()
        try:
            assert blocking(server.url, pages) == ["C1"]
        except TetherError as error:
            assert isinstance(error, UnexpectedAnswer)  # noqa: PT017
        assert time.process_time() - began < 2


def test_a_feed_that_leads_in_a_circle_ends() -> None:
    event = b'[{"id":"E1","type":"VEHICLE_CONNECTED","chargerId":"C1","vehicleId":"V1"}]'
    circle = [Reply(200, event, {"Link": f'<?cursor={page % 2}>; rel="next"'}) for page in range(9)]
    with ScriptedServer(*circle) as server, pytest.raises(UnexpectedAnswer, match="circle"):
        blocking(server.url, lambda client: list(client.events.follow()))
