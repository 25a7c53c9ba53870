"""Servers that may call webhooks on loopback, without encryption."""

from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest

from tests.conftest import SECRET_KEY, Server
from tests.webhooks.receiver import Receiver, receiving

INSIDE = ["--webhooks-allow", "127.0.0.0/8", "--webhooks-allow-http"]


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    """The endpoint of all tests; each test has its own path."""
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def server(own_database: str) -> Iterator[Server]:
    """A server on each engine in turn."""
    secret = {"TETHER_SECRET_KEY": SECRET_KEY}
    server = Server(own_database, INSIDE, secret, keys_at_once=20).start()
    yield server
    assert server.stop() == 0
    assert server.failures() == []


@pytest.fixture
def key(server: Server) -> str:
    """The key of a partner with chargers and vehicles."""
    key = server.key()
    with server.client(key) as client:
        fill(client)
    return key


@pytest.fixture
def client(server: Server, key: str) -> Iterator[httpx.Client]:
    """A client with that key."""
    with server.client(key) as client:
        yield client


def fill(client: httpx.Client) -> None:
    """Creates two chargers and two vehicles."""
    for charger in ("C1", "C2"):
        client.put(f"/chargers/{charger}", json={"chargePowers": [11]}).raise_for_status()
    for vehicle in ("V1", "V2"):
        body = {"chargePowers": [11], "chargeCapacity": 60}
        client.put(f"/vehicles/{vehicle}", json=body).raise_for_status()


@pytest.fixture
def path() -> str:
    """A path of the receiver that no other test uses."""
    return f"/{uuid4().hex}"
