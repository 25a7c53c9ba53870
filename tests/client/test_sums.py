"""Sums of sessions and load curves through both clients."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tests.conftest import Server
from tether.client import AsyncClient, Client, EnergyStep, Event, Invalid, SessionSummary

AT = datetime(2026, 1, 5, 22, 30, tzinfo=UTC)


def charge(sdk: Client) -> None:
    """V1 charges 10 kWh at C1 in an hour around midnight in Berlin."""
    kinds = ("CONNECTED", "CHARGE_STARTED", "CHARGE_STOPPED", "DISCONNECTED")
    for kind, minutes in zip(kinds, (0, 0, 60, 90), strict=True):
        energy = 10 if kind == "CHARGE_STOPPED" else None
        sdk.events.post(Event(
            type=f"VEHICLE_{kind}", charger_id="C1", vehicle_id="V1",
            timestamp=AT + timedelta(minutes=minutes), charged_energy=energy,
        ))  # fmt: skip


def test_both_clients_sum_up(sdk: Client, server: Server, key: str) -> None:
    charge(sdk)
    (whole,) = sdk.sessions.summary()
    assert isinstance(whole, SessionSummary)
    assert (whole.sessions, whole.charged_energy, whole.average_power) == (
        1,
        Decimal(10),
        Decimal(10),
    )
    assert (whole.from_, whole.plugged_time, whole.utilisation) == (None, Decimal(5400), None)
    days = list(sdk.sessions.summary(
        bucket="day", time_zone="Europe/Berlin", by="charger", charger_id=["C1", "C2"],
        from_=AT, page_size=1,
    ))  # fmt: skip
    assert [(day.from_, day.charger_id, day.charged_energy) for day in days] == [
        ("2026-01-04T23:00:00.000Z", "C1", Decimal(5)),
        ("2026-01-05T23:00:00.000Z", "C1", Decimal(5)),
    ]
    assert list(sdk.sessions.summary(estimated=True)) == []
    steps = list(sdk.energy(from_=AT, to=AT + timedelta(hours=2), step=1800, page_size=3))
    assert all(isinstance(step, EnergyStep) for step in steps)
    assert [step.average_power for step in steps] == [10, 10, 0, 0]
    (month,) = sdk.energy(
        from_="2026-01-01T00:00:00Z", to="2026-02-01T00:00:00Z", step="month", by="charger",
        vehicle_id="V1",
    )  # fmt: skip
    assert (month.charger_id, month.charged_energy, month.spread_energy) == (
        "C1",
        Decimal(10),
        Decimal(10),
    )
    with pytest.raises(Invalid) as caught:
        next(sdk.energy(from_=AT, to=AT, step=900))
    assert caught.value.parameter == "from"

    async def awaiting() -> tuple[Decimal, Decimal]:
        async with AsyncClient(server.url, key) as client:
            sums = [one.charged_energy async for one in client.sessions.summary(bucket="hour")]
            steps = client.energy(from_=AT, to=AT + timedelta(hours=1), step=60)
            curve = [one.charged_energy async for one in steps]
            return sum(sums, Decimal(0)), sum(curve, Decimal(0))

    assert asyncio.run(awaiting()) == (Decimal(10), Decimal(10))
