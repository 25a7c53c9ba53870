"""Reads in one turn of the event loop share a transaction, and the next ones see new data."""

import asyncio
from decimal import Decimal
from pathlib import Path

import pytest

from tether.domain.errors import NotFound
from tether.domain.models import Vehicle
from tether.domain.partners import Partner
from tether.server.databases import database_of
from tether.server.store import Store, open_store


def vehicle(name: str, capacity: int) -> Vehicle:
    return Vehicle(id=name, charge_capacity=Decimal(capacity), charge_powers=(Decimal(11),))


def test_what_another_process_changes_is_seen(tmp_path: Path) -> None:
    url = str(tmp_path / "tether.db")
    database_of(url).migrate()

    async def capacity(store: Store) -> bytes:
        await asyncio.sleep(0)  # a turn of the event loop sees one state of the database
        return (await store.entities.get(Vehicle, 1, "V1")).body

    async def scenario() -> None:
        async with open_store(url) as store, open_store(url) as other:
            await store.partners.add(Partner(1, "p", 0))
            with pytest.raises(NotFound):
                await capacity(store)
            for size in (50, 60, 70):
                await other.entities.put(1, vehicle("V1", size))
                for _ in range(2):
                    assert f'"chargeCapacity":{size}'.encode() in await capacity(store)
            await store.entities.put(1, vehicle("V1", 80))
            assert b'"chargeCapacity":80' in await capacity(store)
            assert b'"chargeCapacity":80' in await capacity(other)
            (partner,) = await other.partners.all()
            await other.partners.erase(partner, lambda _: None)
            with pytest.raises(NotFound):
                await capacity(store)

    asyncio.run(scenario())
