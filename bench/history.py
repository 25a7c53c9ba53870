"""Measures whether reads of the past get slower with more history."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from statistics import median
from urllib.parse import urlencode

from bench.compare import compare_latencies
from bench.contest import Bench, Measure, Outcome, compete, prepared, say
from bench.contestants import CHARGERS, VEHICLES, Contestant
from bench.databases import Database
from bench.derived import alone, store_in_bulk
from bench.load import median_latency
from bench.table import Row, at_most, single

GROWTH = 1.3  # the latency with ten times the history by that with it, at most
SHORT, LONG = 3, 30  # months
FIRST_S, DAY_S = 1_672_531_200, 86_400  # 2023-01-01
MONTH_S = 30 * DAY_S
SESSIONS = 9  # of a vehicle in a month
_JANUARY = FIRST_S + 12 * DAY_S + 9 * 3600


def _instant(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _asked(path: str, **query: str | int) -> str:
    return f"{path}?{urlencode({name.rstrip('_'): value for name, value in query.items()})}"


_WINDOW: dict[str, str | int] = {
    "from_": _instant(_JANUARY),
    "to": _instant(_JANUARY + DAY_S),
    "step": 900,
}
_MONTH: dict[str, str | int] = {
    "from_": _instant(FIRST_S),
    "to": _instant(FIRST_S + MONTH_S),
    "step": MONTH_S // 1000,
}
_OVERLAPPING = {
    "overlappingFrom": _instant(_JANUARY), "overlappingTo": _instant(_JANUARY + DAY_S),
}  # fmt: skip
_ALL_OF_IT: dict[str, str | int] = {
    "from_": _instant(FIRST_S),
    "to": _instant(FIRST_S + LONG * MONTH_S),
    "step": LONG * MONTH_S // 1000,
}
ALL_MS = 3_000
# What is asked about one month, by what it is called in the table, and how many ms it may take.
OF_A_MONTH: dict[str, tuple[str, float | None]] = {
    "capacity at a moment": (_asked("/capacity", at=_instant(_JANUARY)), 100),
    "capacity by charger": (
        _asked("/capacity", at=_instant(_JANUARY), by="charger", limit=1000), 300,
    ),
    "a day in quarters of an hour": (_asked("/capacity", **_WINDOW), 300),
    "1,000 moments of a month": (_asked("/capacity", **_MONTH), None),
    "sessions there on a day": (_asked("/sessions", **_OVERLAPPING, limit=1000), None),
    "a page of 1,000 sessions": (
        _asked("/sessions", from_=_instant(FIRST_S), to=_instant(FIRST_S + MONTH_S), limit=1000),
        None,
    ),
}  # fmt: skip


def history(subject: Contestant) -> Callable[[Bench], list[Row]]:
    """Questions about one month, where there are 30 months of sessions and where there are 3."""

    def run(bench: Bench) -> list[Row]:
        rows = []
        with ExitStack() as stack:
            servers = {
                f"{months} months": stack.enter_context(
                    subject.running(*_filled(bench, subject, months), bench.new_log())
                )
                for months in (SHORT, LONG)
            }
            short, long = servers
            for what, (path, most_ms) in OF_A_MONTH.items():
                outcome = Outcome()
                measures: dict[str, Measure] = {
                    name: alone(server, path) for name, server in servers.items()
                }
                compete(bench, measures, outcome)
                name = f"{subject.engine}: {what}, {long} vs {short}"
                rows.append(compare_latencies(name, outcome, (long, short), at_most(GROWTH)))
                if most_ms is not None:
                    took_ms = median(run.median_ms for run in outcome.runs[long])
                    name = f"{subject.engine}: {what}, {long}"
                    rows.append(single(name, took_ms, "{:.0f} ms", at_most(most_ms)))
            took_ms = median_latency([alone(servers[long], _asked("/capacity", **_ALL_OF_IT))(0)])
            name = f"{subject.engine}: 1,000 moments of {long}"
            rows.append(single(name, took_ms, "{:.0f} ms", at_most(ALL_MS)))
        return rows

    return run


def _filled(bench: Bench, subject: Contestant, months: int) -> tuple[Database, str]:
    """A database with the sessions of so many months."""
    say(f"  filling: {months} months of {len(VEHICLES) * SESSIONS:,} sessions")
    with prepared(bench, subject) as server:
        store_in_bulk(server, _events(months))
        return server.database, server.key


def _events(months: int) -> Iterator[bytes]:
    """The events of all sessions as JSON, by the time at which the sessions began."""
    apart_s = MONTH_S // SESSIONS
    for turn in range(months * SESSIONS):
        for number, vehicle in enumerate(VEHICLES):
            begun_s = FIRST_S + turn * apart_s + number * apart_s // len(VEHICLES)
            length_s = 3600 + (number * 7919 + turn * 104_729) % (15 * 3600)
            where = {"vehicleId": vehicle, "chargerId": CHARGERS[(number + turn) % len(CHARGERS)]}
            for kind, after_s, told in (
                ("CONNECTED", 0, {"stateOfCharge": 30}),
                ("CHARGE_STARTED", 6, {"chargePower": 11}),
                ("CHARGE_STOPPED", length_s // 2, {"stateOfCharge": 60, "chargedEnergy": 20}),
                ("DISCONNECTED", length_s, {"stateOfCharge": 60}),
            ):
                at = _instant(begun_s + after_s)
                event = {"type": f"VEHICLE_{kind}", **where, **told, "timestamp": at}
                yield json.dumps(event, separators=(",", ":")).encode()
