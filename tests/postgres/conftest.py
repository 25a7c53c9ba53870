from collections.abc import Callable, Iterator

import pytest

from tests.conftest import Server
from tests.services import Postgres, Redis, running_postgres, running_redis


@pytest.fixture
def database(new_postgres_database: Callable[[], str]) -> str:
    """An empty PostgreSQL database of the test's own, in the server of the session."""
    return new_postgres_database()


@pytest.fixture(scope="module")
def lasting_postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of a file's own."""
    with running_postgres(max_connections="60") as server:
        yield server


@pytest.fixture
def own_postgres(lasting_postgres: Postgres) -> Iterator[Postgres]:
    """A PostgreSQL server that a test may stop and freeze."""
    yield lasting_postgres
    if not (lasting_postgres.data / "postmaster.pid").exists():  # the test failed meanwhile
        lasting_postgres.start()


@pytest.fixture
def redis() -> Iterator[Redis]:
    """A Redis server of the test's own."""
    with running_redis() as server:
        yield server


@pytest.fixture
def node(new_server: Callable[..., Server]) -> Callable[..., Server]:
    """Starts a quiet server: its options, and the database."""
    return lambda *options, database, **environment: new_server(
        "--log-level", "warning", *options, database=database, **environment
    )
