"""Servers that may call back to loopback, without encryption."""

from collections.abc import Callable, Iterator
from uuid import uuid4

import httpx
import pytest

from tests.conftest import SECRET_KEY, Server
from tests.webhooks.receiver import Receiver, receiving

INSIDE = ["--webhooks-allow", "127.0.0.0/8", "--webhooks-allow-http"]


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    """The endpoint of all tests, each of which has a path of its own."""
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server on each engine in turn."""
    if request.param == "postgres":
        make: Callable[[], str] = request.getfixturevalue("new_postgres_database")
        database = make()
    else:
        database = str(tmp_path_factory.mktemp("webhooks") / "tether.db")
    server = Server(database, INSIDE, {"TETHER_SECRET_KEY": SECRET_KEY}, keys_at_once=20).start()
    yield server
    assert server.stop() == 0
    assert server.failures() == []


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    """A partner with a charger and a vehicle."""
    with server.client() as client:
        fill(client)
        yield client


def fill(client: httpx.Client) -> None:
    for charger in ("C1", "C2"):
        client.put(f"/chargers/{charger}", json={"chargePowers": [11]}).raise_for_status()
    for vehicle in ("V1", "V2"):
        body = {"chargePowers": [11], "chargeCapacity": 60}
        client.put(f"/vehicles/{vehicle}", json=body).raise_for_status()


@pytest.fixture
def path() -> str:
    """A path of the receiver that no other test uses."""
    return f"/{uuid4().hex}"
