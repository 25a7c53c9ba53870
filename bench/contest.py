"""Contests: several contestants, measured in turn round after round."""

import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from bench.checks import CheckError, check_durability, check_work
from bench.contestants import Contestant, Server, being_written, seed
from bench.databases import Database, Engine, PostgresDatabase, SqliteDatabase
from bench.install import InstallError
from bench.load import LoadError, Run, get_paths
from bench.postgres import Cluster, postgres
from bench.processes import StartError

WARM_UP_S = 2.0
FAILURES = (CheckError, InstallError, LoadError, StartError, OSError)

Measure = Callable[[float], Run]  # seconds in, what was measured out


def say(text: str) -> None:
    """Print the progress on standard error; the table goes to standard output."""
    print(text, file=sys.stderr, flush=True)


@dataclass
class Bench:
    """One run of the benchmark: its settings, its folder, its PostgreSQL."""

    rounds: int
    seconds: float
    folder: Path
    stack: ExitStack
    cluster: Cluster | None = None
    checked: set[tuple[str, Engine]] = field(default_factory=set)
    _logs: Iterator[int] = field(default_factory=itertools.count)

    def new_log(self) -> Path:
        """Where a server writes its log: to a file, as in production."""
        return self.folder / f"server-{next(self._logs)}.log"

    def new_database(self, engine: Engine) -> Database:
        """An empty database; PostgreSQL is started when it is first needed."""
        if engine == "sqlite":
            return SqliteDatabase(self.folder / "none.db").new()
        if self.cluster is None:
            say("starting PostgreSQL")
            self.cluster = self.stack.enter_context(postgres())
        return PostgresDatabase(self.cluster, "none").new()


@contextmanager
def open_bench(rounds: int, seconds: float) -> Iterator[Bench]:
    """A bench; its folder and servers are removed at the end."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tether-bench-"))
        yield Bench(rounds, seconds, Path(folder), stack)


@contextmanager
def prepared(bench: Bench, contestant: Contestant) -> Iterator[Server]:
    """Run a contestant on a new database; the first time, check that it does the work."""
    contestant.install()
    database = bench.new_database(contestant.engine)
    key = contestant.prepare(database)
    with contestant.running(database, key, bench.new_log()) as server:
        if contestant.is_tether:
            seed(server)
        if (contestant.name, contestant.engine) not in bench.checked:
            check_work(server, stores=contestant.stores)
            say(f"  {contestant.name}: same checks, {_durability(contestant, server)}")
            bench.checked.add((contestant.name, contestant.engine))
        yield server


def _durability(contestant: Contestant, server: Server) -> str:
    if not contestant.stores:
        return "stores nothing"
    seen = check_durability(server)
    return "on disk before the answer" if seen else "durability NOT CHECKED (no strace)"


@dataclass
class Outcome:
    """The result of a contest: the runs of each contestant, and their problems."""

    runs: dict[str, list[Run]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)  # did not run, and why
    invalid: dict[str, str] = field(default_factory=dict)  # ran, but does not count, and why


@contextmanager
def all_prepared(
    bench: Bench, contestants: Sequence[Contestant], outcome: Outcome
) -> Iterator[dict[str, Server]]:
    """Run several contestants at once; one that cannot run is left out.

    Without the first, with whom all others are compared, none runs.
    """
    servers: dict[str, Server] = {}
    with ExitStack() as stack:
        for contestant in contestants:
            try:
                servers[contestant.name] = stack.enter_context(prepared(bench, contestant))
            except FAILURES as error:
                outcome.left_out[contestant.name] = str(error)
                say(f"  {contestant.name} is left out: {error}")
                if contestant is contestants[0]:
                    break
        yield servers


def compete(bench: Bench, measures: Mapping[str, Measure], outcome: Outcome) -> None:
    """Warm everybody up, then measure A B C, A B C, ... in short runs."""
    outcome.runs = {name: [] for name in measures}
    for measure in measures.values():
        measure(WARM_UP_S)
    for number in range(1, bench.rounds + 1):
        for name, measure in measures.items():
            run = measure(bench.seconds)
            outcome.runs[name].append(run)
            say(
                f"  round {number}/{bench.rounds}  {name:<32}{run.rate:>9,.0f} /s"
                f"{run.median_ms:>9.2f} ms" + (f", {run.failed} FAILED" if run.failed else "")
            )
    for name, runs in outcome.runs.items():
        if failed := sum(run.failed for run in runs):
            requests = sum(run.requests for run in runs)
            outcome.invalid[name] = f"{name}: {failed:,} of {requests:,} requests failed"


def getter(server: Server, paths: Path, *, while_written: bool = False) -> Measure:
    """Measures GET of the paths in a file."""

    def measure(seconds: float) -> Run:
        with being_written(server) if while_written else nullcontext():
            return get_paths(server.url, server.key, paths, seconds)

    return measure
