import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest

from tether.domain.filters import EventFilter, SessionFilter
from tether.domain.partners import Partner
from tether.server.databases import database_of
from tether.server.store import Store, open_store
from tether.storage.events import EventPage
from tether.storage.sessions import SessionPage

Scenario = Callable[[Store, int], Awaitable[Any]]


async def sessions_page(
    store: Store, partner: int, wanted: SessionFilter, after: tuple[int, str] | None, limit: int
) -> SessionPage:
    """A page of sessions, after waiting events are derived, as the API reads it."""
    await store.projector.catch_up(partner)
    return await store.sessions.page(partner, wanted, after, limit)


async def events_page(store: Store, partner: int, wanted: EventFilter, **options: Any) -> EventPage:
    """A page of events, as the API reads it."""
    return await store.events.page(partner, wanted, **options)


@pytest.fixture(scope="session")
def migrated(database: str) -> str:
    """The session's database on each engine, with its schema."""
    database_of(database).migrate()
    return database


@pytest.fixture
def in_store(migrated: str) -> Callable[[Scenario], Any]:
    """Runs a scenario on the store and a new partner's number."""

    def run(scenario: Scenario) -> Any:
        async def main() -> Any:
            async with asyncio.timeout(300), open_store(migrated, pool_size=4) as store:
                name = f"partner {uuid4().hex}"
                partner = await store.partners.add(Partner(uuid4().int >> 81, name, 0))
                return await scenario(store, partner.id)

        return asyncio.run(main())

    return run
