"""A consumer that follows the events misses and repeats nothing, wherever it stops."""

import random
import threading
import time
from collections.abc import Iterator
from itertools import islice

import pytest

from tests.client.devices import create_fleet, numbers, update
from tests.client.proxy import Proxy
from tests.client.scripted import Reply, ScriptedServer
from tests.conftest import Server
from tether.client import Client, Event, Forbidden, Invalid
from tether.client import following as following_module


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of seven events, so that there are many pages."""
    monkeypatch.setattr(following_module, "PAGE_SIZE", 7)


@pytest.mark.usefixtures("small_pages")
def test_follow_can_continue_after_every_event(sdk: Client) -> None:
    sdk.events.bulk(update(number) for number in range(30))
    everything = list(sdk.events.list())
    feed = sdk.events.follow(poll_s=0.01)
    cursors = [feed.cursor, *(feed.cursor for _ in islice(feed, 30))]
    assert len(set(cursors)) == 31
    sdk.events.post(update(30))
    everything = list(sdk.events.list())
    for place, cursor in enumerate(cursors):
        again = sdk.events.follow(cursor, poll_s=0.01)
        assert again.cursor == cursor
        assert list(islice(again, 31 - place)) == everything[place:]


def test_follow_from_now_returns_later_events_only(sdk: Client) -> None:
    places = []
    for number in range(4):  # also with no event, and with a single one
        places.append(sdk.events.now())
        sdk.events.post(update(number))
    everything = list(sdk.events.list())
    for number, place in enumerate(places):
        feed = sdk.events.follow(place, poll_s=0.01)
        assert list(islice(feed, 4 - number)) == everything[number:]
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    assert list(sdk.events.follow(sdk.events.now(), poll_s=0.01, stop=stop)) == []


@pytest.mark.usefixtures("small_pages")
def test_many_restarts_at_random_while_others_write(server: Server, key: str) -> None:
    count, chance = 400, random.Random(4)
    with Client(server.url, key) as client:
        fleet = create_fleet(client, 4)

        def write(vehicle: str) -> None:
            for number in range(count // 4):
                client.events.post(update(number, vehicle))

        writers = [threading.Thread(target=write, args=(vehicle,)) for vehicle in fleet]
        for writer in writers:
            writer.start()
        found: list[Event] = []
        cursor = None
        while len(found) < count:
            with Client(server.url, key) as consumer:
                feed = consumer.events.follow(cursor, poll_s=0.01)
                found += islice(feed, min(chance.randrange(1, 20), count - len(found)))
                cursor = feed.cursor
        for writer in writers:
            writer.join()
        assert found == list(client.events.list(page_size=1000))
    assert numbers(found) == {vehicle: list(range(count // 4)) for vehicle in fleet}


def test_follow_waits_for_events_and_can_be_stopped(sdk: Client) -> None:
    stop = threading.Event()
    found: list[Event] = []

    def consume() -> None:
        found.extend(sdk.events.follow(poll_s=30, stop=stop))

    consumer = threading.Thread(target=consume)
    consumer.start()
    time.sleep(0.3)
    stop.set()
    consumer.join(timeout=25)
    assert not consumer.is_alive()
    late = threading.Timer(0.3, lambda: sdk.events.post(update(1)))
    late.start()
    assert int(next(sdk.events.follow(poll_s=0.05)).charged_energy or 0) == 1
    late.join()


def test_follow_survives_an_outage(server: Server, key: str) -> None:
    with Client(server.url, key) as client, Proxy(server.url, 0.7, seed=11) as proxy:
        fleet = create_fleet(client, 1)
        client.events.bulk(update(number) for number in range(50))
        with Client(proxy.url, key, timeout=5) as consumer:
            feed: Iterator[Event] = consumer.events.follow(poll_s=0.01)
            found = list(islice(feed, 50))
            client.events.post(update(50))
            found += islice(feed, 1)
    assert numbers(found) == {fleet[0]: list(range(51))}


def test_a_refused_key_ends_follow() -> None:
    forbidden = Reply(403, b'{"message":"Forbidden"}')
    with (
        ScriptedServer(forbidden) as server,
        Client(server.url, "key") as client,
        pytest.raises(Forbidden),
    ):
        next(client.events.follow())


@pytest.mark.parametrize("cursor", ["", "MTIz", "x.MTIz", "-1.MTIz", "99999.MTIz", "²."])
def test_a_wrong_cursor_is_refused(sdk: Client, cursor: str) -> None:
    with pytest.raises(Invalid) as caught:
        sdk.events.follow(cursor)
    assert caught.value.parameter == "cursor"
