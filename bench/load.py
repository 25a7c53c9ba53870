"""Load on a core of its own: 64 keep-alive connections of wrk, or a loop in Python."""

import itertools
import json
import shutil
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.processes import LOAD_CORES, pinned

CONNECTIONS = 64
SCRIPTS = Path(__file__).parent / "wrk"
FIRST_SECOND = 978_307_200  # 2001-01-01, in seconds since 1970
DAY_S = 86_400

# Each run of POSTs has a day of its own, so no event is sent twice.
_days: Iterator[int] = itertools.count()


class LoadError(Exception):
    """wrk is missing, or a load did not finish."""


@dataclass(frozen=True)
class Run:
    """The result of one run. `failed` counts answers other than 2xx, and missing answers."""

    requests: int
    failed: int
    seconds: float
    median_ms: float
    p99_ms: float
    contained_s: float | None = None  # until the sessions contained it, if that was waited for

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds

    @property
    def contained_rate(self) -> float:
        """The same until the sessions contained what was sent."""
        return self.requests / (self.contained_s or self.seconds)


def median_rate(runs: list[Run]) -> float:
    """Requests per second."""
    return statistics.median(run.rate for run in runs)


def median_latency(runs: list[Run]) -> float:
    """Milliseconds: the median of the runs' medians."""
    return statistics.median(run.median_ms for run in runs)


def post_events(url: str, key: str, seconds: float) -> Run:
    """POST new events for some seconds."""
    return _wrk(f"{url}/events", "post.lua", seconds, key, _next_day(), "0")


def post_count(url: str, key: str, count: int, seconds: float = 1800) -> Run:
    """POST about `count` new events: up to one more or fewer for each connection."""
    return _wrk(f"{url}/events", "post.lua", seconds, key, _next_day(), str(count))


def put_vehicles(url: str, key: str, seconds: float, connections: int) -> Run:
    """PUT new vehicles for some seconds."""
    return _wrk(url, "put.lua", seconds, key, _next_day(), connections=connections)


def get_paths(url: str, key: str, paths: Path, seconds: float) -> Run:
    """GET the paths listed in a file, one after the other and again."""
    return _wrk(url, "get.lua", seconds, key, str(paths))


def loop(name: str, *arguments: str, cores: Sequence[int] = LOAD_CORES) -> Run:
    """Runs one of the loops of loops.py on its own day; the last argument is the amount."""
    *place, amount = arguments
    command = [sys.executable, "-m", "bench.loops", name, *place, _next_day(), amount]
    done = subprocess.run(pinned(command, cores), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LoadError(f"{name}: {done.stderr.strip()}")
    return _parse(json.loads(done.stdout.removeprefix("RESULT ")))


def _next_day() -> str:
    return str(FIRST_SECOND + next(_days) * DAY_S)


def _wrk(
    url: str, script: str, seconds: float, *arguments: str, connections: int = CONNECTIONS
) -> Run:
    if shutil.which("wrk") is None:
        raise LoadError("wrk is not installed (Debian: apt-get install wrk)")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s"]
    command += ["-s", script, url, "--", *arguments]
    result = None
    with subprocess.Popen(
        pinned(command, LOAD_CORES), cwd=SCRIPTS, stdout=subprocess.PIPE, text=True
    ) as wrk:
        assert wrk.stdout is not None
        for line in wrk.stdout:
            if line == "ENOUGH\n":
                wrk.send_signal(signal.SIGINT)  # the one way to end it and have its result
            elif line.startswith("RESULT "):
                result = _parse(json.loads(line.removeprefix("RESULT ")))
    if result is None:
        raise LoadError(f"wrk gave no result for {url}")
    return result


def _parse(result: dict[str, int]) -> Run:
    contained = result.get("contained_microseconds")
    return Run(
        requests=result["requests"],
        failed=result["not_2xx"] + result["broken"],
        seconds=result["microseconds"] / 1e6,
        median_ms=result["p50_us"] / 1e3,
        p99_ms=result["p99_us"] / 1e3,
        contained_s=None if contained is None else contained / 1e6,
    )
