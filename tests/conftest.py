"""Real parts for the tests: a server process on a real database, reached over HTTP."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import HealthCheck, settings

from tests import cleanup, forked
from tests.services import create_database, running_postgres, unmarked
from tether.domain import timestamps
from tether.domain.keys import Rate
from tether.server import admin
from tether.server.store import open_store

TETHER = forked.TETHER
ROOT = Path(__file__).parents[1]
WITH_CONSTANTS = Path(__file__).parent / "faults" / "other_constants.py"
QUICK = ("api", "audit", "cli", "store", "unit")
FAST = Rate(1_000_000, 1)
SECRET_KEY = "a-key-of-the-tests-that-has-over-32-characters"
# The same examples in every run, so that a failure can be repeated.
settings.register_profile(
    "tether",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("tether")

# httpx may close a surplus or expired connection that another thread has just taken. So keep all
# connections.
ALL_KEPT = httpx.Limits(keepalive_expiry=None)

subprocess.Popen = forked.Popen  # type: ignore[misc,assignment]

# With `make test &` the shell ignores SIGINT, and children inherit that. Restore the default.
signal.signal(signal.SIGINT, signal.default_int_handler)


# No variable of a user counts, and no server at the usual address, as of `make run`, is asked.
NOBODY_LISTENS = {"TETHER_PORT": "1"}
for name in [name for name in os.environ if name.startswith("TETHER_")]:
    if not name.startswith("TETHER_TEST_"):
        del os.environ[name]
os.environ |= NOBODY_LISTENS


def pytest_sessionstart(session: pytest.Session) -> None:
    """Each test process compiles a share of the test files.

    Every process needs all of them; without this, each would compile all of them.
    """
    name = os.environ.get("PYTEST_XDIST_WORKER")  # gw0, gw1 …
    if name is None or session.config.args != session.config.getini("testpaths"):
        return
    processes = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    files = sorted(Path(__file__).parent.rglob("test_*.py"))
    for file in files[int(name[2:]) :: processes]:
        with suppress(Exception):  # the error comes again when pytest collects the file
            import_module(".".join(file.relative_to(session.config.rootpath).with_suffix("").parts))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs quick tests last, so that no process is left alone with a long one."""
    items.sort(key=lambda item: item.path.parent.name in QUICK)


@dataclass
class Server:
    """A `tether serve` process, and the means to make keys for it."""

    database: str
    options: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    url: str = ""
    log: list[str] = field(default_factory=list)
    process: "subprocess.Popen[str] | None" = None
    program: list[str] = field(default_factory=lambda: [str(TETHER)])
    keys_at_once: int = 1
    """Opened once, because opening the database takes longer than many tests."""
    spare_keys: list[str] = field(default_factory=list)

    def start(self, port: int = 0) -> "Server":
        """Starts the process and waits until it listens."""
        command = [*self.program, "serve", "--database", self.database, "--port", str(port)]
        self.process = subprocess.Popen(
            [*command, *self.options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **self.environment},
        )  # fmt: skip
        assert self.process.stdout is not None
        threading.Thread(target=self._collect_log, args=(self.process,), daemon=True).start()
        first = self.process.stdout.readline()
        if not first:
            self.process.wait()
            raise AssertionError("".join(self.log) or "the server said nothing")
        self.url = next(word for word in first.split() if word.startswith("http://"))
        return self

    def _collect_log(self, process: "subprocess.Popen[str]") -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self.log.append(line)

    def stop(self) -> int:
        """Stops it as an init system would; returns its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=180)

    def kill(self) -> None:
        """Kills it with SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def failures(self) -> list[str]:
        """Log lines of requests that the server could not handle. No test may cause any."""
        return [line for line in self.log if '"event":"failed"' in line or "Traceback" in line]

    def key(self, partner: str | None = None, *, rate: Rate = FAST, **options: Any) -> str:
        """A new key, of a new partner unless one is named."""
        if partner is None and rate is FAST and not options:
            if not self.spare_keys:
                names = [f"partner {uuid4().hex[:12]}" for _ in range(self.keys_at_once)]
                self.spare_keys = asyncio.run(self._new_keys(names, FAST))
            return self.spare_keys.pop()
        name = partner or f"partner {uuid4().hex[:12]}"
        (key,) = asyncio.run(self._new_keys([name], rate, **options))
        return key

    async def _new_keys(self, partners: list[str], rate: Rate, **options: Any) -> list[str]:
        async with open_store(self.database) as store:
            now_ms = timestamps.now_ms()
            made = await asyncio.gather(
                *(admin.create_key(store, now_ms, name, rate=rate, **options) for name in partners)
            )
            return [secret for secret, _ in made]

    def client(self, key: str | None = None, **options: Any) -> httpx.Client:
        """An HTTP client with this key, or with the key of a new partner."""
        headers = {"x-api-key": self.key() if key is None else key}
        # Reading certificates takes 70 ms.
        options = {"timeout": 30, "verify": False, "limits": ALL_KEPT, **options}
        return httpx.Client(base_url=self.url, headers=headers, **options)


@pytest.fixture(scope="session", autouse=True)
def in_folder_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Commands look for the demo of `make run` in their folder, and one may be served here."""
    os.chdir(tmp_path_factory.mktemp("folder"))


@pytest.fixture(scope="session", autouse=True)
def ended_with_the_tests() -> Iterator[None]:
    """Ends all processes that the tests start, even if the tests are killed."""
    mark = uuid4().hex
    process = subprocess.Popen(
        [sys.executable, cleanup.__file__, mark],
        stdin=subprocess.PIPE, start_new_session=True, env=unmarked(),
    )  # fmt: skip
    os.environ[cleanup.NAME] = mark
    yield
    assert process.stdin is not None
    process.stdin.close()
    process.wait()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL server in which databases may be created."""
    if named := os.environ.get("TETHER_TEST_POSTGRES"):
        yield named
    else:
        with running_postgres(max_connections="200") as server:
            yield server.url()


@pytest.fixture(scope="session")
def new_postgres_database(postgres: str) -> Callable[[], str]:
    """Makes an empty database in that server and returns its URL."""
    return lambda: create_database(postgres)


def new_database(request: pytest.FixtureRequest, folders: pytest.TempPathFactory) -> str:
    """An empty database on the engine that is the parameter of a fixture."""
    if request.param == "postgres":
        make: Callable[[], str] = request.getfixturevalue("new_postgres_database")
        return make()
    return str(folders.mktemp("database") / "tether.db")


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An empty database that the tests of a session share, on each engine in turn."""
    return new_database(request, tmp_path_factory)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def own_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An empty database for the tests of one file, on each engine in turn."""
    return new_database(request, tmp_path_factory)


def shared(database: str) -> Iterator[Server]:
    """A server on this database that many tests share. None of them may make it fail."""
    secret = {"TETHER_SECRET_KEY": SECRET_KEY}
    server = Server(database, ["--key-requests", "on"], secret, keys_at_once=50).start()
    yield server
    assert server.stop() == 0
    assert server.failures() == []


@pytest.fixture(scope="session")
def sqlite_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server on SQLite that all tests share; each test has a partner of its own."""
    yield from shared(str(tmp_path_factory.mktemp("shared") / "tether.db"))


@pytest.fixture(scope="session")
def postgres_server(new_postgres_database: Callable[[], str]) -> Iterator[Server]:
    """The server on PostgreSQL that all tests share; each test has a partner of its own."""
    yield from shared(new_postgres_database())


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def server(request: pytest.FixtureRequest) -> Server:
    """The shared server, on each engine in turn."""
    found: Server = request.getfixturevalue(f"{request.param}_server")
    return found


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    """A client with the key of a partner that has nothing yet."""
    with server.client() as client:
        yield client


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers for one test, on a new database unless one is given."""
    servers: list[Server] = []

    def make(
        *options: str, database: str | None = None, program: list[str] | None = None,
        **environment: str,
    ) -> Server:  # fmt: skip
        path = database or str(tmp_path / f"tether-{len(servers)}.db")
        server = Server(path, list(options), environment, program=program or [str(TETHER)])
        servers.append(server)
        return server.start()

    yield make
    for server in servers:
        if server.process is not None and server.process.poll() is None:
            server.kill()


@pytest.fixture
def server_with_constants(new_server: Callable[..., Server]) -> Callable[..., Server]:
    """Starts servers with other constants, such as "tether.server.protocol.LINGER_S=5"."""

    def make(*constants: str, options: tuple[str, ...] = (), database: str | None = None) -> Server:
        program = [sys.executable, str(WITH_CONSTANTS), *constants]
        return new_server(*options, database=database, program=program)

    return make
