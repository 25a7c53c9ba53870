"""The cost of adding up a year of sessions, compared with DuckDB, and of reading them all."""

import http.client
import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from bench.contest import Bench, prepared, say
from bench.contestants import CHARGERS, VEHICLES, Contestant, Server, run_tether
from bench.derived import alone, store_in_bulk
from bench.install import DUCKDB_VENV, install_duckdb
from bench.load import LoadError, median_latency
from bench.table import Row, at_most, single

SESSIONS = 260_000
HOUR_MS = 3_600_000
YEAR_MS = 365 * 24 * HOUR_MS
YEAR_BY_DAY = "/sessions/summary?bucket=day&timeZone=Europe/Berlin&limit=1000"
LIMIT_MS = 300
PAGES_S = 8
# As near to the same as a table of sessions allows: not divided at midnight, and in UTC.
YARDSTICK = """
import sys, time, duckdb
connection = duckdb.connect()
connection.execute("SET threads = 1")
connection.execute("CREATE TABLE sessions AS SELECT * FROM read_parquet(?)", [sys.argv[1]])
taken = []
for _ in range(9):
    began = time.perf_counter()
    connection.execute('''
        SELECT date_trunc('day', connectedAt), count(*), count(DISTINCT vehicleId),
               count(DISTINCT chargerId), sum(pluggedTime), sum(chargedTime), sum(chargedEnergy),
               sum(chargedEnergy) FILTER (estimated), sum(periodsWithoutEnergy), max(maximumPower)
        FROM sessions GROUP BY ALL ORDER BY 1
    ''').fetchall()
    taken.append(time.perf_counter() - began)
print(1000 * sorted(taken)[4])
"""


def sums(subject: Contestant, count: int = SESSIONS) -> Callable[[Bench], list[Row]]:
    """A year by day, of so many sessions."""

    def run(bench: Bench) -> list[Row]:
        install_duckdb()
        with prepared(bench, subject) as server:
            say(f"  filling: {count:,} sessions")
            store_in_bulk(server, _events(count))
            runs = [alone(server, YEAR_BY_DAY)(bench.seconds) for _ in range(bench.rounds)]
            paged_s = _read_all(server)
            file = bench.folder / "sessions.parquet"
            run_tether(
                "export", "sessions", "--output", str(file), "--url", server.url,
                "--api-key", server.key,
            )  # fmt: skip
        name = f"{subject.engine}: a year of {count:,} sessions by day"
        taken_ms = median_latency(runs)
        return [
            single(name, taken_ms, "{:.0f} ms", at_most(LIMIT_MS, " ms")),
            single(
                f"{subject.engine}: all of them in pages",
                paged_s,
                "{:.1f} s",
                at_most(PAGES_S, " s"),
            ),
            Row(f"{subject.engine}: DuckDB over an export of them", f"{_yardstick(file):.0f} ms"),
        ]

    return run


def _yardstick(file: Path) -> float:
    python = DUCKDB_VENV / "bin" / "python"
    done = subprocess.run(
        [python, "-c", YARDSTICK, str(file)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise LoadError(f"DuckDB: {done.stderr[-1000:]}")
    return float(done.stdout)


def _read_all(server: Server) -> float:
    """Seconds to read all sessions, 1,000 a page, one page after the other."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    path, began = "/sessions?limit=1000", time.perf_counter()
    while path:
        connection.request("GET", path, headers={"x-api-key": server.key})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise LoadError(f"GET {path}: {answer.status} {content[:200]!r}")
        link = re.match(r"<https?://[^/]+([^>]+)>", answer.getheader("Link", ""))
        path = link[1] if link else ""
    connection.close()
    return time.perf_counter() - began


def _events(count: int) -> Iterator[bytes]:
    """The events of sessions of up to ten hours, vehicle after vehicle in turns over a year."""
    random, turns = Random(1), count // len(VEHICLES)
    for turn in range(turns):
        for vehicle in VEHICLES:
            begin_ms = _FIRST_MS + YEAR_MS * turn // turns + random.randrange(HOUR_MS)
            charger, lasts_ms = random.choice(CHARGERS), random.randrange(600_000, _longest(turns))
            charged_ms = lasts_ms * 2 // 3
            told = {
                "chargedEnergy": round(charged_ms / 400_000, 3),
                "chargedTime": charged_ms / 1000,
            }
            for kind, after_ms, more in (
                ("CONNECTED", 0, {}),
                ("CHARGE_STARTED", 5_000, {"chargePower": 11}),
                ("CHARGE_STOPPED", 5_000 + charged_ms, told),
                ("DISCONNECTED", lasts_ms, {}),
            ):
                at = datetime.fromtimestamp((begin_ms + after_ms) / 1000, UTC)
                yield json.dumps({
                    "type": f"VEHICLE_{kind}", "chargerId": charger, "vehicleId": vehicle,
                    "timestamp": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z", **more,
                }).encode()  # fmt: skip


def _longest(turns: int) -> int:
    """Milliseconds between two sessions of a vehicle, so that it has left before it returns."""
    return min(10 * HOUR_MS, YEAR_MS // turns - HOUR_MS)


_FIRST_MS = 1_735_689_600_000  # 2025
