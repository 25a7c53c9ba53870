"""Reads of a partner's data while it is erased: they get fewer, and never fail."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.store.conftest import sessions_page
from tests.store.test_contract import add_site, charger, event, new_partner, report
from tether.domain.errors import NotFound, Unavailable
from tether.domain.filters import SessionFilter
from tether.domain.models import Charger
from tether.projections import projector
from tether.projections.capacity import CapacityQuery
from tether.server.store import Store
from tether.storage import partners


def test_reads_go_on_while_a_partner_is_erased(in_store: Callable[..., Any]) -> None:
    async def scenario(store: Store, _: int) -> None:
        partner = await new_partner(store)
        await add_site(store, partner.id)
        await store.entities.put(partner.id, charger("C2"))
        events = [event(second, charger_id=f"C{1 + second % 2}") for second in range(30)]
        await report(store, partner.id, events)
        found, stop = await sessions_page(store, partner.id, SessionFilter(), None, 100)
        assert (len(found), stop) == (30, None)
        start_ms = found[3].record.start_ms
        reads: list[Callable[[], Awaitable[Any]]] = [
            lambda: sessions_page(store, partner.id, SessionFilter(), None, 100),
            lambda: sessions_page(store, partner.id, SessionFilter(updated_from_ms=0), None, 100),
            lambda: store.sessions.get(partner.id, found[-1].id),
            lambda: store.states.of_vehicle(partner.id, "V1"),
            lambda: store.states.of_vehicles(partner.id, ["V1"]),
            lambda: store.states.of_chargers(partner.id, ["C1"]),
            lambda: store.entities.get(Charger, partner.id, "C1"),
            lambda: store.capacities.totals(partner.id, CapacityQuery()),
            lambda: store.capacities.totals(
                partner.id, CapacityQuery(moments=range(start_ms, start_ms + 1))
            ),
        ]
        erasing = asyncio.create_task(store.partners.erase(partner, lambda erased: None))

        async def read_on(read: Callable[[], Awaitable[Any]]) -> None:
            while not erasing.done():
                with suppress(NotFound, Unavailable):
                    await read()
                await asyncio.sleep(0)

        await asyncio.gather(erasing, *map(read_on, reads))
        page = await sessions_page(store, partner.id, SessionFilter(), None, 100)
        assert page.sessions == []

    in_store(scenario)


def test_a_server_that_still_derives_meets_no_failure_either(
    in_store: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partners, "ERASE_AT_ONCE", 5)
    monkeypatch.setattr(projector, "AT_ONCE", 5)

    async def scenario(store: Store, _: int) -> None:
        partner = await new_partner(store)
        await add_site(store, partner.id)
        await report(store, partner.id, [event(second) for second in range(100)])
        await store.projector.catch_up(partner.id)
        erasing = asyncio.create_task(store.partners.erase(partner, lambda erased: None))
        while not erasing.done():
            await store.projector.portion(partner.id)
        await erasing
        assert await store.projector.count_backlog(partner.id) == 0
        assert await store.projector.derivations.position(partner.id) is None

    in_store(scenario)
