"""Requests about whose end two servers in a row could disagree, each with another request inside.

If a server reads the outer request in one way, the inner one is a request of its own; in another
way, it is part of a body. It creates a charger, and has an id that shows it in the log.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

CHARGER = b'{"chargePowers":[11]}'


@dataclass(frozen=True)
class Variant:
    """The bytes to send. `allowed`: a strict parser also reads the inner request on its own."""

    name: str
    raw: bytes
    allowed: bool = False


def variants(key: str, mark: str) -> list[Variant]:
    """All variants, with this key; the ids of the inner requests are `smuggled-<mark>-<number>`."""
    tables = [lengths, codings, chunks, request_lines, targets, headers]
    makers = [made for table in tables for made in table()]
    return [
        Variant(name, make(Parts(key, mark, number)), allowed)
        for number, (name, make, allowed) in enumerate(makers)
    ]


@dataclass(frozen=True)
class Parts:
    """The parts of the variant with this number."""

    key: str
    mark: str
    number: int

    @property
    def inside(self) -> bytes:
        """The request inside."""
        name = f"{self.mark}-{self.number:04}"
        return (
            f"PUT /chargers/S-{name} HTTP/1.1\r\nhost: x\r\nx-api-key: {self.key}\r\n"
            f"x-request-id: smuggled-{name}\r\ncontent-length: {len(CHARGER)}\r\n\r\n"
        ).encode() + CHARGER

    def head(self, *lines: bytes, first: bytes = b"POST /events HTTP/1.1") -> bytes:
        """The head of the outer request, with these lines at its end."""
        own = b"host: x\r\nx-api-key: " + self.key.encode()
        return b"\r\n".join([first, own, *lines, b"", b""])


Maker: TypeAlias = Callable[[Parts], bytes]
Made: TypeAlias = Iterator[tuple[str, Maker, bool]]  # with a name, and whether another is allowed


def filled(template: bytes, length: int) -> bytes:
    """LEN and HEX stand for the length of the inner request."""
    return template.replace(b"LEN", b"%d" % length).replace(b"HEX", b"%x" % length)


# Lengths ----------------------------------------------------------------------------------------

# The body is the inner request. A server that reads the length as 0 takes it for the next request.
LENGTHS_OF_NOTHING = [b"0", b"00", b"0" * 30]
LENGTHS = [
    b"+LEN", b"-LEN", b"-0", b"+0", b"0x0", b"0xHEX", b"LEN,LEN", b"LEN, LEN", b"LEN,0", b"0,LEN",
    b"0, 0", b"LEN LEN", b"0 LEN", b"LEN;", b"LENx", b'"LEN"', b"'LEN'", b"LEN.0", b"LENe0",
    b"1_0", b"\x0bLEN", b"LEN\x0b", b"\x0cLEN", b"LEN\x00", b"\x00LEN", b"", b" ", b"-1",
    b"\xa0LEN", "\uff10".encode(), "\u0660".encode(), b"%30", b"18446744073709551616",
    b"4294967296", b"99999999999999999999999999", b"LEN\r\n 0", b"0\r\n LEN", b"0\r\n\tLEN",
    b"\r\n LEN", b"many", b"LEN", b"0LEN", b"LEN ", b"LEN\t", b"\tLEN",
]  # fmt: skip
LENGTH_LINES = [
    b"Content-Length: 0\r\nContent-Length: LEN", b"Content-Length: LEN\r\nContent-Length: 0",
    b"Content-Length: LEN\r\nContent-Length: LEN", b"Content-Length: LEN\r\ncontent-length: x",
    b"Content-Length : LEN", b"Content-Length\t: LEN", b" Content-Length: LEN",
    b"X: y\r\n Content-Length: LEN", b"Content-Length\x00: LEN", b"Content-\x00Length: LEN",
    b"Content-Length\r\n: LEN", b"X: y\rContent-Length: LEN", b"X: y\nContent-Length: LEN",
    b"Content-Length: LEN\r\nConnection: content-length", b"\x00Content-Length: LEN",
    b"Content-Length LEN", b"(Content-Length): LEN", b"Content-Length: LEN\r\nContent_Length: 0",
]  # fmt: skip
OTHER_LENGTH_LINES = [b"Content_Length: LEN", b"X-Content-Length: LEN", b"Content-Lengths: LEN"]


def lengths() -> Made:
    """Invalid lengths, and invalid lines with a length."""

    def make(line: bytes, parts: Parts) -> bytes:
        return parts.head(filled(line, len(parts.inside))) + parts.inside

    for value in [*LENGTHS_OF_NOTHING, *LENGTHS]:
        nothing = value in LENGTHS_OF_NOTHING
        yield f"length {value!r}", partial(make, b"Content-Length: " + value), nothing
    for line in LENGTH_LINES:
        yield f"length {line!r}", partial(make, line), False
    for line in OTHER_LENGTH_LINES:
        yield f"no length {line!r}", partial(make, line), True


# Codings ----------------------------------------------------------------------------------------

CHUNKED = [
    b"Transfer-Encoding: chunked", b"Transfer-Encoding:chunked", b"Transfer-Encoding: chunked  ",
    b"Transfer-Encoding:\tchunked", b"TRANSFER-ENCODING: CHUNKED", b"Transfer-Encoding: ,chunked",
    b"Transfer-Encoding: chunked,", b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: identity, chunked", b"X: y\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nConnection: transfer-encoding",
    b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nTrailer: Content-Length",
]  # fmt: skip
NOT_CHUNKED = [
    b"Transfer-Encoding: \x0bchunked", b"Transfer-Encoding: chunked\x0b",
    b'Transfer-Encoding: "chunked"', b"Transfer-Encoding: 'chunked'",
    b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunkedx",
    b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding: identity",
    b"Transfer-Encoding: chunked, chunked", b"Transfer-Encoding: chunked;q=1",
    b"Transfer-Encoding: chunked gzip", b" Transfer-Encoding: chunked",
    b"Transfer-Encoding : chunked", b"Transfer-Encoding\t: chunked",
    b"X: y\rTransfer-Encoding: chunked", b"Transfer-Encoding:\r\n chunked",
    b"Transfer-Encoding: \x00chunked", b"Transfer-Encoding: chunked\x00",
    b"Transfer-Encoding: chunk\r\n ed",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x", b"Transfer-Encoding:",
    b"Transfer-Encoding: \xffchunked", b"Transfer-Encoding: chunked\xa0",
    b"Transfer-Encoding: chun", b"Transfer-Encoding\x00: chunked", b"Transfer-Encoding chunked",
    b"Transfer-Encoding: 0",
]  # fmt: skip
OTHER_CODING_LINES = [b"Transfer_Encoding: chunked", b"X-Transfer-Encoding: chunked",
                      b"TE: chunked", b"Content-Encoding: chunked"]  # fmt: skip


def codings() -> Made:
    """Each coding without a length, with a larger one, and with a smaller one."""

    def alone(line: bytes, parts: Parts) -> bytes:
        return parts.head(line) + b"0\r\n\r\n" + parts.inside

    def length_says_more(line: bytes, parts: Parts) -> bytes:
        body = b"0\r\n\r\n" + parts.inside
        return parts.head(line, b"Content-Length: %d" % len(body)) + body

    def length_says_less(line: bytes, parts: Parts) -> bytes:
        size = b"%x\r\n" % len(parts.inside)
        body = size + parts.inside + b"\r\n0\r\n\r\n"
        return parts.head(b"Content-Length: %d" % len(size), line) + body

    for line in [*CHUNKED, *NOT_CHUNKED, *OTHER_CODING_LINES]:
        yield f"coding {line!r}", partial(alone, line), line in CHUNKED
        yield f"coding {line!r}, longer", partial(length_says_more, line), False
        shorter = partial(length_says_less, line)
        yield f"coding {line!r}, shorter", shorter, line in OTHER_CODING_LINES


# Chunks -----------------------------------------------------------------------------------------

# Bodies behind which the next request follows, and bodies that are broken before it.
LAST_CHUNKS = [
    b"0\r\n\r\n", b"000\r\n\r\n", b"0;a\r\n\r\n", b"0;a=b\r\n\r\n", b'0;a="b"\r\n\r\n',
    b"0 ;a=b\r\n\r\n", b"0 \r\n\r\n", b"0;\r\n\r\n", b"1\r\nA\r\n0\r\n\r\n", b"0\r\nX: y\r\n\r\n",
    b"0\r\nContent-Length: 9\r\n\r\n", b"0\r\nHost: y\r\n\r\n",
    b"0\r\nTransfer-Encoding: chunked\r\n\r\n", b"0\r\nx-request-id: z\r\n\r\n", b"0\n\n",
    b"0\r\n\n", b"0\n\r\n", b"1\nA\n0\n\n", b"0\r\nX: y\n\r\n", b"0" * 20 + b"\r\n\r\n",
]  # fmt: skip
BROKEN_CHUNKS = [
    b"0x0\r\n\r\n", b"-0\r\n\r\n", b"+0\r\n\r\n", b" 0\r\n\r\n", b"\t0\r\n\r\n", b"0_0\r\n\r\n",
    b"0,0\r\n\r\n", b"0\x00\r\n\r\n", b"0 0\r\n\r\n", b"0\x0b\r\n\r\n", b"0\xa0\r\n\r\n",
    b";0\r\n\r\n", b"\r\n\r\n", b"g\r\n\r\n", b"'0'\r\n\r\n", b"\xef\xbc\x90\r\n\r\n",
    b"10000000000000000\r\n\r\n", b"100000000\r\n\r\n", b"fffffffffffffffff\r\n\r\n",
    b"ffffffffffffffff\r\n\r\n", b"1" + b"0" * 40 + b"\r\n\r\n", b"1\r\nA0\r\n\r\n",
    b"1\r\nAB\r\n0\r\n\r\n", b"1\r\n\r\n0\r\n\r\n", b"2\r\nA\r\n0\r\n\r\n", b"1\rA\r0\r\r",
    b"0\r\r\n\r\n", b"0;a\rb\r\n\r\n", b"0;a\x00\r\n\r\n", b"1\r\nA\r0\r\n\r\n", b"HEX\r\n",
    b"HEX;a=b\r\n", b"00HEX\r\n", b"HEX\n", b"HEX \r\n",
]  # fmt: skip


def chunks() -> Made:
    """Chunks and trailers of all kinds."""

    def make(before: bytes, parts: Parts) -> bytes:
        body = filled(before, len(parts.inside)) + parts.inside
        return parts.head(b"Transfer-Encoding: chunked") + body + b"\r\n0\r\n\r\n"

    for before in [*LAST_CHUNKS, *BROKEN_CHUNKS]:
        yield f"chunks {before!r}", partial(make, before), before in LAST_CHUNKS


# Everything else has a good length, so that what is inside is in the body ------------------------

REQUEST_LINES = [
    b"GET /events HTTP/1.1", b"HEAD /events HTTP/1.1", b"DELETE /events HTTP/1.1",
    b"OPTIONS /events HTTP/1.1", b"TRACE /events HTTP/1.1", b"PATCH /chargers/C1 HTTP/1.1",
    b"PUT /chargers/C1 HTTP/1.1", b"GET /health HTTP/1.1", b"CONNECT x:80 HTTP/1.1",
    b"PRI * HTTP/2.0", b"post /events HTTP/1.1", b"P\xd6ST /events HTTP/1.1", b"POST /events",
    b"POST /events HTTP/1.0", b"POST /events HTTP/0.9", b"POST /events HTTP/1.2",
    b"POST /events HTTP/2.0", b"POST /events HTTP/1.10", b"POST /events HTTP/11",
    b"POST /events http/1.1", b"POST /events HTTP/1.1 HTTP/1.1", b"POST  /events HTTP/1.1",
    b"POST\t/events\tHTTP/1.1", b"POST /events  HTTP/1.1", b" POST /events HTTP/1.1",
    b"\r\nPOST /events HTTP/1.1", b"\nPOST /events HTTP/1.1", b"\r\n\r\nPOST /events HTTP/1.1",
    b"POST /events HTTP/1.1 ", b"POST /events HTTP/1.1\x00", b"POST /events HTTP/1,1",
    b"GET /events HTTP/1.0\r\nConnection: keep-alive",
]  # fmt: skip
TARGETS = [
    b"http://x/events", b"http://elsewhere.example/events", b"https://x/events",
    b"http://a@x/events", b"HTTP://X/events", b"http:///events", b"http:/events", b"x:80",
    b"x/events", b"*", b"//events", b"/events#", b"/events?#x", b"/%65vents",
    b"/events%20HTTP/1.1", b"/events%0d%0aX:%20y", b"/events%0d%0a%0d%0aPUT%20/chargers/S",
    b"/events%00", b"/chargers/%2e%2e/events", b"/./events", b"/chargers/../events", b"/events\\",
    b"/events;a=b", b"/events?a=%0d%0a", b"/ events", b"/events\x7f", b"/\xe4", b"/%", b"/%zz",
    b"/events?" + b"a" * 6000, b"/events\x0b", b"", b"/chargers/%252e%252e%252fevents",
    b"/events/?x=1?y=2", b"/chargers/a%2fb", b"/events%3flimit=1",
]  # fmt: skip
HEADERS = [
    b"Upgrade: h2c\r\nConnection: upgrade", b"Upgrade: websocket\r\nConnection: upgrade",
    b"Upgrade: TLS/1.0\r\nConnection: upgrade",
    b"Upgrade: h2c\r\nConnection: upgrade\r\nHTTP2-Settings: AAMAAABkAAQ",
    b"Expect: 100-continue", b"Expect: x", b"Expect: 100-continue\r\nExpect: 100-continue",
    b"Host: y", b"Host:", b"host: x, y", b"Host : x", b"Host: x\r\n y", b"X: y\r\n z",
    b"X: y\r\n\tz", b"X: y\n z", b"X: a\x00b", b"X: a\rb", b"X\x7f: y", b"X[]: y", b"X y: z",
    b": y", b"nothing", b"X: " + b"a" * 9000, b"X\xe4: y", b"X: \xe4", b"Connection: close",
    b"Connection: close, keep-alive", b"Connection: keep-alive", b"Connection: x-api-key",
    b"Connection: host", b"Keep-Alive: timeout=1", b"Content-Type: x\r\n\r",
    b"X-HTTP-Method-Override: PUT", b"X-Original-URL: /chargers", b"X-Forwarded-Host: y",
    b"Trailer: X", b"TE: trailers", b"Max-Forwards: 0", b"Range: bytes=0-1", b"\tX: y", b"X:: y",
    b"x-request-id: a\x00", b"x-request-id: smuggled", b"Content-Range: bytes 0-1/2",
]  # fmt: skip


def _with_length(first: bytes, line: bytes | None, parts: Parts) -> bytes:
    lines = [] if line is None else [line]
    length = b"Content-Length: %d" % len(parts.inside)
    return parts.head(*lines, length, first=first) + parts.inside


def request_lines() -> Made:
    """Methods, versions and spaces."""
    for line in REQUEST_LINES:
        yield f"line {line!r}", partial(_with_length, line, None), False
    for line in (b"POST /events HTTP/1.0", b"POST /events HTTP/1.0\r\nConnection: keep-alive"):

        def chunked(first: bytes, parts: Parts) -> bytes:
            return (
                parts.head(b"Transfer-Encoding: chunked", first=first) + b"0\r\n\r\n" + parts.inside
            )

        yield f"chunked {line!r}", partial(chunked, line), False


def targets() -> Made:
    """The targets, between the method and the version."""
    for target in TARGETS:
        line = b"POST " + target + b" HTTP/1.1"
        yield f"target {target[:40]!r}", partial(_with_length, line, None), False


def headers() -> Made:
    """Other lines of the head."""
    for line in HEADERS:
        make = partial(_with_length, b"POST /events HTTP/1.1", line)
        yield f"header {line[:40]!r}", make, False
