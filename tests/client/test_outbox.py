"""The outbox keeps events, delivers them in order, and keeps refused events."""

import asyncio
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from tests.client.devices import (
    check_once_and_in_order,
    connected,
    create_fleet,
    numbers,
    update,
    updates,
)
from tests.client.scripted import Reply, ScriptedServer
from tests.conftest import Server
from tether.client import (
    Client,
    Event,
    Forbidden,
    Invalid,
    Outbox,
    OutboxError,
    Unavailable,
    outbox_file,
)
from tether.client.outbox_file import OutboxFile
from tether.domain import timestamps
from tether.domain.keys import digest_of
from tether.server.store import open_store

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of the outbox."""
    return tmp_path / "outbox.db"


@pytest.fixture
def offline() -> Iterator[Client]:
    """A client whose server does not answer."""
    with Client(NOBODY, "key", timeout=1) as client:
        yield client


def until(true: Callable[[], bool], seconds: float = 10) -> None:
    """Waits until the condition is true."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if true():
            return
        pause.wait(0.02)
    raise AssertionError("it did not come true")


def test_one_event_and_many(sdk: Client, path: Path) -> None:
    with Outbox(path, sdk) as outbox:
        stored = outbox.put(connected())
        assert stored.timestamp is not None
        assert outbox.flush(10)
        for number in range(50):
            outbox.put(update(number))
        assert outbox.flush(10)
        assert (outbox.depth, outbox.error, outbox.refused) == (0, None, [])
    first, *others = sdk.events.list()
    assert (first.timestamp, first.vehicle_id) == (stored.timestamp, "V1")
    assert numbers(others) == {"V1": list(range(50))}


def test_waiting_events_are_delivered_after_a_restart(
    server: Server, key: str, path: Path, offline: Client
) -> None:
    with Client(server.url, key) as client:
        fleet = create_fleet(client, 3)
        with Outbox(path, offline) as outbox:
            for event in updates(100, fleet):
                outbox.put(event)
            until(lambda: isinstance(outbox.error, Unavailable))
            assert not outbox.flush(0.1)
            assert outbox.depth == 100
        with Outbox(path, client) as outbox:
            assert outbox.flush(20)
            assert outbox.error is None
        check_once_and_in_order(client, 100, fleet)


def test_refused_events_are_kept_with_the_reason(sdk: Client, path: Path) -> None:
    with Outbox(path, sdk) as outbox:
        outbox.put(update(1))
        outbox.put(update(2, "V2"))
        outbox.put(
            Event(type="VEHICLE_CONNECTED", charger_id="C1", vehicle_id="V1", state_of_charge=101)
        )
        outbox.put(update(3))
        assert outbox.flush(10)
    with Outbox(path, sdk) as outbox:
        unknown, invalid = outbox.refused
        assert (unknown.event.vehicle_id, unknown.status) == ("V2", 409)
        assert "existing vehicle" in unknown.message
        assert (invalid.event.state_of_charge, invalid.status) == (Decimal(101), 400)
        assert "{stateOfCharge}" in invalid.message
        assert numbers(sdk.events.list()) == {"V1": [1, 3]}
        assert outbox.delete(invalid)
        assert not outbox.delete(invalid)
        create_fleet(sdk, 2)
        assert outbox.requeue(unknown)
        assert not outbox.requeue(unknown)
        assert outbox.flush(10)
        assert (outbox.refused, outbox.depth) == ([], 0)
    assert numbers(sdk.events.list()) == {"V1": [1, 3], "V2": [2]}


def test_a_single_event_that_is_refused(sdk: Client, path: Path) -> None:
    with Outbox(path, sdk) as outbox:
        outbox.put(update(1, "V2"))
        assert outbox.flush(10)
        assert [refused.status for refused in outbox.refused] == [409]


def test_an_invalid_event_is_not_stored(sdk: Client, path: Path) -> None:
    with Outbox(path, sdk) as outbox:
        with pytest.raises(Invalid):
            outbox.put(update(1, "no id"))
        assert outbox.depth == 0


@pytest.mark.parametrize(
    "reply",
    [
        Reply(400, b'{"message":"Parameter {type} is invalid. Says some box in between."}'),
        Reply(404, b'{"message":"Not Found"}'),
        Reply(200, b"<html>Log in</html>"),
        Reply(500, b'{"message":"Internal Server Error"}'),
        Reply(200, b'[{"status":500,"message":"Internal Server Error"}]'),
        Reply(429, b'{"message":"Too Many Requests"}', {"Retry-After": "600"}),
    ],
)
def test_an_outage_is_not_a_refusal(path: Path, reply: Reply) -> None:
    with (
        ScriptedServer(reply) as server,
        Client(server.url, "key") as client,
        Outbox(path, client) as outbox,
    ):
        outbox.put(update(1))
        until(lambda: outbox.error is not None)
        assert (outbox.depth, outbox.refused) == (1, [])


def test_with_a_revoked_key_all_events_stay_and_the_error_is_reported(
    server: Server, key: str, path: Path
) -> None:
    with Client(server.url, key) as client:
        fleet = create_fleet(client, 1)

    async def revoke() -> None:
        async with open_store(server.database) as store:
            found = await store.keys.find(digest_of(key))
            assert found is not None
            await store.keys.revoke(found, timestamps.now_ms())

    asyncio.run(revoke())
    with Client(server.url, key) as client, Outbox(path, client) as outbox:

        def is_forbidden() -> bool:
            outbox.put(update(0))
            outbox.flush(0.05)
            return isinstance(outbox.error, Forbidden)

        until(is_forbidden)
        waiting = outbox.depth
        assert waiting > 0
        outbox.put(update(1))
        assert outbox.depth == waiting + 1
        assert outbox.refused == []
    assert fleet


def long_number(digits: int) -> Event:
    """A large event that the server refuses."""
    return msgspec.structs.replace(update(0), charge_power=Decimal("0." + "1" * digits))


def test_events_that_do_not_fit_into_one_request(sdk: Client, path: Path, offline: Client) -> None:
    with Outbox(path, offline) as outbox:
        outbox.put(update(0))
        for _ in range(10):
            outbox.put(long_number(1_000_000))
        outbox.put(update(1))
        outbox.put(long_number(9_000_000))
        outbox.put(update(2))
    create_fleet(sdk, 1)
    with Outbox(path, sdk) as outbox:
        assert outbox.flush(90)
        assert [refused.status for refused in outbox.refused] == [413] * 11
    assert numbers(sdk.events.list()) == {"V1": [0, 1, 2]}


def test_the_outbox_obeys_retry_after(path: Path) -> None:
    wait = Reply(503, b'{"message":"Service Unavailable"}', {"Retry-After": "60"})
    with (
        ScriptedServer(wait) as server,
        Client(server.url, "key") as client,
        Outbox(path, client) as outbox,
    ):
        outbox.put(update(1))
        until(lambda: outbox.error is not None)
        outbox.put(update(2))
        assert len(server.requests) == 1
        outbox.flush(0.3)  # tries at once
        assert len(server.requests) == 2


@pytest.mark.parametrize("wish", ["3600", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_very_long_retry_after_does_not_end_the_delivery(path: Path, wish: str) -> None:
    busy, stored = Reply(503, headers={"Retry-After": wish}), Reply(201, b'{"id":"an id"}')
    with (
        ScriptedServer(busy, stored) as server,
        Client(server.url, "key") as client,
        Outbox(path, client) as outbox,
    ):
        outbox.put(connected())
        until(lambda: outbox.error is not None)
        assert outbox.flush(timeout=10)


def test_a_full_disk_raises_and_delivery_continues_later(
    sdk: Client, path: Path, offline: Client
) -> None:
    with Outbox(path, offline) as outbox:
        database = outbox._file._db
        database.execute("PRAGMA max_page_count = 1")  # no more pages than now
        put = 0

        def fill() -> None:
            nonlocal put
            while True:
                outbox.put(update(put))
                put += 1

        with pytest.raises(OutboxError, match=r"outbox\.db cannot be used: .*full"):
            fill()
        assert outbox.depth == put
        database.execute("PRAGMA max_page_count = 1000000")
        outbox.put(update(put))
    with Outbox(path, sdk) as outbox:
        assert outbox.flush(10)
    assert numbers(sdk.events.list(page_size=1000)) == {"V1": list(range(put + 1))}


def test_put_leaves_some_disk_space_free(
    sdk: Client, path: Path, offline: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Outbox(path, offline) as outbox:
        for number in range(100):
            outbox.put(update(number))
        usage = shutil.disk_usage(path)
        nearly_full = usage._replace(free=outbox_file.RESERVED_BYTES - 1)
        monkeypatch.setattr(outbox_file, "disk_usage", lambda _: nearly_full)
        with pytest.raises(OutboxError, match="the disk is full"):
            outbox.put(update(100))
    with Outbox(path, sdk) as outbox:
        assert outbox.flush(10)
        outbox.put(update(100))  # in the place of delivered events
        assert outbox.flush(10)
    assert numbers(sdk.events.list()) == {"V1": [*range(101)]}


def test_files_that_are_not_an_outbox(tmp_path: Path, offline: Client) -> None:
    text, database, newer = (tmp_path / name for name in ("text", "database", "newer"))
    text.write_text("This is no database. " * 100)
    sqlite3.connect(database).execute("CREATE TABLE things (id)").connection.close()
    sqlite3.connect(newer).execute("PRAGMA user_version = 99").connection.close()
    for path, reason in (
        (text, "not a database"),
        (database, "no outbox"),
        (newer, "newer version"),
        (tmp_path / "missing" / "outbox.db", "unable to open"),
    ):
        with pytest.raises(OutboxError, match=reason):
            Outbox(path, offline)
    assert text.read_text().startswith("This is no")


def test_a_closed_outbox_raises(path: Path, offline: Client) -> None:
    outbox = Outbox(path, offline)
    outbox.close()
    outbox.close()
    with pytest.raises(OutboxError):
        outbox.put(update(1))


def test_many_threads_and_outboxes_share_a_file(server: Server, key: str, path: Path) -> None:
    with Client(server.url, key) as client:
        fleet = create_fleet(client, 6)
        with Outbox(path, client) as one, Outbox(path, client) as two, Outbox(path, client) as six:

            def put(place: int) -> None:
                for number in range(place, 240, 6):
                    (one, two, six)[place % 3].put(update(number, fleet[place]))

            threads = [threading.Thread(target=put, args=(place,)) for place in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert all(outbox.flush(20) for outbox in (one, two, six))
        check_once_and_in_order(client, 240, fleet)


def test_only_one_delivers_at_a_time(path: Path) -> None:
    one, two = OutboxFile(path), OutboxFile(path)
    with one.delivery_lock() as first, two.delivery_lock() as second:
        assert (first, second) == (True, False)
    with two.delivery_lock() as second, one.delivery_lock() as first:
        assert (first, second) == (False, True)
    one.close()
    two.close()


def test_timestamps_increase_across_restarts(path: Path, offline: Client) -> None:
    stamps: list[str | None] = []
    for _ in range(10):
        with Outbox(path, offline) as outbox:
            stamps += [outbox.put(connected()).timestamp for _ in range(5)]
    assert stamps == sorted(set(stamps), key=str)
