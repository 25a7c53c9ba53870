"""Servers that may call webhooks on loopback, without encryption."""

from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest

from tests.conftest import SECRET_KEY, Server
from tests.fleet import put_fleet
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
    put_fleet(client, ("C1", "C2"), ("V1", "V2"))


@pytest.fixture
def path() -> str:
    """A path of the receiver that no other test uses."""
    return f"/{uuid4().hex}"
