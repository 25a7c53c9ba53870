"""Events are withdrawn through the SDK, and followers end with the events of the server."""

import asyncio
import random
from itertools import islice

import pytest

from tests.client.devices import create_fleet, update, updates
from tests.conftest import Server
from tether.client import (
    AsyncClient,
    Charger,
    Client,
    Event,
    NotFound,
    Vehicle,
    VehicleState,
    Withdrawal,
)
from tether.client import following as following_module

NEVER = "0188ac4b-9dfa-7c3e-a51b-2f8e6d0b4c97"


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of seven, so that there are many pages."""
    monkeypatch.setattr(following_module, "PAGE_SIZE", 7)


def test_one_and_many_events_are_withdrawn(sdk: Client) -> None:
    ids = [sdk.events.post(update(number)) for number in range(5)]
    sdk.events.withdraw(ids[0])
    sdk.events.withdraw(ids[0])
    with pytest.raises(NotFound):
        sdk.events.get(ids[0])
    with pytest.raises(NotFound):
        sdk.events.withdraw(NEVER)
    results = sdk.events.withdraw_many(iter([ids[1], NEVER, "no id", ids[3]]))
    assert [(one.id, one.ok, one.status) for one in results] == [
        (ids[1], True, 204), (NEVER, False, 404), ("no id", False, 404), (ids[3], True, 204),
    ]  # fmt: skip
    assert results[1].message == "Not Found"
    assert [event.id for event in sdk.events.list()] == [ids[2], ids[4]]
    listed = list(sdk.events.withdrawn(page_size=1))
    assert [one.id for one in listed] == [ids[0], ids[1], ids[3]]
    assert list(sdk.events.withdrawn(order="desc")) == listed[::-1]
    assert list(sdk.events.withdrawn(vehicle_id="V2")) == []
    assert (listed[0].vehicle_id, listed[0].charger_id) == ("V1", "C1")
    assert list(islice(sdk.events.follow_withdrawn(poll_s=0.01), 3)) == listed


def test_the_stream_has_withdrawals(sdk: Client) -> None:
    first = sdk.events.post(update(1))
    with sdk.stream("start") as stream:
        event, state = islice(stream, 2)
        sdk.events.withdraw(first)
        withdrawal, after = islice(stream, 2)
        place = stream.cursor
    assert isinstance(event, Event)
    assert isinstance(state, VehicleState)
    assert isinstance(withdrawal, Withdrawal)
    assert isinstance(after, VehicleState)
    assert (withdrawal.id, state.plugged_in, after.plugged_in) == (event.id, True, False)
    second = sdk.events.post(update(2))
    with sdk.stream(place) as stream:
        later = next(stream)
    assert isinstance(later, Event)
    assert later.id == second


@pytest.mark.usefixtures("small_pages")
def test_a_cursor_stays_valid_after_withdrawals(sdk: Client) -> None:
    chance = random.Random(8)
    ids = [sdk.events.post(update(number)) for number in range(30)]
    feed = sdk.events.follow(poll_s=0.01)
    cursors = [feed.cursor, *(feed.cursor for _ in islice(feed, 29))]
    gone = {id for id in ids[:-1] if chance.random() < 0.6}
    sdk.events.withdraw_many(gone)
    for place, cursor in enumerate(cursors):
        following = [id for id in ids[place:] if id not in gone]
        again = sdk.events.follow(cursor, poll_s=0.01)
        assert [event.id for event in islice(again, len(following))] == following
    # Cursors of older versions have the number of entries that were taken of a page.
    page = cursors[7].split(".", 1)[1]
    old = sdk.events.follow(f"0.{page}", poll_s=0.01)
    assert next(old).id == next(id for id in ids[7:] if id not in gone)


def test_now_is_a_cursor_even_if_the_only_event_is_withdrawn(sdk: Client) -> None:
    only = sdk.events.post(update(0))
    place = sdk.events.now()
    sdk.events.withdraw(only)
    following = sdk.events.post(update(1))
    assert next(sdk.events.follow(place, poll_s=0.01)).id == following


@pytest.mark.usefixtures("small_pages")
def test_copies_equal_the_events_of_the_server_after_restarts(server: Server, key: str) -> None:
    chance = random.Random(5)
    copies: dict[str, Event] = {}
    seen: set[str] = set()
    dropped, place, place_of_withdrawals = 0, None, None
    kept: list[str] = []
    for most in (3, 10, 2, 1_000, 8, 1_000):
        with Client(server.url, key) as client:
            fleet = create_fleet(client, 3)
            results = client.events.bulk(updates(12, fleet))
            kept += [result.id for result in results if result.id]
            some = chance.sample(kept, len(kept) // 3)
            assert all(result.ok for result in client.events.withdraw_many(some))
            kept = [id for id in kept if id not in some]
            # The consumer comes back with its cursors and takes some new entries.
            waiting = sum(id not in seen for id in kept)
            feed = client.events.follow(place, poll_s=0.01)
            for event in islice(feed, min(most, waiting)):
                assert event.id is not None
                copies[event.id] = event
                seen.add(event.id)
            gone = client.events.follow_withdrawn(place_of_withdrawals, poll_s=0.01)
            for withdrawal in islice(gone, len(list(client.events.withdrawn())) - dropped):
                copies.pop(withdrawal.id, None)
                dropped += 1
            place, place_of_withdrawals = feed.cursor, gone.cursor
    assert list(copies) == kept


def test_the_async_client_withdraws_and_follows(server: Server, key: str) -> None:
    async def main() -> None:
        async with AsyncClient(server.url, key) as client:
            await client.chargers.put(Charger(id="C1", charge_powers=[11]))
            await client.vehicles.put(Vehicle(id="V1", charge_capacity=50, charge_powers=[11]))
            ids = [await client.events.post(update(number)) for number in range(3)]
            await client.events.withdraw(ids[1])
            (result,) = await client.events.withdraw_many([ids[0]])
            assert result.ok
            listed = [one async for one in client.events.withdrawn()]
            feed = client.events.follow_withdrawn(poll_s=0.01)
            assert [await anext(feed), await anext(feed)] == listed
            assert [one.id for one in listed] == [ids[1], ids[0]]

    asyncio.run(main())
