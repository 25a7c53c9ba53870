"""What the store promises, on both engines with real databases."""

import asyncio
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from tests.store.conftest import Scenario, events_page
from tether.domain.errors import Conflict, Forbidden, NotFound, PreconditionFailed, SetupError
from tether.domain.filters import EventFilter
from tether.domain.key_requests import Limits, RequestForm
from tether.domain.keys import Key, Rate, digest_of, new_key, prefix_of
from tether.domain.models import Charger, Event, EventType, Vehicle, is_entity_id
from tether.domain.partners import Partner, RetentionPeriods
from tether.domain.timestamps import parse_instant
from tether.ingest import event_batcher
from tether.server import admin, key_requests
from tether.server.store import Callbacks, Store, open_store
from tether.storage.audit import AuditFilter
from tether.storage.tables import TABLES

InStore = Callable[[Scenario], Any]

EVERYTHING = EventFilter()
CONNECTED, STARTED = EventType.VEHICLE_CONNECTED, EventType.VEHICLE_CHARGE_STARTED


def charger(charger_id: str = "C1", power: str = "11") -> Charger:
    return Charger(id=charger_id, charge_powers=(Decimal(power),))


def vehicle(vehicle_id: str = "V1", capacity: str = "74.8") -> Vehicle:
    return Vehicle(
        id=vehicle_id, charge_capacity=Decimal(capacity), charge_powers=(Decimal("11.0"),)
    )


def event(second: int | None, type: EventType = CONNECTED, **members: Any) -> Event:
    instant = None if second is None else f"2026-05-01T10:{second // 60:02}:{second % 60:02}.000Z"
    return Event(
        type=type, timestamp=instant, **{"charger_id": "C1", "vehicle_id": "V1", **members}
    )


async def add_site(store: Store, partner: int) -> None:
    await store.entities.put(partner, charger())
    await store.entities.put(partner, vehicle())


async def report(store: Store, partner: int, events: list[Event]) -> list[str | Conflict]:
    """Stores events at the same time; returns their ids, or why they are refused."""
    answers = await asyncio.gather(
        *(store.batcher.add(partner, one) for one in events), return_exceptions=True
    )
    results: list[str | Conflict] = []
    for answer in answers:
        assert isinstance(answer, str | Conflict), answer
        results.append(answer)
    return results


async def listed(
    store: Store, partner: int, wanted: EventFilter = EVERYTHING, **options: Any
) -> list[str]:
    """The ids of the events in a page."""
    options = {"after": None, "limit": 1000, **options}
    found, _ = await events_page(store, partner, wanted, **options)
    return [msgspec.json.decode(body)["id"] for _, body in found]


# Chargers and vehicles ----------------------------------------------------------------------------


def test_an_entity_is_created_replaced_and_counted(in_store: InStore) -> None:
    async def scenario(store: Store, partner: int) -> None:
        async def got() -> tuple[int, bytes]:
            return await store.entities.get(Charger, partner, "C1")

        assert await store.entities.put(partner, charger(power="11.0")) == 1
        assert await got() == (1, b'{"id":"C1","chargePowers":[11.0]}')
        assert await store.entities.put(partner, charger(power="22")) == 2
        assert await got() == (2, b'{"id":"C1","chargePowers":[22]}')
        with pytest.raises(NotFound):
            await store.entities.get(Vehicle, partner, "C1")

    in_store(scenario)


def test_create_refuses_what_exists_and_replace_what_has_changed(in_store: InStore) -> None:
    async def scenario(store: Store, partner: int) -> None:
        assert await store.entities.create(partner, vehicle()) == 1
        with pytest.raises(PreconditionFailed):
            await store.entities.create(partner, vehicle(capacity="1"))
        assert await store.entities.replace(partner, vehicle(capacity="80"), 1) == 2
        for version in (1, 3):
            with pytest.raises(PreconditionFailed):
                await store.entities.replace(partner, vehicle(capacity="1"), version)
        with pytest.raises(PreconditionFailed):
            await store.entities.replace(partner, vehicle("V2"), 1)
        assert b'"chargeCapacity":80,' in (await store.entities.get(Vehicle, partner, "V1")).body

    in_store(scenario)


def test_of_many_who_create_or_replace_at_once_one_wins(in_store: InStore) -> None:
    async def scenario(store: Store, partner: int) -> None:
        created = [store.entities.create(partner, charger()) for _ in range(20)]
        outcomes = await asyncio.gather(*created, return_exceptions=True)
        assert sum(isinstance(one, PreconditionFailed) for one in outcomes) == 19
        replaced = [store.entities.replace(partner, charger(power="22"), 1) for _ in range(20)]
        outcomes = await asyncio.gather(*replaced, return_exceptions=True)
        assert sum(isinstance(one, PreconditionFailed) for one in outcomes) == 19
        assert sorted(
            await asyncio.gather(*(store.entities.put(partner, charger()) for _ in range(20)))
        ) == list(range(3, 23))

    in_store(scenario)


def test_reads_at_once_share_no_result(in_store: InStore) -> None:
    async def scenario(store: Store, partner: int) -> None:
        await store.entities.put(partner, charger("C1"))
        await store.entities.put(partner, charger("C2"))
        names = ["C1", "C2", "C3", "C1", "C2", "C3"] * 20
        reads = [asyncio.create_task(store.entities.get(Charger, partner, name)) for name in names]
        await asyncio.sleep(0)  # all have asked
        for read in reads[::4]:
            read.cancel()
        found = await asyncio.gather(*reads, return_exceptions=True)
        for place, (name, one) in enumerate(zip(names, found, strict=True)):
            if place % 4:
                assert isinstance(one, NotFound) if name == "C3" else name in str(one)

    in_store(scenario)


def test_ids_are_ordered_byte_by_byte_on_both_engines(in_store: InStore) -> None:
    ids = ["a", "A", "B", "b", "Z", "_", "~", "*", "+", "@", ":", "-", ".a", "0", "10", "9", "aB",
           "ab", "a-b", "a_b", "a.b", "AA", "zz", "Aa"]  # fmt: skip
    assert all(is_entity_id(one) for one in ids)

    async def scenario(store: Store, partner: int) -> None:
        await asyncio.gather(*(store.entities.put(partner, charger(one)) for one in ids))
        after, found = "", []
        while page := await store.entities.page(Charger, partner, after, 5):
            found += [entity_id for entity_id, _ in page]
            after = found[-1]
        assert found == sorted(ids, key=str.encode)

    in_store(scenario)


# Events -------------------------------------------------------------------------------------------


def test_an_event_is_found_by_its_id_to_the_byte(in_store: InStore) -> None:
    async def scenario(store: Store, partner: int) -> None:
        await add_site(store, partner)
        sent = event(1, STARTED, state_of_charge=Decimal("58.30"), charge_power=Decimal("-11.0"))
        event_id = await store.batcher.add(partner, sent)
        assert (
            await store.events.get(partner, event_id)
            == (
                f'{{"id":"{event_id}","type":"VEHICLE_CHARGE_STARTED","chargerId":"C1",'
                '"vehicleId":"V1","stateOfCharge":58.30,"chargePower":-11.0,'
                '"timestamp":"2026-05-01T10:00:01.000Z"}'
            ).encode()
        )
        with pytest.raises(NotFound):
            await store.events.get(partner, str(uuid4()))

    in_store(scenario)


def test_the_same_event_has_the_same_id_whenever_it_comes_again(in_store: InStore) -> None:
    async def scenario(store: Store, partner: int) -> None:
        await add_site(store, partner)
        (first,) = await report(store, partner, [event(1)])
        assert await report(store, partner, [event(1)]) == [first]
        at_once = await report(store, partner, [event(2) for _ in range(20)])
        assert len(set(at_once)) == 1
        assert await listed(store, partner) == [first, at_once[0]]

    in_store(scenario)


def test_an_event_that_contradicts_a_recorded_one_is_refused(in_store: InStore) -> None:
    async def scenario(store: Store, partner: int) -> None:
        await add_site(store, partner)
        (first,) = await report(store, partner, [event(1, charge_power=Decimal("11"))])
        for power in (Decimal("11.5"), None):
            (result,) = await report(store, partner, [event(1, charge_power=power)])
            assert isinstance(result, Conflict)
            assert "other values" in result.message
        # 11 and 11.0 are the same number.
        assert await report(store, partner, [event(1, charge_power=Decimal("11.0"))]) == [first]

    in_store(scenario)


def test_what_has_no_timestamp_is_always_new(in_store: InStore) -> None:
    async def scenario(store: Store, partner: int) -> None:
        await add_site(store, partner)
        results = await report(store, partner, [event(None) for _ in range(50)])
        assert len(set(results)) == 50
        assert await listed(store, partner) == results
        # Sent again with the time that the server gave it, it is the recorded one.
        stamped = msgspec.json.decode(await store.events.get(partner, str(results[-1])))[
            "timestamp"
        ]
        bodies = [msgspec.json.decode(await store.events.get(partner, str(one))) for one in results]
        twins = [body["id"] for body in bodies if body["timestamp"] == stamped]
        again = msgspec.structs.replace(event(None), timestamp=stamped)
        assert (await report(store, partner, [again]))[0] == twins[0]

    in_store(scenario)


def test_unknown_chargers_and_vehicles_are_named(in_store: InStore) -> None:
    async def scenario(store: Store, partner: int) -> None:
        await add_site(store, partner)
        results = await report(
            store, partner,
            [event(1, charger_id="C2"), event(2, vehicle_id="V2"), event(None, vehicle_id="V2")],
        )  # fmt: skip
        assert [str(result).split(".")[0] for result in results] == [
            "Parameter {chargerId} is invalid",
            "Parameter {vehicleId} is invalid",
            "Parameter {vehicleId} is invalid",
        ]
        assert await listed(store, partner) == []

    in_store(scenario)


def test_each_event_of_a_mixed_batch_has_its_own_result(in_store: InStore) -> None:
    async def scenario(store: Store, partner: int) -> None:
        await add_site(store, partner)
        (known,) = await report(store, partner, [event(0)])
        results = await report(
            store, partner,
            [
                event(1), event(0), event(2, vehicle_id="V2"), event(None), event(1),
                event(0, charged_time=Decimal(5)), event(3, charger_id="C2"), event(4),
            ],
        )  # fmt: skip
        new, again, no_vehicle, stamped, twin, other, no_charger, last = results
        assert again == known
        assert twin == new
        assert [type(one) for one in (no_vehicle, other, no_charger)] == [Conflict] * 3
        assert await listed(store, partner) == [known, new, stamped, last]

    in_store(scenario)


@pytest.mark.parametrize("others", [False, True], ids=["alone", "beside others"])
def test_many_events_are_written_in_portions_with_each_its_result(
    in_store: InStore, monkeypatch: pytest.MonkeyPatch, others: bool
) -> None:
    monkeypatch.setattr(event_batcher, "MAX_EVENTS", 4)
    monkeypatch.setattr(event_batcher, "MAX_EVENTS_SHARED", 3)

    async def scenario(store: Store, partner: int) -> None:
        await add_site(store, partner)
        if others:
            other = (await new_partner(store)).id
            await add_site(store, other)
            await report(store, other, [event(0)])
        events = [
            event(1), event(2), event(3, charger_id="C9"), event(1), event(None), event(None),
            event(4), event(2), event(5, vehicle_id="V9"), event(6), event(1),
        ]  # fmt: skip
        rows = [store.batcher.row_of(one) for one in events]
        results = await store.batcher.add_all(partner, rows)
        ids = [one for one in results if isinstance(one, str)]
        assert [isinstance(one, str) for one in results] == [n not in (2, 8) for n in range(11)]
        assert results[0] == results[3] == results[10]
        assert results[1] == results[7]
        assert sorted(set(ids)) == sorted(await listed(store, partner))
        assert await store.batcher.add_all(partner, []) == []

    in_store(scenario)


def test_a_slow_database_gets_fewer_events_at_a_time_until_it_is_quick_again(
    migrated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_batcher, "MAX_EVENTS", 8)
    monkeypatch.setattr(event_batcher, "MAX_EVENTS_SHARED", 2)
    monkeypatch.setattr(event_batcher, "SHARED_S", 0.0)
    sizes: list[int] = []

    async def scenario() -> None:
        callbacks = Callbacks(lambda size, _: sizes.append(size))
        async with open_store(migrated, callbacks=callbacks) as store:
            partner = (await new_partner(store)).id
            await add_site(store, partner)
            for slow_s, first in ((0.0, 0), (1e9, 100)):
                monkeypatch.setattr(event_batcher, "SLOW_S", slow_s)
                rows = [store.batcher.row_of(event(first + n)) for n in range(20)]
                results = await store.batcher.add_all(partner, rows)
                assert all(isinstance(one, str) for one in results)
                await store.batcher.drain()
                sizes.append(-1)

    asyncio.run(scenario())
    assert [size for size in sizes if size] == [8, 4, 2, 2, 2, 2, -1, 2, 4, 8, 6, -1]


def test_the_list_is_in_the_order_of_the_commits_and_resumes_anywhere(in_store: InStore) -> None:
    async def scenario(store: Store, partner: int) -> None:
        await add_site(store, partner)
        # The times run backwards: they must not matter.
        ids = [(await report(store, partner, [event(100 - n)]))[0] for n in range(20)]
        page, _ = await events_page(store, partner, EVERYTHING, after=None, limit=1000)
        assert [msgspec.json.decode(body)["id"] for _, body in page] == ids
        places = [seq for seq, _ in page]
        assert places == sorted(set(places))
        for place, after in enumerate(places):
            assert await listed(store, partner, after=after, limit=3) == ids[place + 1 : place + 4]
            assert (
                await listed(store, partner, after=after, limit=3, descending=True)
                == ids[:place][::-1][:3]
            )
        assert await listed(store, partner, descending=True) == ids[::-1]

    in_store(scenario)


def test_every_combination_of_filters_shows_what_it_says(in_store: InStore) -> None:
    async def scenario(store: Store, partner: int) -> None:
        for number in (1, 2):
            await store.entities.put(partner, charger(f"C{number}"))
            await store.entities.put(partner, vehicle(f"V{number}"))
        sent = [
            event(
                (number * 7) % 40, (CONNECTED, STARTED)[number // 2 % 2],
                charger_id=f"C{1 + number % 2}", vehicle_id=f"V{1 + number // 3 % 2}",
            )
            for number in range(40)
        ]  # fmt: skip
        ids = await report(store, partner, sent)
        bounds = [parse_instant(f"2026-05-01T10:00:{second}.000Z") for second in (10, 25)]
        options: list[tuple[Any, ...]] = [
            (None, CONNECTED), (None, "C2"), (None, "V1"), (None, bounds[0]), (None, bounds[1]),
        ]  # fmt: skip
        for combination in itertools.product(*options):
            wanted = EventFilter(*combination)
            expected = [
                one for one, it in zip(ids, sent, strict=True)
                if wanted.type in (None, it.type)
                and wanted.charger_id in (None, it.charger_id)
                and wanted.vehicle_id in (None, it.vehicle_id)
                and (wanted.from_ms is None or it.at_ms >= wanted.from_ms)
                and (wanted.to_ms is None or it.at_ms < wanted.to_ms)
            ]  # fmt: skip
            assert await listed(store, partner, wanted) == expected
            assert await listed(store, partner, wanted, descending=True) == expected[::-1]
            found, _ = await events_page(store, partner, wanted, after=None, limit=4)
            if found:
                rest = await listed(store, partner, wanted, after=found[-1][0])
                assert rest == expected[4:]

    in_store(scenario)


def test_a_partner_sees_and_refers_to_its_own_only(in_store: InStore) -> None:
    async def scenario(store: Store, partner: int) -> None:
        await add_site(store, partner)
        (mine,) = await report(store, partner, [event(1)])
        other = (await store.partners.add(Partner(partner + 1, f"partner {partner + 1}", 0))).id
        with pytest.raises(NotFound):
            await store.entities.get(Charger, other, "C1")
        with pytest.raises(NotFound):
            await store.events.get(other, str(mine))
        assert await store.entities.page(Charger, other, "", 10) == []
        assert await listed(store, other) == []
        (result,) = await report(store, other, [event(1)])
        assert isinstance(result, Conflict)
        await add_site(store, other)
        (theirs,) = await report(store, other, [event(1)])
        assert theirs != mine
        assert await listed(store, other) == [theirs]

    in_store(scenario)


def test_nothing_is_put_for_a_partner_that_is_gone(in_store: InStore) -> None:
    async def scenario(store: Store, partner: int) -> None:
        with pytest.raises(Forbidden):
            await store.entities.put(partner + 1, Charger(id="C1", charge_powers=(Decimal(11),)))
        assert await store.entities.page(Charger, partner + 1, "", 10) == []

    in_store(scenario)


# Partners and keys --------------------------------------------------------------------------------


def key_of(partner: Partner, created_ms: int = 5, **members: Any) -> Key:
    secret = new_key()
    return replace(
        Key(
            digest=digest_of(secret), prefix=prefix_of(secret), partner=partner.id,
            partner_name=partner.name, name="", rate=Rate(90, 60), burst=20, read_only=False,
            created_ms=created_ms,
        ),
        **members,
    )  # fmt: skip


async def new_partner(store: Store, name: str = "") -> Partner:
    name = name or f"partner {uuid4().hex}"
    return await store.partners.add(Partner(uuid4().int >> 81, name, 7))


def test_a_key_is_found_as_it_was_stored(in_store: InStore) -> None:
    async def scenario(store: Store, _: int) -> None:
        partner = await new_partner(store)
        plain = key_of(partner)
        special = key_of(partner, 6, name="Ünïcode ✓", read_only=True, expires_ms=10**13)
        for one in (special, plain):
            await store.keys.add(one)
            assert await store.keys.find(one.digest) == one
        assert [one for one in await store.keys.all() if one.partner == partner.id] == [
            plain,
            special,
        ]
        assert await store.keys.find("0" * 64) is None

    in_store(scenario)


def test_a_key_is_revoked_once_and_expires_no_later_than_before(in_store: InStore) -> None:
    async def scenario(store: Store, _: int) -> None:
        key = key_of(await new_partner(store))
        await store.keys.add(key)
        await store.keys.expire(key, 500)
        await store.keys.expire(key, 900)
        for at_ms in (300, 400):
            await store.keys.revoke(key, at_ms)
        found = await store.keys.find(key.digest)
        assert found == replace(key, expires_ms=500, revoked_ms=300)

    in_store(scenario)


def test_partners_are_found_by_name_and_renamed_unless_it_is_taken(in_store: InStore) -> None:
    async def scenario(store: Store, _: int) -> None:
        first, second = await new_partner(store), await new_partner(store)
        assert await new_partner(store, first.name) == first, "a name has one partner"
        with pytest.raises(SetupError, match="already"):
            await store.partners.rename(first, second.name)
        await store.partners.rename(first, first.name + " b")
        assert await store.partners.find(first.name) is None
        assert await store.partners.find(first.name + " b") == first._replace(
            name=first.name + " b"
        )
        names = [partner.name for partner in await store.partners.all()]
        assert names == sorted(names)

    in_store(scenario)


def test_changes_at_the_same_time_all_count(in_store: InStore) -> None:
    async def scenario(store: Store, _: int) -> None:
        partner = await new_partner(store)
        key = key_of(partner)
        await store.keys.add(key)
        await asyncio.gather(
            admin.set_key(store, 1, key, name="new"),
            admin.set_key(store, 1, key, rate=Rate(5, 1), burst=9),
            store.keys.expire(key, 500),
            admin.set_retention(store, 1, partner, {"events_ms": 0}),
            admin.set_retention(store, 1, partner, {"requests_ms": 5, "attempts_ms": None}),
        )
        changed = replace(key, name="new", rate=Rate(5, 1), burst=9, expires_ms=500)
        assert await store.keys.find(key.digest) == changed
        assert await store.retention.get(partner.id) == RetentionPeriods(0, 5)

    in_store(scenario)


def test_of_two_who_rename_a_partner_at_the_same_time_one_wins(in_store: InStore) -> None:
    async def scenario(store: Store, _: int) -> None:
        partner = await new_partner(store)
        names = [f"{partner.name} {letter}" for letter in "ab"]
        done = await asyncio.gather(
            *(admin.rename_partner(store, 1, partner.name, name) for name in names),
            return_exceptions=True,
        )
        (winner,) = [name for name, error in zip(names, done, strict=True) if error is None]
        assert await store.partners.find(winner) == partner._replace(name=winner)
        audited = await store.audit.page(AuditFilter(partner=partner.id), None, 10)
        assert [json.loads(entry.after) for entry in audited] == [{"name": winner}]

    in_store(scenario)


def test_of_two_requests_approved_for_the_same_new_partner_one_gets_a_key(
    in_store: InStore,
) -> None:
    async def scenario(store: Store, _: int) -> None:
        form, limits = RequestForm("", "", "", ""), Limits(Rate(1, 1), 1, None, is_test=True)
        tokens = [await key_requests.add(store, 1, form, uuid4().hex) for _ in range(2)]
        asked = [await key_requests.find(store, 1, digest_of(token)) for token in tokens]
        name = f"partner {uuid4().hex}"
        done = await asyncio.gather(
            *(key_requests.approve(store, 1, one, name, limits) for one in asked),
            return_exceptions=True,
        )
        (partner,) = [made for made in done if isinstance(made, Partner)]
        assert partner == await store.partners.find(name)
        (refusal,) = [made for made in done if isinstance(made, SetupError)]
        assert "already" in refusal.message

    in_store(scenario)


def test_erasing_a_partner_leaves_nothing_of_it_and_all_of_others(in_store: InStore) -> None:
    async def scenario(store: Store, other: int) -> None:
        partner = await new_partner(store)
        await store.keys.add(key_of(partner))
        for one in (partner.id, other):
            await add_site(store, one)
            await report(store, one, [event(second) for second in range(30)])
        assert await store.partners.holdings(partner) == (1, 1, 30, 1)
        told: list[int] = []
        await store.partners.erase(partner, told.append)
        assert sum(told) == 30
        assert await store.partners.holdings(partner) == (0, 0, 0, 0)
        assert await store.partners.find(partner.name) is None
        engine = store.engine
        for name, table in TABLES.items():
            if table.goes_with_partner and table.engine in ("", engine.dialect.name):
                found = await engine.read(f"SELECT 1 FROM {name} WHERE partner = $1", partner.id)
                assert found == [], name
        assert len(await listed(store, other)) == 30
        assert await store.partners.holdings(partner._replace(id=other)) == (1, 1, 30, 0)

    in_store(scenario)
