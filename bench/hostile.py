"""The ways in which a hostile partner abuses a server, with its own key and without one.

python -m bench.hostile URL KEY NUMBER SECONDS ABUSE …: runs these abuses in random order, four at a
time, until the time is over. Prints one line of JSON: how many answers had which status. NUMBER
seeds the order.
"""

import asyncio
import gzip
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from functools import cache
from time import monotonic
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import aiohttp

from tether.domain.timestamps import format_instant

AT_ONCE = 4  # abuses
LONGEST_S = 60.0  # of an abuse: then it is given up
PATIENCE_S = 300.0  # for the server to take what there is to begin with
BEGINNING_MS = 1_672_531_200_000  # 2023-01-01
YEAR_MS = 365 * 86_400_000
CROWDED = "crowded"  # a charger at which all vehicles are plugged in
VEHICLES = 2000
FEW_TYPES = ("VEHICLE_CONNECTED", "VEHICLE_CHARGE_STARTED", "VEHICLE_CHARGE_STOPPED")
RARE_TYPE = "VEHICLE_DISCONNECTED"  # there are none of it to begin with
BULK = 10_000  # events in a request, as many as are allowed
BOMB_BYTES = 8 * 1024 * 1024 - 1  # as many as are allowed once they are unpacked
BIG_FILE = "/static/scalar-api-reference.js"

Abuse: TypeAlias = "Callable[[Partner], Awaitable[None]]"


class Partner:
    """A hostile partner, and the statuses of its answers."""

    def __init__(self, url: str, key: str, number: int) -> None:
        self.url = url
        self.key = key
        self.random = random.Random(number)
        self.statuses: Counter[str] = Counter()
        self.session: aiohttp.ClientSession

    async def run(self, seconds: float, abuses: list[Abuse]) -> None:
        """Abuses the server for so long."""
        end = monotonic() + seconds
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=LONGEST_S)
        headers = {"x-api-key": self.key}
        async with aiohttp.ClientSession(
            self.url, connector=connector, timeout=timeout, headers=headers
        ) as self.session:
            await asyncio.gather(*(self._abuse_until(end, abuses) for _ in range(AT_ONCE)))

    async def _abuse_until(self, end: float, abuses: list[Abuse]) -> None:
        while monotonic() < end:
            abuse = self.random.choice(abuses)
            try:
                await asyncio.wait_for(abuse(self), LONGEST_S)
            except TimeoutError:
                self.statuses[f"given up: {abuse.__name__}"] += 1

    async def ask(self, method: str, path: str, body: bytes | None = None, **more: str) -> None:
        """Makes a request and reads its answer."""
        headers = {name.replace("_", "-"): value for name, value in more.items()}
        try:
            async with self.session.request(method, path, data=body, headers=headers) as answer:
                await answer.read()
                self.statuses[str(answer.status)] += 1
        except TimeoutError:
            self.statuses["no answer"] += 1
        except (aiohttp.ClientError, OSError):
            self.statuses["connection lost"] += 1

    async def all(self, requests: Iterable[Awaitable[None]]) -> None:
        """Makes all these requests at once."""
        await asyncio.gather(*requests)

    async def raw(self, *pieces: bytes, pause_s: float = 0.0, hold_s: float = 0.0) -> None:
        """Writes the pieces with a pause after each, and holds the connection without reading."""
        address = urlsplit(self.url)
        try:
            reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=1)
            try:
                for piece in pieces:
                    writer.write(piece)
                    await asyncio.sleep(pause_s)
                await asyncio.sleep(hold_s)
                start = await asyncio.wait_for(reader.read(12), 1)
                self.statuses[start[9:12].decode("ascii", "replace") or "connection lost"] += 1
            finally:
                writer.transport.abort()
        except TimeoutError:
            self.statuses["no answer"] += 1
        except OSError:
            self.statuses["connection lost"] += 1

    def head(self, method: str, path: str, *lines: str) -> bytes:
        """A head of HTTP with the key."""
        return "\r\n".join(
            [f"{method} {path} HTTP/1.1", "host: x", f"x-api-key: {self.key}", *lines, "", ""]
        ).encode()


async def insist(session: aiohttp.ClientSession, method: str, path: str, body: bytes) -> None:
    """Repeats a request until all of it is stored, because a slow database may answer 503.

    Raises RuntimeError if the server does not take it.
    """
    deadline = monotonic() + PATIENCE_S
    while True:
        async with session.request(method, path, data=body) as answer:
            found = [answer.status]
            if answer.status == 200 and path.endswith("/bulk"):
                found = [item["status"] for item in await answer.json()]
            pause_s = float(answer.headers.get("Retry-After", 1))
        if 503 not in found or monotonic() > deadline:
            break
        await asyncio.sleep(pause_s)
    if not {200, 201}.issuperset(found):
        raise RuntimeError(f"The server did not take what there is to begin with: {set(found)}")


def events(pick: random.Random, count: int, first_ms: int, kinds: Iterable[str]) -> bytes:
    """A body of events of random vehicles, one for each minute from then on, in random order."""
    kinds = tuple(kinds)
    lines = [
        json.dumps({
            "type": pick.choice(kinds), "chargerId": f"C{pick.randrange(10)}",
            "vehicleId": f"V{pick.randrange(VEHICLES)}",
            "timestamp": format_instant(first_ms + n * 60_000 + pick.randrange(60_000)),
        })
        for n in range(count)
    ]  # fmt: skip
    pick.shuffle(lines)
    return "\n".join(lines).encode()


@cache
def zipped(what: str) -> bytes:
    """Bodies that are small on the wire and large, or costly, behind it."""
    bodies = {
        "line": b'{"type":"' + b"x" * BOMB_BYTES,
        "array": b"[" + b"[]," * (BOMB_BYTES // 3 - 1) + b"[]]",
        "lines": b"{}\n" * (BOMB_BYTES // 3),
        "objects": b"[" + b'{"a":1},' * (BULK - 1) + b"{}]",
        "wrong": b'{"type":"VEHICLE_CONNECTED","chargerId":"none","vehicleId":"none"}\n' * BULK,
        "commas": b'{"chargePowers":[1' + b"," * 100_000 + b"]}",
        "deep": b"[" * 1_000_000,
    }
    return gzip.compress(bodies[what])


# Abuses -----------------------------------------------------------------------------------------


async def bulk_bombs(partner: Partner) -> None:
    """Bodies of a few kB that are 8 MiB unpacked."""
    what = partner.random.choice(["line", "array", "lines", "objects", "deep"])
    body = zipped(what)
    await partner.all(
        partner.ask("POST", "/events/bulk", body, content_encoding="gzip") for _ in range(8)
    )


async def wrong_bulk(partner: Partner) -> None:
    """Bodies of 10,000 events of which none is right."""
    body = zipped("wrong")
    await partner.all(
        partner.ask("POST", "/events/bulk", body, content_encoding="gzip") for _ in range(4)
    )


async def shuffled_bulk(partner: Partner) -> None:
    """Events of a week long ago in any order: all sessions of it change."""
    first_ms = BEGINNING_MS + partner.random.randrange(YEAR_MS)
    body = events(partner.random, 1000, first_ms, (*FEW_TYPES, RARE_TYPE))
    await partner.ask("POST", "/events/bulk", body)


async def commas(partner: Partner) -> None:
    """Bodies of some hundred bytes that are costly to read."""
    what = partner.random.choice(["commas", "deep"])
    await partner.all(
        partner.ask("PUT", "/chargers/C1", zipped(what), content_encoding="gzip") for _ in range(50)
    )


async def scans(partner: Partner) -> None:
    """Lists with filters that few of many rows match."""
    queries = [
        f"/events?type={RARE_TYPE}&limit=1",
        f"/events?type={RARE_TYPE}&order=desc&limit=1",
        "/events?chargerId=C1&vehicleId=V1&limit=1000",
        "/events?limit=1000",
        "/sessions?limit=1000",
        "/sessions?updatedFrom=2023-01-01T00:00:00Z&limit=1000",
        "/capacity?from=2023-01-01T00:00:00Z&to=2023-06-01T00:00:00Z&step=14400",
        "/capacity?by=charger&at=2023-03-01T00:00:00Z",
    ]
    path = partner.random.choice(queries)
    await partner.all(partner.ask("GET", path) for _ in range(60))


async def crowded_charger(partner: Partner) -> None:
    """The state of a charger at which all vehicles are, and lists with all states."""
    lists = ["/chargers?include=state", "/vehicles?include=state&limit=1000"]
    path = partner.random.choice([f"/chargers/{CROWDED}/state", *lists])
    await partner.all(partner.ask("GET", path) for _ in range(20))


async def patches(partner: Partner) -> None:
    """Many patches of one charger at once."""
    await partner.all(
        partner.ask("PATCH", "/chargers/C1", b'{"chargePowers":[%d]}' % (n + 1)) for n in range(200)
    )


async def unread_files(partner: Partner) -> None:
    """The largest file, for connections that do not read."""
    request = partner.head("GET", BIG_FILE)
    await partner.all(partner.raw(request * 4, hold_s=3) for _ in range(100))


async def unread_lists(partner: Partner) -> None:
    """Long pages, for connections that do not read."""
    request = partner.head("GET", "/events?limit=1000")
    await partner.all(partner.raw(request * 8, hold_s=3) for _ in range(30))


async def wrong_keys(partner: Partner) -> None:
    """Invalid keys, each a different one, short and long."""
    size = partner.random.choice([36, 2000, 60_000])
    first = partner.random.randrange(10**9)
    await partner.all(
        partner.ask("GET", "/chargers", x_api_key=f"ttr_live_{first + n:0{size}}")
        for n in range(100)
    )


async def many_connections(partner: Partner) -> None:
    """Connections that send nothing, or half a head."""
    piece = partner.random.choice([b"", b"GET /chargers HT"])
    await partner.all(partner.raw(piece, hold_s=3) for _ in range(400))


async def slow_bodies(partner: Partner) -> None:
    """Bodies that come byte after byte."""
    head = partner.head("PUT", "/chargers/C1", "content-length: 100000")
    await partner.all(partner.raw(head, *([b" "] * 20), pause_s=0.25) for _ in range(100))


async def streams(partner: Partner) -> None:
    """More streams than a key may have, from the first event on, without reading them."""
    request = partner.head("GET", "/stream?cursor=start")
    await partner.all(partner.raw(request, hold_s=4) for _ in range(60))


async def no_http(partner: Partner) -> None:
    """Bytes that are not HTTP, and heads that two servers would read in two ways."""
    both = partner.head("POST", "/events", "content-length: 5", "transfer-encoding: chunked")
    await partner.all(
        partner.raw(piece)
        for piece in [partner.random.randbytes(2000), b"GET / HTTP/9\r\n\r\n", both + b"0\r\n\r\n"]
        * 20
    )


async def single_requests(partner: Partner) -> None:
    """As many ordinary requests as the rate allows, and more."""
    event = {"type": "VEHICLE_CONNECTED", "chargerId": "C1", "vehicleId": "V1"}
    body = json.dumps(event).encode()
    await partner.all(partner.ask("POST", "/events", body) for _ in range(300))


ABUSES: list[Abuse] = [
    bulk_bombs, wrong_bulk, shuffled_bulk, commas, scans, crowded_charger, patches, unread_files,
    unread_lists, wrong_keys, many_connections, slow_bodies, streams, no_http, single_requests,
]  # fmt: skip


async def furnish(url: str, key: str, number: int, count: int) -> None:
    """Creates chargers, vehicles and `count` events to abuse, with a key without a limit."""
    pick = random.Random(number)
    async with aiohttp.ClientSession(url, headers={"x-api-key": key}) as session:
        for name in [CROWDED, *(f"C{n}" for n in range(10))]:
            await insist(session, "PUT", f"/chargers/{name}", b'{"chargePowers":[11]}')
        vehicle = b'{"chargePowers":[11],"chargeCapacity":60}'
        for first in range(0, VEHICLES, 50):
            some = range(first, first + 50)
            await asyncio.gather(
                *(insist(session, "PUT", f"/vehicles/V{n}", vehicle) for n in some)
            )
        crowd = [
            json.dumps({"type": "VEHICLE_CONNECTED", "chargerId": CROWDED, "vehicleId": f"V{n}",
                        "timestamp": format_instant(BEGINNING_MS + 2 * YEAR_MS + n)})
            for n in range(VEHICLES)
        ]  # fmt: skip
        await insist(session, "POST", "/events/bulk", "\n".join(crowd).encode())
        for first in range(0, count, BULK):
            first_ms = BEGINNING_MS + first * 60_000
            body = events(pick, min(BULK, count - first), first_ms, FEW_TYPES)
            await insist(session, "POST", "/events/bulk", body)


def main() -> None:
    """Abuses the server, and prints the statuses of the answers."""
    url, key, number, seconds, *names = sys.argv[1:]
    os.nice(10)  # as if it were on another machine: the processor's time is the server's
    partner = Partner(url, key, int(number))
    chosen = [abuse for abuse in ABUSES if abuse.__name__ in names]
    asyncio.run(partner.run(float(seconds), chosen))
    result: dict[str, Any] = dict(partner.statuses)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
