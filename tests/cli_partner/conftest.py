"""The partner's command against a real server, as a partner that has nothing yet."""

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.commands import Command
from tests.conftest import Server


@pytest.fixture
def new_partner(sqlite_server: Server, tmp_path: Path) -> Callable[[], Command]:
    """Makes the command with the key of a new partner. It behaves the same on every engine."""

    def make() -> Command:
        environment = {"TETHER_URL": sqlite_server.url, "TETHER_API_KEY": sqlite_server.key()}
        return Command(tmp_path, sqlite_server.database, environment)

    return make


@pytest.fixture
def partner(new_partner: Callable[[], Command]) -> Command:
    """The command with the key of a partner that has nothing yet."""
    return new_partner()


class Site(Command):
    """The command of a partner that has the charger C1 and the vehicle V1."""

    def client(self) -> httpx.Client:
        """A client for setup, because a request is faster than a process."""
        return httpx.Client(
            base_url=self.environment["TETHER_URL"],
            headers={"x-api-key": self.environment["TETHER_API_KEY"]},
            verify=False,
        )

    def furnish(self) -> None:
        """Makes the charger and the vehicle."""
        with self.client() as client:
            client.put("/chargers/C1", content='{"chargePowers": [11, 22.0]}').raise_for_status()
            client.put(
                "/vehicles/V1", content='{"chargeCapacity": 74.8, "chargePowers": [11]}'
            ).raise_for_status()

    def report(self, kind: str, at: str, **measured: float) -> str:
        """Posts an event of 2026-01-05 at this time; returns its id."""
        event = {"type": f"VEHICLE_{kind}", "chargerId": "C1", "vehicleId": "V1", **measured}
        with self.client() as client:
            answer = client.post("/events", json={**event, "timestamp": f"2026-01-05T{at}:00Z"})
        found: str = answer.raise_for_status().json()["id"]
        return found

    def stored(self, what: str) -> list[Any]:
        """All chargers, vehicles or events; numbers are Decimals."""
        with self.client() as client:
            text = client.get(f"/{what}?limit=1000").raise_for_status().text
        found: list[Any] = json.loads(text, parse_float=Decimal, parse_int=Decimal)
        return found


@pytest.fixture
def site(partner: Command) -> Site:
    """The command of a partner that has the charger C1 and the vehicle V1."""
    site = Site(partner.folder, partner.database, partner.environment)
    site.furnish()
    return site
