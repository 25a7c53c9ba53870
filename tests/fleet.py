"""Chargers and vehicles of the tests, created through the API."""

from collections.abc import Iterable

import httpx


def put_fleet(
    client: httpx.Client, chargers: Iterable[str] = ("C1",), vehicles: Iterable[str] = ("V1",)
) -> None:
    """Creates chargers and vehicles of 11 kW; a vehicle stores 60 kWh."""
    for charger in chargers:
        client.put(f"/chargers/{charger}", json={"chargePowers": [11]}).raise_for_status()
    for vehicle in vehicles:
        body = {"chargeCapacity": 60, "chargePowers": [11]}
        client.put(f"/vehicles/{vehicle}", json=body).raise_for_status()
