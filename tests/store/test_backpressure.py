"""Requests that are slowed down while many events wait do not also wait for pauses."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from time import monotonic
from typing import Any

import pytest

from tests.store.conftest import sessions_page
from tests.store.test_contract import add_site, charger, event, report
from tether.domain.filters import SessionFilter
from tether.projections import projector
from tether.server.store import Store
from tether.storage.postgres.engine import PostgresEngine
from tether.storage.sqlite.database import SqliteEngine


def test_what_holds_up_is_derived_at_once(
    in_store: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector, "INTERVAL_S", 60)
    monkeypatch.setattr(projector, "MAX_BACKLOG", 20)
    monkeypatch.setattr(projector, "AT_ONCE", 5)

    for engine in (SqliteEngine, PostgresEngine):
        monkeypatch.setattr(engine, "dialect", replace(engine.dialect, pause_s=60))

    async def scenario(store: Store, partner: int) -> None:
        await add_site(store, partner)
        derived = store.projector.progress(partner)
        await report(store, partner, [event(0)])
        await derived.wait()
        await report(store, partner, [event(second) for second in range(1, 50)])
        began = monotonic()
        await report(store, partner, [event(50)])
        assert monotonic() - began < 30

    in_store(scenario)


def test_who_asks_for_what_came_in_bulk_does_not_wait_for_more(
    in_store: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector, "IN_BULK", 10)

    async def scenario(store: Store, partner: int) -> None:
        slow = replace(store.engine.dialect, bulk_pause_s=60)
        monkeypatch.setattr(store.engine, "dialect", slow)
        await add_site(store, partner)
        await store.entities.put(partner, charger("C2"))
        events = [event(second, charger_id=f"C{1 + second % 2}") for second in range(50)]
        rows = [store.batcher.row_of(one) for one in events]
        await store.batcher.add_all(partner, rows)
        with pytest.raises(TimeoutError):  # no read asks for them, and more may come
            async with asyncio.timeout(0.3):
                await store.projector.progress(partner).wait()
        began = monotonic()
        page = await sessions_page(store, partner, SessionFilter(), None, 100)
        assert len(page.sessions) == 50
        assert monotonic() - began < 30

    in_store(scenario)
