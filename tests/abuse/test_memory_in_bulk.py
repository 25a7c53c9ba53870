"""A server that stores and derives bulk events needs little memory, whatever their order."""

import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from time import monotonic, sleep

import httpx
import pytest

from tests.conftest import Server
from tests.sql import execute
from tests.wire import peak_mb
from tether.domain.timestamps import format_instant

MAX_MB = 150
EVENTS = 20_000
REQUEST = 10_000  # events
SENDERS = 2
THINGS = 1_000
PATIENCE_S = 300
FIRST_MS = 1_600_000_000_000
TYPES = ("CONNECTED", "CHARGE_STARTED", "CHARGE_UPDATED", "CHARGE_STOPPED", "DISCONNECTED")
NOT_DERIVED = re.compile(
    r"Service Unavailable: [0-9,]+ events? waits? to be derived\. Try again in [0-9,]+ s, or add "
    r"stale=allowed for what is derived by now\."
)
FLEET = """
INSERT INTO {table} (partner, id, version, body)
WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < {last})
SELECT (SELECT max(id) FROM partners WHERE name = '{partner}'), '{letter}' || n, 1,
       '{{"id":"{letter}' || n || '","chargePowers":[11]{more}}}'
FROM numbers
"""


def events(count: int, things: int) -> list[str]:
    """The lines of a body: all vehicles in turn, each at a charger, then again the next type."""
    lines = []
    for number in range(count):
        turn, vehicle = number // things, number % things
        event = {
            "type": f"VEHICLE_{TYPES[turn % 5]}",
            "chargerId": f"C{(7 * vehicle + turn // 5) % things}",
            "vehicleId": f"V{vehicle}",
            "stateOfCharge": number % 1001 / 10,
            "timestamp": format_instant(FIRST_MS + number * 1000),
        }
        lines.append(json.dumps(event))
    return lines


def in_order() -> list[str]:
    return events(EVENTS, THINGS)


def shuffled() -> list[str]:
    lines = in_order()
    Random(1).shuffle(lines)
    return lines


def of_one_vehicle() -> list[str]:
    lines = events(EVENTS, 1)
    Random(2).shuffle(lines)
    return lines


def all_late() -> list[str]:
    lines = in_order()
    return lines[-THINGS:] + lines[:-THINGS][::-1]


def of_as_many_vehicles() -> list[str]:
    return events(EVENTS, EVENTS)


def add_fleet(server: Server, partner: str) -> None:
    """Adds as many chargers and vehicles as events, by SQL, because the API would take a minute."""
    kinds = (("chargers", "C", ""), ("vehicles", "V", ',"chargeCapacity":60'))
    statements = [
        FLEET.format(table=table, partner=partner, last=EVENTS - 1, letter=letter, more=more)
        for table, letter, more in kinds
    ]
    execute(server.database, *statements)


def post_all(server: Server, key: str, lines: list[str]) -> None:
    """Posts 10,000 events in each request, two requests at a time."""

    def post(start: int) -> None:
        with server.client(key, timeout=120) as client:
            body = "\n".join(lines[start : start + REQUEST])
            statuses = {503}
            deadline = monotonic() + PATIENCE_S
            while statuses != {201}:  # a request that got a 503 is sent again
                answer = client.post("/events/bulk", content=body)
                assert answer.status_code == 200, answer.text
                statuses = {item["status"] for item in answer.json()}
                assert statuses <= {201, 503}
                assert monotonic() < deadline, "it is not stored in time"

    with ThreadPoolExecutor(SENDERS) as pool:
        list(pool.map(post, range(0, len(lines), REQUEST)))


def wait_until_derived(client: httpx.Client) -> None:
    """Returns when the sessions contain all events; earlier requests get a Retry-After."""
    deadline = monotonic() + PATIENCE_S
    while (answer := client.get("/sessions", params={"limit": 1})).status_code == 503:
        assert NOT_DERIVED.fullmatch(answer.json()["message"])
        assert 1 <= int(answer.headers["Retry-After"]) <= 3600
        assert monotonic() < deadline, "it is not derived in time"
        stale = client.get("/sessions", params={"limit": 1, "stale": "allowed"})
        assert stale.status_code == 200
        sleep(0.2)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("engine", "orders"),
    [
        ("sqlite", [in_order, shuffled, of_one_vehicle, all_late, of_as_many_vehicles]),
        ("postgres", [shuffled, of_as_many_vehicles]),
    ],
)
def test_bulk_takes_little_memory_in_any_order(
    engine: str,
    orders: list[Callable[[], list[str]]],
    new_server: Callable[..., Server],
    request: pytest.FixtureRequest,
) -> None:
    database = None
    if engine == "postgres":
        database = request.getfixturevalue("new_postgres_database")()
    server = new_server("--log-level", "warning", database=database)
    for order in orders:
        key = server.key(order.__name__)
        add_fleet(server, order.__name__)
        post_all(server, key, order())
        with server.client(key) as client:
            wait_until_derived(client)
        assert peak_mb(server) < MAX_MB, order.__name__
    assert server.failures() == []
