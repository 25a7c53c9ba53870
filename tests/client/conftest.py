"""Partners of a real server and their clients."""

from collections.abc import Callable, Iterator

import pytest

from tests.client.devices import CHARGER, VEHICLE
from tests.conftest import Server
from tether.client import Charger, Client, Vehicle

Partner = Callable[..., Client]


@pytest.fixture
def key(server: Server) -> str:
    """The key of a partner without data."""
    return server.key()


@pytest.fixture
def sdk(server: Server, key: str) -> Iterator[Client]:
    """A client of a partner that has charger C1 and vehicle V1."""
    with Client(server.url, key) as client:
        client.chargers.put(Charger(id=CHARGER, charge_powers=[11, 22]))
        client.vehicles.put(Vehicle(id=VEHICLE, charge_capacity=74.8, charge_powers=[11]))
        yield client
