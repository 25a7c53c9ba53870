"""Load and ceilings in Python, each run in a process of its own. Prints its result as wrk does.

    python -m bench.loops bulk URL KEY DAY EVENTS      POST /events/bulk, on two connections
    python -m bench.loops shuffled URL KEY DAY EVENTS  the same events, in no order
    python -m bench.loops vehicles URL KEY DAY VEHICLES   POST /vehicles/bulk of new ones
    python -m bench.loops apsw FILE PARTNER DAY EVENTS    the same rows into SQLite, nothing else
    python -m bench.loops copy URL PARTNER DAY EVENTS     the same rows into PostgreSQL by COPY
    python -m bench.loops sdk URL KEY DAY SECONDS      POST /events by `Client`, one after the other
    python -m bench.loops httpx2 URL KEY DAY SECONDS   the same by its HTTP library alone
    python -m bench.loops tasks URL KEY DAY SECONDS    POST /events by `AsyncClient`, 64 tasks

What is sent is made before the clock starts. DAY is the day's first second since 1970.
"""

import asyncio
import http.client
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, count
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import httpx2
import psycopg

from bench.events import COLUMNS, event, ndjson, row
from bench.load import CONNECTIONS
from tether.client import AsyncClient, Client, Event
from tether.ingest.event_batcher import MAX_EVENTS
from tether.storage.sqlite import file as sqlite

REQUEST = 10_000  # events in a request, and in a COPY
TRANSACTION = MAX_EVENTS  # rows in a transaction of SQLite: as many as the server's have
SENDERS = 2  # so that the next body is there when the server has done with one


def main() -> None:
    """Runs one loop and prints the result."""
    loops: dict[str, Callable[..., list[float]]] = {
        "bulk": bulk, "shuffled": shuffled, "vehicles": vehicles, "apsw": apsw_loop,
        "copy": copy, "sdk": sdk, "httpx2": plain, "tasks": tasks,
    }  # fmt: skip
    name, *arguments = sys.argv[1:]
    taken = loops[name](*arguments)
    # The first figure is how long all took, the others how long each request took, in seconds.
    seconds, *each = taken
    by_seconds = name in {"sdk", "httpx2", "tasks"}
    done = len(each) if by_seconds else int(arguments[-1])
    result = {
        "requests": done,
        "microseconds": round(seconds * 1e6),
        "not_2xx": 0,
        "broken": 0,
        "p50_us": round(statistics.median(each) * 1e6),
        "p99_us": round(max(each) * 1e6),
    }
    if name in {"bulk", "shuffled"}:
        result["contained_microseconds"] = round((seconds + _until_contained(*arguments[:2])) * 1e6)
    print("RESULT", json.dumps(result), flush=True)


def _portions(events: str, size: int) -> Iterator[range]:
    for start in range(0, int(events), size):
        yield range(start, min(start + size, int(events)))


# Many events at once -----------------------------------------------------------------------------


def bulk(url: str, key: str, day: str, events: str) -> list[float]:
    """Ends with an error unless every event is stored."""
    # Each sender has vehicles of its own (every other event is of them), and keeps their order.
    spans = list(_portions(events, SENDERS * REQUEST))
    return _post_in_bulk(url, key, [
        [ndjson(int(day), range(span.start + sender, span.stop, SENDERS)) for span in spans]
        for sender in range(SENDERS)
    ])  # fmt: skip


def shuffled(url: str, key: str, day: str, events: str) -> list[float]:
    """Each request has events of all vehicles and of the whole time."""
    numbers = list(range(int(events)))
    Random(int(day)).shuffle(numbers)
    bodies = [ndjson(int(day), numbers[part.start : part.stop])
              for part in _portions(events, REQUEST)]  # fmt: skip
    return _post_in_bulk(url, key, [bodies[sender::SENDERS] for sender in range(SENDERS)])


def vehicles(url: str, key: str, day: str, count: str) -> list[float]:
    """Ends with an error unless every vehicle is stored, and new."""
    bodies = [
        "\n".join(
            f'{{"id":"B{day}-{number:07}","chargeCapacity":74.8,"chargePowers":[11,22]}}'
            for number in part
        ).encode()
        for part in _portions(count, REQUEST)
    ]
    loads = [bodies[sender::SENDERS] for sender in range(SENDERS)]
    return _post_in_bulk(url, key, loads, "/vehicles/bulk")


def _post_in_bulk(
    url: str, key: str, loads: list[list[bytes]], path: str = "/events/bulk"
) -> list[float]:
    """Posts the bodies of each sender one after the other."""
    address = urlsplit(url)

    def post(body: bytes) -> float:
        began = time.perf_counter()
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        connection.request("POST", path, body, {"x-api-key": key})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status != 200 or any(item["status"] != 201 for item in json.loads(text)):
            sys.exit(f"POST {path}: {answer.status} {text[:200]!r}")
        return time.perf_counter() - began

    def post_all() -> list[float]:
        with ThreadPoolExecutor(SENDERS) as pool:
            return list(chain(*pool.map(lambda bodies: [*map(post, bodies)], loads)))

    return _timed(post_all)


def _until_contained(url: str, key: str) -> float:
    """How many seconds it takes until the sessions contain all events.

    A request for sessions waits for that, and gets a 503 if it takes long.
    """
    began = time.perf_counter()
    while True:
        answer = httpx2.get(f"{url}/sessions?limit=1", headers={"x-api-key": key}, timeout=60)
        if answer.status_code != 503:
            answer.raise_for_status()
            return time.perf_counter() - began


def apsw_loop(file: str, partner: str, day: str, events: str) -> list[float]:
    """With the settings that the server's own connections have."""
    portions = _rows(partner, day, events, TRANSACTION)
    connection = sqlite.connect(Path(file))
    insert = f"INSERT INTO events ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"

    def store(rows: list[tuple[object, ...]]) -> float:
        began = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(insert, rows)
        connection.execute("COMMIT")
        return time.perf_counter() - began

    return _timed(lambda: [store(rows) for rows in portions])


def copy(url: str, partner: str, day: str, events: str) -> list[float]:
    """A COPY for each portion, in the fastest form: text that was made before."""
    texts = [
        "".join("\t".join(map(str, one)) + "\n" for one in rows).encode()
        for rows in _rows(partner, day, events, REQUEST)
    ]
    with psycopg.connect(url, autocommit=True) as connection:

        def store(text: bytes) -> float:
            began = time.perf_counter()
            with connection.cursor().copy(f"COPY events ({COLUMNS}) FROM STDIN") as stream:
                stream.write(text)
            return time.perf_counter() - began

        return _timed(lambda: [store(text) for text in texts])


def _rows(partner: str, day: str, events: str, size: int) -> list[list[tuple[object, ...]]]:
    return [
        [row(int(partner), event(int(day), n)) for n in part] for part in _portions(events, size)
    ]


def _timed(work: Callable[[], list[float]]) -> list[float]:
    began = time.perf_counter()
    each = work()
    return [time.perf_counter() - began, *each]


# One event at a time -----------------------------------------------------------------------------


def sdk(url: str, key: str, day: str, seconds: str) -> list[float]:
    """The SDK, as users call it."""
    with Client(url, key) as client:
        return _until(float(seconds), lambda n: client.events.post(_event(int(day), n)))


def plain(url: str, key: str, day: str, seconds: str) -> list[float]:
    """A program without the SDK: JSON in both directions, and a check of the status."""
    with httpx2.Client(base_url=url, headers={"x-api-key": key}, timeout=30) as client:

        def post(n: int) -> object:
            answer = client.post("/events", json=event(int(day), n).document)
            answer.raise_for_status()
            return answer.json()["id"]

        return _until(float(seconds), post)


def _until(seconds: float, post: Callable[[int], object]) -> list[float]:
    began = time.perf_counter()
    each: list[float] = []
    for n in count():
        one = time.perf_counter()
        if one - began >= seconds:
            return [one - began, *each]
        post(n)
        each.append(time.perf_counter() - one)
    raise AssertionError


def tasks(url: str, key: str, day: str, seconds: str) -> list[float]:
    """As many tasks as wrk has connections, each of which posts one event after the other."""
    numbers = count()
    each: list[float] = []

    async def post_until(client: AsyncClient, end: float) -> None:
        while (one := time.perf_counter()) < end:
            await client.events.post(_event(int(day), next(numbers)))
            each.append(time.perf_counter() - one)

    async def run() -> float:
        async with AsyncClient(url, key) as client:
            began = time.perf_counter()
            end = began + float(seconds)
            await asyncio.gather(*(post_until(client, end) for _ in range(CONNECTIONS)))
            return time.perf_counter() - began

    return [asyncio.run(run()), *each]


def _event(day: int, n: int) -> Event:
    document = event(day, n).document
    return Event(
        type=document["type"],
        charger_id=document["chargerId"],
        vehicle_id=document["vehicleId"],
        state_of_charge=document["stateOfCharge"],
        timestamp=document["timestamp"],
    )


if __name__ == "__main__":
    main()
