"""Measures derived data: speed of reads, delay after an event, growth."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import islice
from statistics import median

from bench.bulk import copy_rows
from bench.compare import compare_latencies, compare_rates
from bench.contest import Bench, Measure, Outcome, compete, getter, prepared, say
from bench.contestants import CHARGERS, VEHICLES, Contestant, Server
from bench.databases import Database, PostgresDatabase
from bench.load import LoadError, Run, post_count, post_events
from bench.paths import write_lines
from bench.table import Row, at_least, at_most, single

EVENTS = 20_000
STATES_RATIO = 0.6  # of the rate of GET /chargers/{id}, at least
GROWTH = 1.5  # the latency with many events by that with few, at most
LAG_S = 1.0
FLEET = 100_000
# What is asked for of a large fleet, by what it is called in the table.
OF_A_FLEET = {
    "page of 100 sessions": "/sessions?limit=100",
    "page of 100 active sessions": "/sessions?status=active&limit=100",
    "capacity now": "/capacity",
}
DERIVED_S = 60.0
DERIVED_LARGE_S = 7200.0
BULK = 10_000  # events in a request


def states(subject: Contestant) -> Callable[[Bench], list[Row]]:
    """GET /vehicles/{id}/state against GET /chargers/{id}, of one server."""

    def run(bench: Bench) -> list[Row]:
        outcome = Outcome()
        state, charger = "GET /vehicles/{id}/state", "GET /chargers/{id}"
        with prepared(bench, subject) as server:
            if (posted := post_count(server.url, server.key, EVENTS)).failed:
                raise LoadError(f"{EVENTS:,} events could not be stored: {posted}")
            wait_until_derived(server)
            paths = {
                state: [f"/vehicles/{vehicle}/state" for vehicle in VEHICLES],
                charger: [f"/chargers/{identifier}" for identifier in CHARGERS],
            }
            measures: dict[str, Measure] = {
                name: getter(server, write_lines(bench.folder / f"paths-{place}", lines))
                for place, (name, lines) in enumerate(paths.items())
            }
            compete(bench, measures, outcome)
        name = f"{subject.engine}: {state} vs {charger}"
        return [compare_rates(name, outcome, (state, charger), at_least(STATES_RATIO))]

    return run


def lag(subject: Contestant) -> Callable[[Bench], list[Row]]:
    """The time from the 201 of an event until it is visible, during posts at full speed."""

    def run(bench: Bench) -> list[Row]:
        with prepared(bench, subject) as server:
            seconds = bench.rounds * bench.seconds
            load = threading.Thread(target=post_events, args=(server.url, server.key, seconds))
            load.start()
            seen: dict[str, list[float]] = {"state": [], "sessions": []}
            for number in _while(load):
                for what, lags in seen.items():
                    lags.append(_lag(server, what, number))
            load.join()
        return [
            single(
                f"{subject.engine}: an event in {what} after its 201, p99 of {len(lags)}",
                sorted(lags)[len(lags) * 99 // 100],
                "{:.3f} s",
                at_most(LAG_S, " s"),
            )
            for what, lags in seen.items()
        ]

    return run


def session_sizes(subject: Contestant, large: int) -> Callable[[Bench], list[Row]]:
    """Reads about a plugged-in fleet, after many events and after few."""

    def run(bench: Bench) -> list[Row]:
        rows = []
        with ExitStack() as stack:
            servers = {
                f"{count:,} events": stack.enter_context(
                    subject.running(*_fleet(bench, subject, count), bench.new_log())
                )
                for count in (FLEET, large)
            }
            small, big = servers
            for what, path in OF_A_FLEET.items():
                outcome = Outcome()
                measures = {name: alone(server, path) for name, server in servers.items()}
                compete(bench, measures, outcome)
                name = f"{subject.engine}: {what}, {big} vs {small}"
                rows.append(compare_latencies(name, outcome, (big, small), at_most(GROWTH)))
        return rows

    return run


def _fleet(bench: Bench, subject: Contestant, count: int) -> tuple[Database, str]:
    """A database with this many events of FLEET vehicles; their last event is a plug-in."""
    say(f"  filling: {count:,} events of {FLEET:,} vehicles")
    with prepared(bench, subject) as server:
        database, key = server.database, server.key
    assert isinstance(database, PostgresDatabase)
    copy_rows(database, "vehicles", VEHICLES_OF_FLEET.format(partner="{partner}", fleet=FLEET))
    turns = count // FLEET
    copy_rows(database, "events", EVENTS_OF_FLEET.format(
        partner="{partner}", count=turns * FLEET, fleet=FLEET, last=turns - 1))  # fmt: skip
    with subject.running(database, key, bench.new_log()) as server:
        wait_until_derived(server, DERIVED_LARGE_S)
    database.run("VACUUM ANALYZE")
    return database, key


VEHICLES_OF_FLEET = """
SELECT {partner}, 'F' || n, 1,
       format('{{"id":"F%s","chargeCapacity":74.8,"chargePowers":[11]}}', n)
FROM generate_series(0, {fleet} - 1) n
"""

_FIRST_MS = 1_700_000_000_000
EVENTS_OF_FLEET = f"""
SELECT {{partner}}, n, id, type, charger_id, vehicle_id, at_ms, 0,
       format('{{{{"id":"%s","type":"%s","chargerId":"%s","vehicleId":"%s",'
              '"stateOfCharge":%s,"timestamp":"%s"}}}}', id, type, charger_id, vehicle_id,
              round((n % 1001) / 10.0, 1),
              to_char(to_timestamp(at_ms / 1000.0) AT TIME ZONE 'UTC',
                      'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
FROM (SELECT n, uuidv7()::text AS id, 'F' || n % {{fleet}} AS vehicle_id,
             'C' || to_char(n % {len(CHARGERS)}, 'FM0000') AS charger_id,
             (ARRAY['VEHICLE_CONNECTED', 'VEHICLE_CHARGE_STARTED', 'VEHICLE_CHARGE_UPDATED',
                    'VEHICLE_CHARGE_STOPPED', 'VEHICLE_DISCONNECTED'])
             [((n - 1) / {{fleet}} - {{last}} + 5 * {{last}}) % 5 + 1] AS type,
             {_FIRST_MS} + n AS at_ms
      FROM generate_series(1::bigint, {{count}}) n) event
"""


# Probes -------------------------------------------------------------------------------------------


def _while(load: threading.Thread) -> Iterator[int]:
    number = 0
    while load.is_alive():
        yield number
        number += 1
        time.sleep(0.02)


def _lag(server: Server, what: str, number: int) -> float:
    """Seconds from the 201 of an event to the end of the first answer that shows it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    at = datetime.fromtimestamp(1_600_000_000 + number, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    vehicle = VEHICLES[0] if what == "state" else VEHICLES[1]
    charger = CHARGERS[number % 2]  # another one than before, so that a session begins
    event = {"type": "VEHICLE_CONNECTED", "chargerId": charger, "vehicleId": vehicle,
             "timestamp": at}  # fmt: skip
    headers = {"x-api-key": server.key}
    connection.request("POST", "/events", json.dumps(event), headers)
    answer = connection.getresponse()
    if answer.status != 201:
        raise LoadError(f"POST /events: {answer.status} {answer.read()!r}")
    answer.read()
    acknowledged = time.perf_counter()
    path = f"/vehicles/{vehicle}/state"
    if what == "sessions":
        path = f"/sessions?vehicleId={vehicle}&from={at}&to={at[:-4]}001Z"
    while at.encode() not in _get(connection, path, headers):
        if time.perf_counter() - acknowledged > 10 * LAG_S:
            break
    connection.close()
    return time.perf_counter() - acknowledged


def _get(connection: http.client.HTTPConnection, path: str, headers: dict[str, str]) -> bytes:
    connection.request("GET", path, headers=headers)
    return connection.getresponse().read()


def alone(server: Server, path: str) -> Measure:
    """Measures GET of a path by a client that waits for each answer."""

    def measure(seconds: float) -> Run:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        lags: list[float] = []
        began = time.perf_counter()
        while not lags or time.perf_counter() - began < seconds:
            asked = time.perf_counter()
            connection.request("GET", path, headers={"x-api-key": server.key})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise LoadError(f"GET {path}: {answer.status}")
            lags.append(1000 * (time.perf_counter() - asked))
        connection.close()
        p99 = sorted(lags)[len(lags) * 99 // 100]
        return Run(len(lags), 0, time.perf_counter() - began, median(lags), p99)

    return measure


def wait_until_derived(server: Server, patience_s: float = DERIVED_S) -> None:
    """Asks for sessions, which are answered when all events are derived."""
    end = time.perf_counter() + patience_s
    while time.perf_counter() < end:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("GET", "/sessions?limit=1", headers={"x-api-key": server.key})
        answer = connection.getresponse()
        connection.close()
        if answer.status == 200:
            return
        if answer.status != 503:
            raise LoadError(f"GET /sessions: {answer.status}")
    raise LoadError("The events were not derived in time")


def store_in_bulk(server: Server, events: Iterator[bytes]) -> None:
    """Posts events as JSON in requests of 10,000, and waits until they are derived."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    while some := list(islice(events, BULK)):
        headers = {"x-api-key": server.key}
        connection.request("POST", "/events/bulk", b"\n".join(some), headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200 or b'"status":4' in content:
            raise LoadError(f"POST /events/bulk: {answer.status} {content[:200]!r}")
    connection.close()
    wait_until_derived(server, DERIVED_LARGE_S)
