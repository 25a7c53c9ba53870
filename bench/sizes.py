"""A large database against a small one: latencies, and the memory of the server."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.bulk import bytes_per_event, copy_events
from bench.compare import compare_latencies
from bench.contest import Bench, Measure, Outcome, compete, getter, prepared, say
from bench.contestants import Contestant, Server
from bench.databases import Database, PostgresDatabase
from bench.load import LoadError, Run, post_count, post_events
from bench.paths import Paths, sample_paths
from bench.processes import resident_bytes
from bench.table import Row, at_most, single

SMALL = 10_000
MEMORY_MB = 100
REQUIRED = 1.3  # the latency with many events by that with few, at most
WARM_CLONE_S = 1.0


@dataclass(frozen=True)
class Filled:
    """A database with so many events, and where to look in it."""

    count: int
    subject: Contestant
    database: Database
    key: str
    paths: Paths
    resident_mb: float  # the server's memory when it had taken the events

    @property
    def name(self) -> str:
        return f"{self.count:,} events"


def sizes(subject: Contestant, large: int) -> Callable[[Bench], list[Row]]:
    """POST, GET by id and a page of GET /events, with `large` events and with few."""

    def run(bench: Bench) -> list[Row]:
        small, big = _fill(bench, subject, SMALL), _fill(bench, subject, large)
        rows = [
            _posts(bench, small, big),
            _gets(bench, small, big, "GET /events/{id}", lambda filled: filled.paths.events),
            _gets(bench, small, big, "page of GET /events", lambda filled: filled.paths.pages),
        ]
        if isinstance(big.database, PostgresDatabase):
            say(f"  {bytes_per_event(big.database):.0f} bytes an event on disk, with indexes")
        else:
            name = f"{subject.engine}: memory after {large:,} posted"
            rows.append(single(name, big.resident_mb, "{:.0f} MB", at_most(MEMORY_MB, " MB")))
        return rows

    return run


def _fill(bench: Bench, subject: Contestant, count: int) -> Filled:
    """Post the events, or on PostgreSQL load them by COPY."""
    say(f"  filling: {count:,} events")
    with prepared(bench, subject) as server:
        if isinstance(server.database, PostgresDatabase):
            copy_events(server.database, count)
        else:
            run = post_count(server.url, server.key, count)
            if run.failed or server.database.count_events() < count:
                raise LoadError(f"{count:,} events could not be stored: {run}")
        resident_mb = resident_bytes(server.pid) / 1e6
        paths = sample_paths(server, bench.folder, f"{subject.engine}-{count}")
        return Filled(count, subject, server.database, server.key, paths, resident_mb)


def _gets(
    bench: Bench, small: Filled, big: Filled, what: str, paths: Callable[[Filled], Path]
) -> Row:
    outcome = Outcome()
    with ExitStack() as stack:
        measures: dict[str, Measure] = {}
        for filled in (small, big):
            server = stack.enter_context(_serving(bench, filled, filled.database))
            measures[filled.name] = _settled(filled.database, getter(server, paths(filled)))
        compete(bench, measures, outcome)
    return _row(what, outcome, small, big)


def _settled(database: Database, measure: Measure) -> Measure:
    def settle_and_measure(seconds: float) -> Run:
        database.settle()
        return measure(seconds)

    return settle_and_measure


def _posts(bench: Bench, small: Filled, big: Filled) -> Row:
    """Each round begins with a copy of the small database, so that it stays small."""
    outcome = Outcome()
    with _serving(bench, big, big.database) as server:

        def post_to_copy(seconds: float) -> Run:
            with _serving(bench, small, small.database.clone()) as copy:
                return _post(copy, seconds)

        compete(
            bench,
            {small.name: post_to_copy, big.name: lambda seconds: _post(server, seconds)},
            outcome,
        )
    return _row("POST /events", outcome, small, big)


def _post(server: Server, seconds: float) -> Run:
    post_events(server.url, server.key, WARM_CLONE_S)
    server.database.settle()
    return post_events(server.url, server.key, seconds)


def _serving(bench: Bench, filled: Filled, database: Database) -> AbstractContextManager[Server]:
    return filled.subject.running(database, filled.key, bench.new_log())


def _row(what: str, outcome: Outcome, small: Filled, big: Filled) -> Row:
    name = f"{small.subject.engine}: {what}, {big.count:,} vs {small.count:,} events"
    return compare_latencies(name, outcome, (big.name, small.name), at_most(REQUIRED))
