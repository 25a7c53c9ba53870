"""A request reads only a part of a list, and all pages together are complete."""

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.store.conftest import events_page, sessions_page
from tests.store.test_contract import add_site, charger, event, report, vehicle
from tether.domain.filters import EventFilter, SessionFilter
from tether.domain.models import EventType
from tether.domain.session_record import SessionRecord
from tether.domain.timestamps import parse_instant
from tether.server.store import Store
from tether.storage import events, sessions

WINDOWS = ("ended_from_ms", "ended_to_ms", "overlapping_from_ms", "overlapping_to_ms")
CHARGERS, VEHICLES = ["C1", "C2", "C3"], ["V1", "V2", "V3"]
TYPES = [EventType.VEHICLE_CONNECTED, EventType.VEHICLE_DISCONNECTED]


@pytest.fixture(autouse=True)
def _small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in (
        (events, "READ_AT_ONCE", 7),
        (events, "WINDOW_AT_ONCE", 40),
        (events, "PORTIONS", 2),
        (sessions, "READ_AT_ONCE", 5),
        (sessions, "PORTION", 3),
        (sessions, "PORTIONS", 2),
    ):
        monkeypatch.setattr(module, name, value)


async def stored(store: Store, partner: int, chosen: random.Random) -> list[Any]:
    for charger_id, vehicle_id in zip(CHARGERS, VEHICLES, strict=True):
        await store.entities.put(partner, charger(charger_id))
        await store.entities.put(partner, vehicle(vehicle_id))
    made = []
    for second in range(150):
        late = chosen.randrange(60) if second % 9 == 0 else 0  # not in the order of time
        made.append(
            event(
                max(0, second * 2 - late),
                chosen.choice(TYPES) if second > 40 else TYPES[0],
                charger_id=chosen.choice(CHARGERS),
                vehicle_id=chosen.choice(VEHICLES),
            )
        )
    await report(store, partner, made)
    found, _ = await events_page(store, partner, EventFilter(), after=None, limit=1000)
    assert len(found) > 130
    return [(seq, msgspec.json.decode(body)) for seq, body in found]


def fits(one: dict[str, Any], wanted: EventFilter) -> bool:
    at_ms = parse_instant(one["timestamp"])
    return (
        wanted.type in (None, one["type"])
        and wanted.charger_id in (None, one["chargerId"])
        and wanted.vehicle_id in (None, one["vehicleId"])
        and (wanted.from_ms is None or at_ms >= wanted.from_ms)
        and (wanted.to_ms is None or at_ms < wanted.to_ms)
    )


def test_events(in_store: Callable[..., Any]) -> None:
    async def scenario(store: Store, partner: int) -> None:
        chosen = random.Random(99)
        there = await stored(store, partner, chosen)
        times = sorted(parse_instant(one["timestamp"]) for _, one in there)
        for _ in range(120):
            wanted = EventFilter(
                chosen.choice([None, *TYPES, "VEHICLE_CHARGE_UPDATED"]),
                chosen.choice([None, None, *CHARGERS]),
                chosen.choice([None, None, *VEHICLES]),
                chosen.choice([None, None, *times]),
                chosen.choice([None, None, *times]),
            )
            limit, descending = chosen.choice([1, 3, 50]), chosen.random() < 0.5
            expected = [seq for seq, one in there if fits(one, wanted)]
            assert await all_events(store, partner, wanted, limit, descending) == (
                expected[::-1] if descending else expected
            )

    async def all_events(
        store: Store, partner: int, wanted: EventFilter, limit: int, descending: bool
    ) -> list[int]:
        found: list[int] = []
        after: int | None = None
        while True:
            page = await events_page(
                store, partner, wanted, after=after, limit=limit, descending=descending
            )
            assert len(page.events) <= limit
            found += [seq for seq, _ in page.events]
            if page.stop is None and not page.events:
                return found
            after = page.events[-1][0] if page.stop is None else page.stop

    in_store(scenario)


def test_the_stream_of_few_among_many(in_store: Callable[..., Any]) -> None:
    async def scenario(store: Store, partner: int) -> None:
        there = await stored(store, partner, random.Random(7))
        await store.projector.catch_up(partner)
        for wanted in (
            EventFilter(type="VEHICLE_CHARGE_UPDATED"),
            EventFilter(type="VEHICLE_DISCONNECTED", charger_id="C2"),
            EventFilter(charger_id="C1", vehicle_id="V3"),
        ):
            found: list[int] = []
            after, until = 0, there[-1][0]
            while after < until:
                portion = await store.feed.portion(partner, wanted, after, until)
                assert portion.end > after
                found += [entry.seq for entry in portion.entries]
                after = portion.end
            assert found == [seq for seq, one in there if fits(one, wanted)]

    in_store(scenario)


def test_sessions(in_store: Callable[..., Any]) -> None:
    async def scenario(store: Store, partner: int) -> None:
        chosen = random.Random(3)
        await stored(store, partner, chosen)
        everything = await all_sessions(store, partner, SessionFilter(), 1000)
        assert len(everything) > 60
        times = sorted(one.record.start_ms for one in everything)
        for changes in (False, True):
            listed = await all_sessions(
                store, partner, SessionFilter(updated_from_ms=0) if changes else SessionFilter(), 9
            )
            for _ in range(60):
                wanted = SessionFilter(
                    tuple(chosen.sample(CHARGERS, chosen.choice([0, 0, 1, 3]))),
                    tuple(chosen.sample(VEHICLES, chosen.choice([0, 0, 1, 2]))),
                    chosen.choice([None, None, *times]),
                    chosen.choice([None, None, *times]),
                    None if changes else chosen.choice([None, True, False]),
                    0 if changes else None,
                )
                if not changes:
                    for name in WINDOWS:
                        at_ms = chosen.choice([*[None] * 12, *times, *[one + 1 for one in times]])
                        wanted = wanted._replace(**{name: at_ms})
                descending = not changes and chosen.random() < 0.5
                expected = [
                    one.id
                    for one in listed
                    if (not wanted.charger_ids or one.record.charger_id in wanted.charger_ids)
                    and (not wanted.vehicle_ids or one.record.vehicle_id in wanted.vehicle_ids)
                    and (wanted.from_ms is None or one.record.start_ms >= wanted.from_ms)
                    and (wanted.to_ms is None or one.record.start_ms < wanted.to_ms)
                    and wanted.active in (None, one.record.end_ms is None)
                    and lasted(one.record, wanted)
                ]
                limit = chosen.choice([1, 4, 50])
                found = await all_sessions(store, partner, wanted, limit, descending=descending)
                assert [one.id for one in found] == (expected[::-1] if descending else expected)

    def lasted(record: SessionRecord, wanted: SessionFilter) -> bool:
        """Whether it ended, and was plugged in, in the windows."""
        start_ms, end_ms = record.start_ms, record.end_ms
        ended = (wanted.ended_from_ms, wanted.ended_to_ms) == (None, None) or (
            end_ms is not None
            and (wanted.ended_from_ms is None or end_ms >= wanted.ended_from_ms)
            and (wanted.ended_to_ms is None or end_ms < wanted.ended_to_ms)
        )
        since, until = wanted.overlapping_from_ms, wanted.overlapping_to_ms
        there = since is None or end_ms is None or end_ms > since or start_ms >= since
        return ended and there and (until is None or start_ms < until)

    async def all_sessions(
        store: Store,
        partner: int,
        wanted: SessionFilter,
        limit: int,
        *,
        descending: bool = False,
    ) -> list[Any]:
        found: list[Any] = []
        after: tuple[int, str] | None = None
        while True:
            await store.projector.catch_up(partner)
            page = await store.sessions.page(partner, wanted, after, limit, descending=descending)
            found += page.sessions
            if page.stop is None:
                return found
            after = page.stop

    in_store(scenario)


def test_large_sessions_make_pages_short(
    in_store: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MAX_BYTES", 300)

    async def scenario(store: Store, partner: int) -> None:
        await add_site(store, partner)
        await store.entities.put(partner, charger("C2"))
        at = enumerate(("C1", "C2", "C1", "C2"))
        await report(store, partner, [event(10 * n, charger_id=one) for n, one in at])
        page = await sessions_page(store, partner, SessionFilter(), None, 100)
        assert 0 < len(page.sessions) < 4
        assert page.stop == (page.sessions[-1].record.start_ms, page.sessions[-1].id)

    in_store(scenario)
