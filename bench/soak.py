"""Ten minutes with three hostile partners beside a good one: is the good one still served?

python -m bench.soak [--minutes N] [--rate N] [--database NAME] [--seed N] [--only ABUSE …]

The good partner makes 200 requests a second, each at its time, even if earlier ones wait. First it
runs alone, to measure the machine, then beside the hostile ones. The exit code is 0 only if all its
requests were answered with 2xx, 99 of 100 in less than 250 ms, if the server uses less than 250 MB
at the end, and if no other partner got a 5xx other than 503.
"""

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp

from bench.contest import say
from bench.hostile import ABUSES, furnish, insist
from bench.machine import busy_fraction
from bench.postgres import postgres
from bench.processes import CORES, free_port, resident_bytes, spawn, stop, wait_until_answering
from tether.domain.timestamps import format_instant

TETHER = str(Path(sys.executable).with_name("tether"))
HOSTILE = 3
MAX_P99_MS = 250
MAX_BYTES = 250_000_000
MAX_EVENTS = 100_000  # of each hostile partner to begin with
EVENTS_A_MINUTE = 20_000  # … but no more than this, so that a short run begins soon
THINGS = 50  # chargers, and vehicles, of the good partner
BUSY = 0.1  # of all cores, by the server and others, before anything begins
ALONE_S = 30.0  # the good partner, before the abuses
SETTLE_S = 10.0  # after the last request, before the memory is looked at


# The good partner, in a process of its own -------------------------------------------------------


class Good:
    """The requests of an ordinary partner, and their answers."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._first_ms = 1_700_000_000_000 + seed * 100_000_000  # those of one seed are no repeats
        self.taken_ms: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.failures: list[str] = []
        self._sent = 0

    async def run(self, url: str, key: str, seconds: float, rate: float) -> None:
        """Makes `rate` requests a second for so long."""
        timeout = aiohttp.ClientTimeout(total=30)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(
            url, headers={"x-api-key": key}, timeout=timeout, connector=connector
        ) as session:
            await self._furnish(session)
            start, tasks = monotonic(), set()
            for number in range(round(seconds * rate)):
                await asyncio.sleep(start + number / rate - monotonic())
                task = asyncio.create_task(self._ask(session, *self._next(number)))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.gather(*tasks)

    async def _furnish(self, session: aiohttp.ClientSession) -> None:
        for n in range(THINGS):
            await insist(session, "PUT", f"/chargers/C{n}", b'{"chargePowers":[11]}')
            vehicle = b'{"chargePowers":[11],"chargeCapacity":60}'
            await insist(session, "PUT", f"/vehicles/V{n}", vehicle)

    def _next(self, number: int) -> tuple[str, str, Any]:
        """The method, path and document of a request."""
        thing, kind = self.random.randrange(THINGS), number % 10
        others: list[tuple[str, str, Any]] = [
            ("PUT", f"/chargers/C{thing}", {"chargePowers": [11, number + 12]}),
            ("PATCH", f"/vehicles/V{thing}", {"chargeCapacity": number + 1}),
            ("GET", f"/chargers/C{thing}", None),
            ("GET", f"/vehicles/V{thing}/state", None),
            ("GET", f"/sessions?vehicleId=V{thing}&limit=10", None),
            ("GET", f"/events?vehicleId=V{thing}&order=desc&limit=10", None),
        ]
        return others[kind] if kind < len(others) else ("POST", "/events", self._event())

    def _event(self) -> dict[str, str]:
        """All vehicles in turn, each at its charger; then again with the next type."""
        self._sent += 1
        turn, vehicle = divmod(self._sent, THINGS)
        kind = ("CONNECTED", "CHARGE_STARTED", "CHARGE_STOPPED", "DISCONNECTED")[turn % 4]
        return {
            "type": f"VEHICLE_{kind}", "chargerId": f"C{vehicle}", "vehicleId": f"V{vehicle}",
            "timestamp": format_instant(self._first_ms + self._sent * 1000),
        }  # fmt: skip

    async def _ask(
        self, session: aiohttp.ClientSession, method: str, path: str, document: Any
    ) -> None:
        start = monotonic()
        try:
            async with session.request(method, path, json=document) as answer:
                text = await answer.text()
                status = str(answer.status)
        except (aiohttp.ClientError, OSError) as error:
            status, text = "no answer", repr(error)
        self.taken_ms.append((monotonic() - start) * 1000)
        self.statuses[status] += 1
        if not status.startswith("2") and len(self.failures) < 10:
            self.failures.append(f"{method} {path}: {status} {text[:200]}")

    def result(self) -> dict[str, Any]:
        """The figures that the soak prints."""
        parts = statistics.quantiles(self.taken_ms, n=100)
        return {
            "p50_ms": parts[49], "p99_ms": parts[98], "max_ms": max(self.taken_ms),
            "statuses": self.statuses, "failures": self.failures,
        }  # fmt: skip


def be_good(url: str, key: str, seed: str, seconds: str, rate: str) -> None:
    """What the process of the good partner does."""
    good = Good(int(seed))
    asyncio.run(good.run(url, key, float(seconds), float(rate)))
    print(json.dumps(good.result()))


# The soak ---------------------------------------------------------------------------------------


def make_key(database: str, partner: str, rate: str) -> str:
    """A key of this partner."""
    command = [TETHER, "keys", "create", partner, "--database", database, "--rate", rate]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def soak(options: argparse.Namespace, database: str, folder: Path) -> bool:
    """Runs all partners and prints the figures; returns whether they are good enough."""
    seconds = options.minutes * 60
    subprocess.run([TETHER, "migrate", "--database", database], check=True, capture_output=True)
    port, log = free_port(), folder / "log"
    url = f"http://127.0.0.1:{port}"
    command = [TETHER, "serve", "--database", database, "--port", str(port)]
    server = spawn(command, log, cores=CORES)
    try:
        good_key = make_key(database, "good", "100000")
        wait_until_answering(server, port, good_key, log)
        keys = [make_key(database, f"hostile-{n}", "1000") for n in range(HOSTILE)]
        events = min(MAX_EVENTS, round(EVENTS_A_MINUTE * options.minutes))
        if (busy := busy_fraction()) > BUSY:
            say(f"Something else uses {busy:.0%} of this machine: times say little.")
        say(f"Three hostile partners get {events} events each …")
        for number in range(HOSTILE):
            free = make_key(database, f"hostile-{number}", "1000000000/h")
            asyncio.run(furnish(url, free, options.seed + number, events))

        def good_for(seconds: float, seed: int) -> list[str]:
            figures = map(str, (seed, seconds, options.rate))
            return ["bench.soak", "--good", url, good_key, *figures]

        say(f"{options.rate}/s of the good one alone, for at most {ALONE_S:.0f} s …")
        (alone,) = together(good_for(min(ALONE_S, seconds), options.seed), server=server)
        if alone:
            print(f"good alone: {_times(alone)}")
        say(f"{options.minutes} min of {options.rate}/s of the good one, and of the abuses …")
        good, *hostile = together(
            good_for(seconds, options.seed + 1),
            *(["bench.hostile", url, key, str(options.seed + n), str(seconds),
               *options.only]
              for n, key in enumerate(keys)),
            server=server,
        )  # fmt: skip
        memory = watch_memory(server, SETTLE_S)[-1]
        return report(good, hostile, memory, alive=server.poll() is None)
    finally:
        stop(server)


def together(*commands: list[str], server: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
    """Runs these modules at once; returns their output."""
    processes = [
        subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True)
        for command in commands
    ]
    highest = 0
    while any(process.poll() is None for process in processes) and server.poll() is None:
        highest = max(highest, *watch_memory(server, 1))
    say(f"The server took at most {highest / 1e6:.0f} MB.")
    results = []
    for process in processes:
        if server.poll() is not None:
            process.kill()
        output, _ = process.communicate()
        results.append(json.loads(output) if process.returncode == 0 else {})
    return results


def watch_memory(server: subprocess.Popen[bytes], seconds: float) -> list[int]:
    """Resident bytes of the server, twice a second for so long; 0 when it has ended."""
    found = []
    for _ in range(max(1, round(seconds * 2))):
        try:
            found.append(resident_bytes(server.pid))
        except (OSError, IndexError):
            found.append(0)
        if server.poll() is not None:
            break
        try:
            server.wait(0.5)
        except subprocess.TimeoutExpired:
            continue
    return found


def report(
    good: dict[str, Any], hostile: list[dict[str, Any]], memory: int, *, alive: bool
) -> bool:
    """Prints the figures; returns whether they are good enough."""
    if not alive or not good or not all(hostile):
        print("FAILED: the server or a partner's process ended before its time")
        return False
    others: Counter[str] = Counter()
    for one in hostile:
        others.update(one)
    print(f"good beside them: {_times(good)}; {_shown(good['statuses'])}")
    print(f"hostile: {_shown(others)}")
    print(f"memory at the end: {memory / 1e6:.0f} MB")
    for failure in good["failures"]:
        print(f"  {failure}")
    wrong = []
    if good["p99_ms"] >= MAX_P99_MS:
        wrong.append(f"the good partner's p99 is not below {MAX_P99_MS} ms")
    if good["failures"]:
        wrong.append("the good partner had answers other than 2xx")
    if memory >= MAX_BYTES:
        wrong.append(f"the server takes {MAX_BYTES / 1e6:.0f} MB or more")
    if any(status.startswith("5") and status != "503" for status in others):
        wrong.append("hostile requests had 5xx other than 503")
    print(f"FAILED: {'; '.join(wrong)}" if wrong else "PASSED")
    return not wrong


def _times(good: dict[str, Any]) -> str:
    return f"p50 {good['p50_ms']:.1f} ms, p99 {good['p99_ms']:.1f} ms, max {good['max_ms']:.1f} ms"


def _shown(statuses: dict[str, int]) -> str:
    return ", ".join(f"{count} of {status}" for status, count in sorted(statuses.items()))


def main() -> int:
    """Returns 0 if all figures are good enough."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--minutes", type=float, default=10, help="how long (10)")
    parser.add_argument("--rate", type=float, default=200, help="the good one's requests a second")
    parser.add_argument(
        "--database",
        default="sqlite",
        help="sqlite, postgres (each made for it), or the URL of an empty one",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the order of the abuses (1)")
    names = [abuse.__name__ for abuse in ABUSES]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="ABUSE",
                        help=f"of {', '.join(names)}")  # fmt: skip
    parser.add_argument("--good", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.good:
        be_good(*options.good)
        return 0
    with tempfile.TemporaryDirectory(prefix="tether-soak-") as name, ExitStack() as stack:
        folder, database = Path(name), options.database
        if database == "sqlite":
            database = str(folder / "tether.db")
        elif database == "postgres":
            cluster = stack.enter_context(postgres())
            cluster.sql("postgres", "CREATE DATABASE soak")
            database = cluster.url("soak")
        return 0 if soak(options, database, folder) else 1


if __name__ == "__main__":
    sys.exit(main())
