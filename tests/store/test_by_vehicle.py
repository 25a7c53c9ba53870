"""Many events in no order are derived vehicle by vehicle, and each step is right."""

import asyncio
import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from tests.derivation.streams import CHARGERS, VEHICLE, stream
from tests.store.conftest import sessions_page
from tether.domain.filters import SessionFilter
from tether.domain.models import Charger, Vehicle
from tether.domain.timestamps import now_ms
from tether.domain.validation import new_entity, new_event
from tether.ingest.json_reader import decode_document
from tether.projections import changes, projector, recompute
from tether.projections.projector import Projector
from tether.server.store import Store
from tether.storage import session_records

VEHICLES = 12


@pytest.fixture
def by_vehicle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lowers the limits, and derives nothing before a read asks for it."""
    monkeypatch.setattr(projector, "AT_ONCE", 10)
    monkeypatch.setattr(projector, "WRITTEN_AT_ONCE", 2)
    monkeypatch.setattr(session_records, "ROWS", 2)
    monkeypatch.setattr(Projector, "notice", lambda projector, partner: None)


def document(body: object) -> dict[str, Any]:
    """The body of an event as the API gets it."""
    return decode_document(json.dumps(body).encode())


async def report_shuffled(store: Store, partner: int, random: Random, name: str) -> int:
    """Dirty streams of vehicles, in no order, of which some are taken back; how many events that
    were.
    """
    for charger, body in CHARGERS.items():
        await store.entities.put(partner, new_entity(Charger, charger, document(body)))
    names = [f"{name}{number}" for number in range(VEHICLES)]
    for vehicle in names:
        await store.entities.put(partner, new_entity(Vehicle, vehicle, document(VEHICLE)))
    bodies = [body for vehicle in names for body in stream(random, vehicle)]
    random.shuffle(bodies)
    rows = [store.batcher.row_of(new_event(document(body), now_ms())) for body in bodies]
    ids = [id for id in await store.batcher.add_all(partner, rows) if isinstance(id, str)]
    taken_back = random.sample(ids, len(ids) // 8)
    async for known in store.withdrawals.withdraw(partner, taken_back):
        assert all(known)
    return len(rows)


async def check(store: Store, partner: int) -> int:
    """The number of sessions, which must all be the same as derived from the events."""
    found = [one async for one in store.rebuilder.check(partner, repair=False)]
    assert [one.vehicle_id for one in found if one.differing] == []
    return sum(one.sessions for one in found)


async def derive_some(store: Store, partner: int, random: Random) -> bool:
    """Begins to derive, and is stopped in the middle, as if the process were killed.

    Returns whether it had not finished.
    """
    task = asyncio.create_task(store.projector.portion(partner))
    left = random.randrange(1, 6)  # commits
    mark = None
    while left and not task.done():
        await asyncio.sleep(0.001)
        position = await store.projector.derivations.position(partner)
        assert position is not None
        left -= position.mark != mark
        mark = position.mark
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    position = await store.projector.derivations.position(partner)
    return position is not None and position.unfinished


@pytest.mark.usefixtures("by_vehicle")
@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_the_events_say_wherever_it_was_ended(
    in_store: Callable[..., Any], seed: int
) -> None:
    random = Random(seed)

    async def scenario(store: Store, partner: int) -> None:
        unfinished = 0
        for name in ("A", "B", "A", "C"):
            await report_shuffled(store, partner, random, name)
            for _ in range(6):
                unfinished += await derive_some(store, partner, random)
        for _ in range(50):  # on a busy machine it may have been done before each look
            if unfinished:
                break
            await report_shuffled(store, partner, random, "A")
            unfinished += await derive_some(store, partner, random)
        assert unfinished, "it was ended in the midst of it"
        while await store.projector.count_backlog(partner):
            await store.projector.portion(partner)
        assert await check(store, partner) > 3 * VEHICLES

    in_store(scenario)


@pytest.mark.usefixtures("by_vehicle")
def test_a_rebuild_of_what_was_ended_in_the_midst_finds_no_difference(
    in_store: Callable[..., Any],
) -> None:
    random = Random(7)

    async def scenario(store: Store, partner: int) -> None:
        for name in ("A", "B", "C"):
            await report_shuffled(store, partner, random, name)
            await derive_some(store, partner, random)
            await check(store, partner)

    in_store(scenario)


@pytest.mark.usefixtures("by_vehicle")
def test_several_who_derive_it_at_once_do_each_other_no_harm(in_store: Callable[..., Any]) -> None:
    random = Random(8)

    async def scenario(store: Store, partner: int) -> None:
        for name in ("A", "A", "B"):
            await report_shuffled(store, partner, random, name)
            while await store.projector.count_backlog(partner):
                await asyncio.gather(*(store.projector.portion(partner) for _ in range(3)))
        assert await check(store, partner) > 2 * VEHICLES

    in_store(scenario)


@pytest.mark.usefixtures("by_vehicle")
def test_what_is_derived_again_from_the_first_event_on_is_what_it_was(
    in_store: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # More are stored than are looked at together.
    for module, name in ((changes, "SESSIONS"), (changes, "MAX_LATE"), (recompute, "MAX_LATE")):
        monkeypatch.setattr(module, name, 2)
    monkeypatch.setattr(projector, "MAX_BACKLOG", 40)
    random = Random(9)

    async def scenario(store: Store, partner: int) -> None:
        await report_shuffled(store, partner, random, "A")
        while await store.projector.count_backlog(partner):
            await store.projector.portion(partner)
        before = await sessions_page(store, partner, SessionFilter(), None, 1000)
        again = "UPDATE derivations SET seq = 0, mark = 0 WHERE partner = $1"  # as migrations do
        await store.engine.write(again, partner)
        while await store.projector.count_backlog(partner):
            await store.projector.portion(partner)
        after = await sessions_page(store, partner, SessionFilter(), None, 1000)
        assert [one.record for one in after.sessions] == [one.record for one in before.sessions]
        assert await check(store, partner) == len(before.sessions) > VEHICLES

    in_store(scenario)
