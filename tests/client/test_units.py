"""Numbers in the wrong unit give a Python warning, and `BulkResult.warnings`."""

import asyncio
import logging
import warnings
from pathlib import Path

import pytest

from tests.client.devices import CHARGER, VEHICLE, connected
from tests.commands import Command
from tests.conftest import Server
from tether.client import (
    AsyncClient,
    Charger,
    Client,
    Doubt,
    Event,
    Outbox,
    UnitWarning,
    Vehicle,
)

ENERGY = Doubt("unit", "chargedEnergy")


def stopped(number: int, energy: float) -> Event:
    return Event(
        type="VEHICLE_CHARGE_STOPPED",
        charger_id=CHARGER,
        vehicle_id=VEHICLE,
        charged_energy=energy,
        timestamp=f"2026-01-05T08:{number:02}:00Z",
    )


def test_a_doubtful_value_is_stored_with_a_warning(sdk: Client) -> None:
    with pytest.warns(UnitWarning, match=r"^chargeCapacity was stored .* too high for kWh: check"):
        sdk.vehicles.put(Vehicle(id="V2", charge_capacity=74800, charge_powers=[11]))
    with pytest.warns(UnitWarning, match="^chargePowers was stored .* too high for kW:"):
        sdk.chargers.put(Charger(id="C2", charge_powers=[11000]))
    with pytest.warns(UnitWarning, match="^chargePowerMax"):
        sdk.chargers.patch("C2", charge_powers=None, charge_power_min=1, charge_power_max=11000)
    with pytest.warns(UnitWarning, match="^chargedEnergy"):
        assert sdk.events.post(stopped(1, 43000))
    with pytest.warns(UnitWarning) as caught:
        results = sdk.events.bulk([stopped(2, 43), stopped(3, 43000), stopped(4, 43000)])
    assert [result.warnings for result in results] == [(), (ENERGY,), (ENERGY,)]
    assert all(result.ok for result in results)
    assert len(caught) == 1


def test_coalesced_events_have_warnings(server: Server, sdk: Client) -> None:
    async def report() -> None:
        async with AsyncClient(server.url, sdk._endpoint.headers["X-API-Key"]) as client:
            await asyncio.gather(*(client.events.post(stopped(n, 43000)) for n in range(30)))

    with pytest.warns(UnitWarning) as caught:
        asyncio.run(report())
    assert len(caught) == 30


def test_an_outbox_delivers_even_if_warnings_are_errors(
    sdk: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING, "tether.client.outbox"):
        warnings.simplefilter("error")
        with Outbox(tmp_path / "outbox.db", sdk) as outbox:
            for number in range(5):
                outbox.put(stopped(number, 43000))
            assert outbox.flush(30)
            assert (outbox.depth, outbox.refused) == (0, [])
    assert len(list(sdk.events.list())) == 5
    assert "chargedEnergy was stored as it was sent" in caplog.text


def test_errors_have_a_code_and_a_parameter(sdk: Client) -> None:
    results = sdk.events.bulk(
        [
            Event(type="VEHICLE_CONNECTED", charger_id="C9", vehicle_id=VEHICLE),
            Event(type="VEHICLE_CONNECTED", charger_id=CHARGER, vehicle_id="V9"),
            connected(),
        ]
    )
    assert [(result.code, result.parameter) for result in results] == [
        ("charger-unknown", "chargerId"),
        ("vehicle-unknown", "vehicleId"),
        (None, None),
    ]


def test_the_command_line_shows_a_warning(
    server: Server, key: str, tmp_path: Path, sdk: Client
) -> None:
    command = Command(tmp_path, server.database, {"TETHER_URL": server.url, "TETHER_API_KEY": key})
    words = ["--charge-capacity", "74800", "--charge-powers", "11"]
    done = command("vehicles", "put", "V2", *words)
    assert done.returncode == 0
    assert done.stderr.startswith("Warning: chargeCapacity was stored as it was sent")
    assert done.stderr.count("\n") == 1
