"""The groups of the benchmark: each runs its contestants in turn and yields rows."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from bench.bulk import Ceiling
from bench.compare import compare_rates
from bench.contest import Bench, Measure, Outcome, all_prepared, compete, getter, prepared
from bench.contestants import (
    CHARGERS,
    Contestant,
    Server,
    fastapi,
    fastify_postgres,
    fastify_sqlite,
    tether,
    with_constant,
    without_derivation,
    without_storage,
)
from bench.databases import PostgresDatabase
from bench.derived import lag, session_sizes, states
from bench.erasure import erasure
from bench.history import history
from bench.ingestion import bulk, clients, fleet, shuffled
from bench.load import Run, post_events
from bench.sizes import sizes
from bench.sums import sums
from bench.table import Limit, Row, at_least, at_most, single
from bench.webhooks import webhooks

Group = Callable[[Bench], list[Row]]
Rival = tuple[Contestant, Limit | None]  # against whom, and the ratio that is required

TETHER = tether("sqlite").name
CEILING = "pgbench"


def post(subject: Contestant, rivals: Sequence[Rival], ceiling: Limit | None = None) -> Group:
    """POST /events; with `ceiling` also against pgbench on the subject's database."""

    def run(bench: Bench) -> list[Row]:
        contestants = [subject, *(contestant for contestant, _ in rivals)]
        outcome = Outcome()
        with all_prepared(bench, contestants, outcome) as servers:
            posters = {name: Poster(server) for name, server in servers.items()}
            measures: dict[str, Measure] = {**posters}
            if ceiling is not None and subject.name in servers:
                measures[CEILING] = _ceiling(servers[subject.name], bench.folder)
            compete(bench, measures, outcome)
            for contestant in contestants:
                if contestant.stores and contestant.name in posters:
                    posters[contestant.name].check_stored(contestant.name, outcome)
        required = [(contestant.name, limit) for contestant, limit in rivals]
        required += [(CEILING, ceiling)] if ceiling else []
        return _rows("POST /events", subject, required, outcome)

    return run


def get(subject: Contestant, rivals: Sequence[Rival]) -> Group:
    """GET /chargers/{id}."""

    def run(bench: Bench) -> list[Row]:
        contestants = [subject, *(contestant for contestant, _ in rivals)]
        outcome, written_outcome = Outcome(), Outcome()
        paths = bench.folder / "chargers"
        paths.write_text("".join(f"/chargers/{identifier}\n" for identifier in CHARGERS))
        with all_prepared(bench, contestants, outcome) as servers:
            compete(bench, {name: getter(one, paths) for name, one in servers.items()}, outcome)
            written = {
                contestant.name: getter(servers[contestant.name], paths, while_written=True)
                for contestant in contestants
                if contestant.is_tether and contestant.name in servers
            }
            compete(bench, written, written_outcome)
        required = [(contestant.name, limit) for contestant, limit in rivals]
        own = [(contestant.name, None) for contestant, _ in rivals if contestant.is_tether]
        return [
            *_rows("GET /chargers/{id}", subject, required, outcome),
            *_rows("GET /chargers/{id} while written", subject, own, written_outcome),
        ]

    return run


def start(subject: Contestant, required_s: float) -> Group:
    """From the start of the process to the first answer that needs key and database."""

    def run(bench: Bench) -> list[Row]:
        with prepared(bench, subject) as server:
            database, key = server.database, server.key
        seconds = []
        for _ in range(bench.rounds):
            with subject.running(database, key, bench.new_log()) as again:
                seconds.append(again.seconds_to_first_answer)
        name = f"{subject.engine}: start to first answer"
        return [single(name, median(seconds), "{:.2f} s", at_most(required_s, " s"))]

    return run


class Poster:
    """Measures POST /events of one server and counts its answers."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.before = server.database.count_events()
        self.answered = 0

    def __call__(self, seconds: float) -> Run:
        self.server.database.settle()
        run = post_events(self.server.url, self.server.key, seconds)
        self.answered += run.requests - run.failed
        return run

    def check_stored(self, name: str, outcome: Outcome) -> None:
        """Every answer counted must be a row."""
        stored = self.server.database.count_events() - self.before
        if stored < self.answered:
            outcome.invalid[name] = f"{name}: answered {self.answered:,}, stored only {stored:,}"


def _ceiling(server: Server, folder: Path) -> Measure:
    assert isinstance(server.database, PostgresDatabase)
    return Ceiling(server.database, folder)


def _rows(
    request: str,
    subject: Contestant,
    required: Sequence[tuple[str, Limit | None]],
    outcome: Outcome,
) -> list[Row]:
    what = f"{subject.engine}: {request}"
    if subject.name != TETHER:
        what += f", {_short(subject.name)}"
    return [
        compare_rates(f"{what} vs {_short(other)}", outcome, (subject.name, other), limit)
        for other, limit in required
    ]


def _short(name: str) -> str:
    return "1 worker" if name == TETHER else name.removeprefix(f"{TETHER}, ")


GROUPS: dict[str, Group] = {
    "sqlite-post": post(
        tether("sqlite"),
        [
            (without_storage("sqlite"), at_least(0.55)),
            (fastify_sqlite(), at_least(2.5)),
            (fastapi(), at_least(15)),
        ],
    ),
    "sqlite-get": get(
        tether("sqlite"), [(with_constant("sqlite"), at_least(0.8)), (fastify_sqlite(), None)]
    ),
    "sqlite-bulk": bulk(tether("sqlite"), at_least(0.4), singles=at_least(6)),
    "sqlite-fleet": fleet(tether("sqlite"), at_least(20)),
    "sqlite-shuffled": shuffled(tether("sqlite"), at_least(0.5)),
    "sqlite-derived": post(tether("sqlite"), [(without_derivation("sqlite"), at_least(0.8))]),
    "sqlite-states": states(tether("sqlite")),
    "sqlite-lag": lag(tether("sqlite")),
    "sqlite-start": start(tether("sqlite"), required_s=1.0),
    "sqlite-size": sizes(tether("sqlite"), 1_000_000),
    "sqlite-webhooks": webhooks(tether("sqlite")),
    "sqlite-history": history(tether("sqlite")),
    "sqlite-erasing": erasure(tether("sqlite")),
    "postgres-post": post(
        tether("postgres"),
        [(fastify_postgres(), at_least(2)), (fastapi(), at_least(15))],
        ceiling=at_least(1.0),
    ),
    "postgres-bulk": bulk(tether("postgres"), at_least(0.3)),
    "postgres-fleet": fleet(tether("postgres"), at_least(20)),
    "postgres-shuffled": shuffled(tether("postgres"), at_least(0.5)),
    "postgres-workers": post(tether("postgres", workers=2), [(tether("postgres"), at_least(1.0))]),
    "postgres-get": get(
        tether("postgres"), [(with_constant("postgres"), at_least(0.3)), (fastify_postgres(), None)]
    ),
    "postgres-derived": post(tether("postgres"), [(without_derivation("postgres"), at_least(0.8))]),
    "postgres-states": states(tether("postgres")),
    "postgres-lag": lag(tether("postgres")),
    "postgres-webhooks": webhooks(tether("postgres")),
    "postgres-sessions": session_sizes(tether("postgres"), 10_000_000),
    "sqlite-sums": sums(tether("sqlite")),
    "postgres-sums": sums(tether("postgres")),
    "postgres-size": sizes(tether("postgres"), 10_000_000),
    "postgres-history": history(tether("postgres")),
    "postgres-erasing": erasure(tether("postgres")),
    "sdk": clients(tether("sqlite"), at_least(0.8), at_least(0.9)),
}

# Takes minutes and much disk: runs only when it is named.
LONG = (
    "postgres-size", "postgres-sessions", "sqlite-history", "postgres-history", "sqlite-sums",
    "postgres-sums",
)  # fmt: skip
