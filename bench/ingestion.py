"""Many events at once, and clients: POST /events/bulk against its ceilings, the SDK against others.

A bulk run has a number of events, not of seconds, so that all tables grow alike.
"""

from collections.abc import Callable

from bench.compare import compare_contained, compare_rates
from bench.contest import Bench, Measure, Outcome, compete, prepared
from bench.contestants import Contestant, Server
from bench.databases import Database, PostgresDatabase
from bench.load import CONNECTIONS, Run, loop, post_events, put_vehicles
from bench.processes import LOAD_CORES, SERVER_CORES
from bench.table import Limit, Row

EVENTS_A_SECOND = 25_000  # in a run of 4 s ten requests of 10,000
BURST_EVENTS = 40_000  # fewer than may wait to be derived, so nobody is held up
BURST, SINGLE = "a burst", "single POSTs"
APSW, COPY = "apsw loop", "COPY"
# The server reads events in these orders too, from lists that it writes behind. Who has nothing but
# the table needs indexes for that.
_ORDERS = """
CREATE INDEX of_charger ON events (partner, charger_id, seq);
CREATE INDEX of_vehicle ON events (partner, vehicle_id, seq);
CREATE INDEX by_time ON events (partner, vehicle_id, at_ms);
"""


def bulk(
    subject: Contestant, ceiling: Limit, singles: Limit | None = None
) -> Callable[[Bench], list[Row]]:
    """POST /events/bulk against the database alone and, with `singles`, against POST /events."""

    def run(bench: Bench) -> list[Row]:
        outcome, alone = Outcome(), APSW if subject.engine == "sqlite" else COPY
        # Single events go to a server of their own: in the other, the table would grow sooner.
        with prepared(bench, subject) as server, prepared(bench, subject) as other:
            poster = _BulkPoster(server)
            measures: dict[str, Measure] = {subject.name: poster, alone: _alone(bench, subject)}
            if singles is not None:
                measures[SINGLE] = lambda seconds: post_events(other.url, other.key, seconds)
                measures[BURST] = lambda _: poster.post(BURST_EVENTS)
            compete(bench, measures, outcome)
            poster.check_stored(subject.name, outcome)
        what = f"{subject.engine}: POST /events/bulk"
        until = f"{what} until in sessions"
        rows = [compare_contained(f"{until} vs {alone}", outcome, (subject.name, alone), ceiling)]
        if singles is not None:
            rows += [
                compare_rates(f"{what}, {BURST}, vs {SINGLE}", outcome, (BURST, SINGLE), singles),
                compare_contained(f"{until} vs {SINGLE}", outcome, (subject.name, SINGLE), None),
            ]
        return rows

    return run


def shuffled(subject: Contestant, limit: Limit) -> Callable[[Bench], list[Row]]:
    """POST /events/bulk of events in no order against the same in order, until in sessions."""

    def run(bench: Bench) -> list[Row]:
        outcome, pair = Outcome(), ("in no order", "in order")
        # A server for each, so that all tables grow alike.
        with prepared(bench, subject) as one, prepared(bench, subject) as other:
            posters = (_BulkPoster(one, "shuffled"), _BulkPoster(other))
            compete(bench, dict(zip(pair, posters, strict=True)), outcome)
            for name, poster in zip(pair, posters, strict=True):
                poster.check_stored(name, outcome)
        name = f"{subject.engine}: POST /events/bulk {pair[0]}, until in sessions, vs {pair[1]}"
        return [compare_contained(name, outcome, pair, limit)]

    return run


def fleet(subject: Contestant, limit: Limit) -> Callable[[Bench], list[Row]]:
    """POST /vehicles/bulk against single PUTs of new vehicles, until the last answer."""

    def run(bench: Bench) -> list[Row]:
        outcome, many = Outcome(), "vehicles in bulk"
        one, all_at_once = "PUTs one by one", f"PUTs on {CONNECTIONS} connections"
        # Single ones go to a server of their own: in the other, the table would grow sooner.
        with prepared(bench, subject) as server, prepared(bench, subject) as other:

            def put(connections: int) -> Measure:
                return lambda seconds: put_vehicles(other.url, other.key, seconds, connections)

            measures: dict[str, Measure] = {
                many: lambda s: loop("vehicles", server.url, server.key, str(_events(s))),
                one: put(1),
                all_at_once: put(CONNECTIONS),
            }
            compete(bench, measures, outcome)
        name = f"{subject.engine}: POST /vehicles/bulk"
        return [
            compare_rates(f"{name} vs {one}", outcome, (many, one), limit),
            compare_rates(f"{name} vs {all_at_once}", outcome, (many, all_at_once), None),
        ]

    return run


class _BulkPoster:
    """Measures POST /events/bulk and counts its answers."""

    def __init__(self, server: Server, order: str = "bulk") -> None:
        self._server = server
        self._order = order
        self._before = server.database.count_events()
        self._answered = 0

    def __call__(self, seconds: float) -> Run:
        return self.post(_events(seconds))

    def post(self, count: int) -> Run:
        """Post so many events, and wait until the sessions contain them."""
        self._server.database.settle()
        run = loop(self._order, self._server.url, self._server.key, str(count))
        self._answered += run.requests
        return run

    def check_stored(self, name: str, outcome: Outcome) -> None:
        """Every event that was answered with 201 must be a row."""
        stored = self._server.database.count_events() - self._before
        if stored < self._answered:
            outcome.invalid[name] = f"{name}: answered {self._answered:,}, stored only {stored:,}"


def _alone(bench: Bench, subject: Contestant) -> Measure:
    """The same rows into a database of the same schema, without a server."""
    database: Database = bench.new_database(subject.engine)
    subject.prepare(database)
    if database.engine == "sqlite":
        database.run(_ORDERS)
    partner = database.run("SELECT id FROM partners")

    def measure(seconds: float) -> Run:
        database.settle()
        if isinstance(database, PostgresDatabase):
            return loop("copy", database.url, partner, str(_events(seconds)), cores=LOAD_CORES)
        return loop("apsw", database.url, partner, str(_events(seconds)), cores=SERVER_CORES)

    return measure


def _events(seconds: float) -> int:
    return round(seconds * EVENTS_A_SECOND)


def clients(subject: Contestant, blocking: Limit, awaiting: Limit) -> Callable[[Bench], list[Row]]:
    """The SDK: `Client` against its HTTP library alone, `AsyncClient` against wrk."""

    def run(bench: Bench) -> list[Row]:
        outcome = Outcome()
        with prepared(bench, subject) as server:

            def by(name: str) -> Measure:
                return lambda seconds: loop(name, server.url, server.key, str(seconds))

            measures: dict[str, Measure] = {
                "Client": by("sdk"),
                "httpx2": by("httpx2"),
                "AsyncClient, 64 tasks": by("tasks"),
                "wrk": lambda seconds: post_events(server.url, server.key, seconds),
            }
            compete(bench, measures, outcome)
        pairs = list(measures)
        return [
            compare_rates(f"SDK: {one} vs {other}", outcome, (one, other), limit)
            for one, other, limit in (
                (pairs[0], pairs[1], blocking),
                (pairs[2], pairs[3], awaiting),
            )
        ]

    return run
