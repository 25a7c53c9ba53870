"""Capacity read in pages, compared with folding the events up to each moment one by one."""

import asyncio
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tether.domain import session_record
from tether.domain.capacity import Box, Figures, Totals, pair_of
from tether.domain.models import Charger, Event, EventType, Vehicle, area_of
from tether.domain.session_builder import SessionBuilder
from tether.domain.session_record import OrderedEvent, SessionRecord, ordered_event
from tether.domain.timeline import STALE, condition_of
from tether.domain.timestamps import format_instant
from tether.projections import capacity
from tether.projections.capacity import CapacityQuery, Entry, EntryPosition
from tether.server.databases import database_of, sqlite_path
from tether.server.store import Store
from tether.storage import plugged_in, session_records
from tether.storage.dialect import SQLITE
from tether.storage.sqlite.file import connect, native

START_MS = 1_767_571_200_000
MINUTE_MS = 60_000
D = Decimal

CHARGERS = {
    f"C{number}": Charger(
        id=f"C{number}",
        charge_powers=(D(11), D(22)) if number % 2 else (),
        charge_power_min=None if number % 2 else D("1.4"),
        charge_power_max=None if number % 2 else D(16),
        discharge_powers=(D(10),) if number % 3 else (),
        latitude=D(number),
        longitude=D(-number),
    )
    for number in range(7)
}
VEHICLES = {
    f"V{number}": Vehicle(
        id=f"V{number}",
        charge_capacity=D(40 + number),
        charge_powers=(D("7.4"), D(11)) if number % 4 else (D(50),),
        discharge_powers=(D(10),) if number % 2 else (),
    )
    for number in range(12)
}


def dirty_stream(chance: random.Random, count: int) -> Iterator[Event]:
    """Events in order of time; many of them contradict each other.

    None tells afterwards that a charge had been running: that is known later than it was so.
    """
    last: dict[str, tuple[EventType, str]] = {}
    at_ms = START_MS
    for _ in range(count):
        at_ms += chance.choice([0, 1, 900, MINUTE_MS, 7 * MINUTE_MS])
        vehicle = chance.choice(list(VEHICLES))
        kind, charger = last.get(vehicle, (EventType.VEHICLE_DISCONNECTED, "C0"))
        if chance.random() < 0.2 or kind is EventType.VEHICLE_DISCONNECTED:
            charger = chance.choice(list(CHARGERS))
        kinds = list(EventType)
        if last.get(vehicle) == (EventType.VEHICLE_CHARGE_STARTED, charger):
            kinds += [EventType.VEHICLE_CHARGE_STOPPED, EventType.VEHICLE_CHARGE_UPDATED]
        else:
            kinds.remove(EventType.VEHICLE_CHARGE_STOPPED)
        kind = chance.choice(kinds)
        last[vehicle] = (kind, charger)
        powered = kind in (EventType.VEHICLE_CHARGE_STARTED, EventType.VEHICLE_CHARGE_UPDATED)
        told = kind is EventType.VEHICLE_CHARGE_UPDATED or chance.random() < 0.4
        yield Event(
            type=kind,
            charger_id=charger,
            vehicle_id=vehicle,
            state_of_charge=D(chance.choice([0, 20, 55, 100])) if told else None,
            charge_power=chance.choice([D(-5), D(0), D("7.4"), D(13)]) if powered else None,
            timestamp=format_instant(at_ms),
        )


def ordered_events_of(events: list[Event]) -> dict[str, list[OrderedEvent]]:
    found: dict[str, list[OrderedEvent]] = defaultdict(list)
    for seq, event in enumerate(events):
        found[event.vehicle_id].append(ordered_event(seq, event.at_ms, event))
    return {vehicle: sorted(ordered) for vehicle, ordered in found.items()}


def folded(
    ordered: dict[str, list[OrderedEvent]], at_ms: int, chargers: set[str], max_age_ms: int = 2**62
) -> Figures:
    """The sums at the moment, with what was known about each vehicle then."""
    there: dict[str, list[SessionRecord]] = defaultdict(list)
    for some in ordered.values():
        stay = SessionBuilder().take(fact for fact in some if fact.position.at_ms <= at_ms).session
        if stay is not None and stay.end_ms is None and stay.charger_id in chargers:
            there[stay.charger_id].append(stay)
    totals = Totals(range(1))
    for charger, stays in there.items():
        list(
            totals.adding(
                [
                    (
                        pair_of(CHARGERS[charger], VEHICLES[stay.vehicle_id]),
                        [
                            (
                                0,
                                condition_of(stay)
                                if at_ms - stay.last.at_ms <= max_age_ms
                                else STALE,
                            )
                        ],
                    )
                    for stay in stays
                ]
            )
        )
    sums = totals.summing()
    try:
        while True:
            next(sums)
    except StopIteration as end:
        found: list[Figures] = end.value
    return found[0]


def distinct(events: list[Event]) -> list[Event]:
    seen = {(e.charger_id, e.vehicle_id, e.type, e.timestamp): e for e in reversed(events)}
    return list(reversed(seen.values()))


async def furnish(store: Store, partner: int) -> None:
    for charger in CHARGERS.values():
        await store.entities.put(partner, charger)
    for vehicle in VEHICLES.values():
        await store.entities.put(partner, vehicle)


@pytest.fixture(params=["pages of the usual size", "tiny pages"])
def page_sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "tiny pages":
        monkeypatch.setattr(plugged_in, "KEYS", 2)
        monkeypatch.setattr(plugged_in, "FIRST_STARTED", 3)
        monkeypatch.setattr(plugged_in, "STARTED_AT_ONCE", 4)
        # So some sessions need their events, and others only the data beside them.
        monkeypatch.setattr(session_record, "MAX_READINGS", 4)
        monkeypatch.setattr(session_records, "LONGEST_TIMELINE", 60)
        monkeypatch.setattr(plugged_in, "SESSIONS", 2)
        monkeypatch.setattr(plugged_in, "EVENTS_OF_EACH", 2)
        monkeypatch.setattr(plugged_in, "EVENTS_AT_ONCE", 4)
        monkeypatch.setattr(capacity, "PAGE", 3)
        monkeypatch.setattr(capacity, "CHARGERS", 2)


@pytest.mark.usefixtures("page_sizes")
def test_every_past_moment_is_what_was_known_then(in_store: Callable[..., Any]) -> None:
    events = distinct(list(dirty_stream(random.Random(5), 400)))
    ordered = ordered_events_of(events)
    last_ms = events[-1].at_ms

    async def scenario(store: Store, partner: int) -> None:
        await furnish(store, partner)
        shuffled = random.Random(1).sample(events, len(events))
        await asyncio.gather(*(store.batcher.add(partner, event) for event in shuffled))
        step_ms = (last_ms - START_MS) // 40
        everything = range(START_MS - step_ms, last_ms + 2 * step_ms, step_ms)
        expected = [folded(ordered, at_ms, set(CHARGERS)) for at_ms in everything]
        assert await store.capacities.totals(partner, CapacityQuery(moments=everything)) == expected
        assert await store.capacities.totals(partner, CapacityQuery()) == expected[-1:]
        for minutes in (1, 10, 60):
            max_age_ms = minutes * MINUTE_MS
            heard = [folded(ordered, at, set(CHARGERS), max_age_ms) for at in everything]
            totals = store.capacities.totals
            past = CapacityQuery(moments=everything, max_age_ms=max_age_ms)
            now = CapacityQuery(max_age_ms=max_age_ms, now_ms=everything[-1])
            assert await totals(partner, past) == heard
            assert await totals(partner, now) == heard[-1:]
            assert any(figures.stale for figures in heard)
        assert len({tuple(figures) for figures in expected}) > 30
        instants = [event.at_ms + more for event in events[::40] for more in (-1, 0)]
        for at_ms in instants:
            moment = range(at_ms, at_ms + 1)
            one = folded(ordered, at_ms, set(CHARGERS))
            assert await store.capacities.totals(partner, CapacityQuery(moments=moment)) == [one]
            one = folded(ordered, at_ms, set(CHARGERS), MINUTE_MS)
            past = CapacityQuery(moments=moment, max_age_ms=MINUTE_MS)
            assert await totals(partner, past) == [one]
        for moment_ms in (everything[20], None):
            await check_by_charger(store, partner, ordered, moment_ms)
        await check_series_by(store, partner, ordered, everything)
        dense = range(everything[10], everything[20], 1 + (everything[20] - everything[10]) // 900)
        found = await store.capacities.totals(partner, CapacityQuery("C2", "C5", moments=dense))
        some = {"C2", "C3", "C4", "C5"}
        assert found[::150] == [folded(ordered, at_ms, some) for at_ms in dense[::150]]

    in_store(scenario)


async def check_by_charger(
    store: Store, partner: int, ordered: dict[str, list[OrderedEvent]], at_ms: int | None
) -> None:
    """By charger, in pages, and for one charger and for an area."""
    moment = None if at_ms is None else range(at_ms, at_ms + 1)
    then_ms = 2**60 if at_ms is None else at_ms
    expected = [
        (EntryPosition(charger, 0), figures)
        for charger in sorted(CHARGERS)
        if (figures := folded(ordered, then_ms, {charger})).chargers
    ]
    assert len(expected) > 3
    found: list[Entry] = []
    asked, after = CapacityQuery(moments=moment), None
    while page := await store.capacities.by_charger(partner, asked, after, 2):
        found += page
        after = page[-1].position
    assert found == expected
    for (charger, _), figures in expected:
        alone = CapacityQuery(charger, charger, moments=moment)
        assert await store.capacities.totals(partner, alone) == [figures]
    in_box = CapacityQuery(box=Box(D(-4), D(2), D(0), D(90)), moments=moment)
    inside = folded(ordered, then_ms, {"C2", "C3", "C4"})
    assert await store.capacities.totals(partner, in_box) == [inside]


async def check_series_by(
    store: Store, partner: int, ordered: dict[str, list[OrderedEvent]], moments: range
) -> None:
    """By charger and by area over time: all with a vehicle plugged in, in pages."""
    asked = CapacityQuery(moments=moments)
    expected = [
        (EntryPosition(charger, place), figures)
        for charger in sorted(CHARGERS)
        for place, at_ms in enumerate(moments)
        if (figures := folded(ordered, at_ms, {charger})).chargers
    ]
    for limit in (1 if len(expected) < 50 else 7, 1000):
        found: list[Entry] = []
        after = None
        while page := await store.capacities.by_charger(partner, asked, after, limit):
            assert len(page) <= limit
            found += page
            after = page[-1].position
        assert found == expected
    areas: defaultdict[str, set[str]] = defaultdict(set)
    for name, charger in CHARGERS.items():
        areas[area_of(charger) or ""].add(name)
    assert len(areas) > 2
    of_areas = [
        (EntryPosition(area, place), figures)
        for area in sorted(areas)
        for place, at_ms in enumerate(moments)
        if (figures := folded(ordered, at_ms, areas[area])).chargers
    ]
    assert await store.capacities.by_area(partner, asked) == of_areas


def test_sqlite_finds_everything_in_an_index_that_says_more_than_the_partner(
    tmp_path: Path,
) -> None:
    database = str(tmp_path / "tether.db")
    database_of(database).migrate()
    connection = connect(sqlite_path(database))
    searches = []
    for name, text in vars(plugged_in).items():
        if name.isupper() and not name.startswith("_") and isinstance(text, str):
            sql = text.format(event_json=SQLITE.event_json)
            values = (1,) * max(map(int, re.findall(r"\$(\d)", sql)))
            plan = connection.execute(f"EXPLAIN QUERY PLAN {native(sql)}", values)
            steps = [str(row[3]) for row in plan]
            assert not [step for step in steps if step.startswith("SCAN") and "json" not in step
                        and step not in ("SCAN w", "SCAN x")], (name, steps)  # fmt: skip
            searches += [step for step in steps if step.startswith("SEARCH")]
    connection.close()
    assert len(searches) > 12
    assert not [step for step in searches if "(partner=? AND" not in step]
