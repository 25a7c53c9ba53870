"""Capacity through both clients, on both databases."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import pytest

from tests.conftest import Server
from tether.client import AsyncClient, Capacity, Charger, Client, Event, Invalid, Vehicle

AT = datetime(2026, 1, 5, 12, tzinfo=UTC)


def plug_in(sdk: Client) -> None:
    """V1 is at C1 since noon, 50 % full. Ten minutes later it begins to take 7.4 kW of 11 kW."""
    sdk.chargers.patch("C1", latitude=62.39, longitude="17.30")
    sdk.chargers.put(Charger(id="C2", charge_powers=[11]))
    plugged_in = Event(
        type="VEHICLE_CONNECTED",
        charger_id="C1",
        vehicle_id="V1",
        state_of_charge=50,
        timestamp=AT,
    )
    started = Event(
        type="VEHICLE_CHARGE_STARTED",
        charger_id="C1",
        vehicle_id="V1",
        charge_power=7.4,
        timestamp=AT + timedelta(minutes=10),
    )
    assert all(result.ok for result in sdk.events.bulk([plugged_in, started]))


def test_capacity_now_in_the_past_by_area_and_over_time(sdk: Client) -> None:
    plug_in(sdk)
    now = sdk.capacity.get()
    assert isinstance(now, Capacity)
    assert (now.vehicles_plugged_in, now.vehicles_charging) == (1, 1)
    assert (str(now.charge_power), now.charge_power_available) == ("7.4", Decimal("3.6"))
    assert (now.energy_stored, now.energy_room) == (Decimal("37.4"), Decimal("37.4"))
    assert now.unknown.state_of_charge == 0
    then = sdk.capacity.get(at=AT + timedelta(minutes=5))
    assert (then.as_of, str(then.charge_power)) == ("2026-01-05T12:05:00.000Z", "0")
    assert then.charge_power_available == 11
    assert sdk.capacity.get(bbox=(17.2, "62.3", Decimal("17.4"), 63)).chargers_occupied == 1
    for west in (1e-7, 51.4 - 51.3877):  # 0.0123, and a float with 15 decimals
        assert sdk.capacity.get(bbox=(west, 0, 1, 1)).chargers_occupied == 0
    assert sdk.capacity.get(charger_id="C2").chargers_occupied == 0
    series = sdk.capacity.series(from_=AT, to=AT + timedelta(hours=1), step=600)
    assert [str(one.charge_power) for one in series] == ["0", *["7.4"] * 5]
    assert series[1].as_of == "2026-01-05T12:10:00.000Z"
    window: dict[str, Any] = {"from_": AT, "to": AT + timedelta(hours=1)}
    assert list(sdk.capacity.over_time(step=600, **window)) == series
    assert len(list(sdk.capacity.over_time(step=1, **window))) == 3600
    ways: list[Literal["charger", "area"]] = ["charger", "area"]
    for by in ways:
        found = list(sdk.capacity.over_time(step=600, by=by, page_size=4, **window))
        assert [one.charge_power for one in found] == [one.charge_power for one in series]
        assert {one.charger_id for one in found} == {"C1" if by == "charger" else None}
    (there,) = sdk.capacity.by_area()
    assert (there.area, there.energy_room) == ("17.3,62.3,17.4,62.4", now.energy_room)
    with pytest.raises(Invalid) as caught:
        next(sdk.capacity.over_time(from_=AT - timedelta(days=1), to=AT, step=1))
    assert caught.value.parameter == "step"
    with pytest.raises(Invalid) as caught:
        sdk.capacity.series(from_=AT, step=1)
    assert caught.value.parameter == "step"
    with pytest.raises(Invalid):
        sdk.capacity.get(bbox=(1, 2, 3, "x"))


def test_by_charger_follows_the_pages(sdk: Client) -> None:
    ids = [f"C{number}" for number in range(2, 7)]
    for id in ids:
        sdk.chargers.put(Charger(id=id, charge_powers=[11]))
        sdk.vehicles.put(Vehicle(id=f"V-{id}", charge_capacity=50, charge_powers=[11]))
        sdk.events.post(
            Event(type="VEHICLE_CONNECTED", charger_id=id, vehicle_id=f"V-{id}", timestamp=AT)
        )
    found = list(sdk.capacity.by_charger(page_size=2))
    assert [one.charger_id for one in found] == ids
    assert all(one.unknown.state_of_charge == 1 for one in found)
    assert list(sdk.capacity.by_charger(at=AT - timedelta(seconds=1))) == []


def test_the_async_client_returns_the_same(server: Server, key: str, sdk: Client) -> None:
    plug_in(sdk)

    async def use() -> None:
        async with AsyncClient(server.url, key) as client:
            at = AT + timedelta(hours=1)
            assert await client.capacity.get(at=at) == sdk.capacity.get(at=at)
            series = await client.capacity.series(from_=AT, to=at, step=900)
            assert series == sdk.capacity.series(from_=AT, to=at, step=900)
            found = [one async for one in client.capacity.by_charger(at=at)]
            assert found == list(sdk.capacity.by_charger(at=at))

    asyncio.run(use())
