"""The stream of the SDK connects again by itself and has no gap."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import islice

import pytest

from tests.client.devices import CHARGER, VEHICLE, connected, create_fleet, numbers, update
from tests.client.scripted import Reply, ScriptedServer
from tests.conftest import Server
from tether.client import (
    AsyncClient,
    Client,
    Event,
    Forbidden,
    Invalid,
    NotFound,
    TetherError,
    UnexpectedAnswer,
    VehicleState,
)
from tether.client.streaming import Message

STREAM = {"content-type": "text/event-stream"}
STATE = b'{"vehicleId":"V1","pluggedIn":false,"charging":false,"asOf":"2026-01-05T10:00:00.000Z"}'
EVENT = b'{"type":"VEHICLE_CONNECTED","chargerId":"C1","vehicleId":"V1"}'


def events(messages: list[Message]) -> list[Event]:
    return [message for message in messages if isinstance(message, Event)]


def test_a_connected_stream_has_all_later_events(sdk: Client) -> None:
    sdk.events.post(connected())
    list(sdk.vehicles.list_with_state())  # so that no earlier states follow
    with sdk.stream() as stream:
        place = stream.cursor
        assert place is not None
        event_id = sdk.events.post(update(1))
        found = list(islice(stream, 2))
    assert found[0] == sdk.events.get(event_id)
    assert isinstance(found[1], VehicleState)
    assert (found[1].vehicle_id, str(found[1].state_of_charge)) == (VEHICLE, "50")
    assert list(islice(sdk.stream(place), 1)) == found[:1]


def test_the_stream_can_continue_after_every_message(sdk: Client) -> None:
    fleet = create_fleet(sdk, 3)
    sdk.events.bulk(update(number, fleet[number % 3]) for number in range(9))
    everything = list(sdk.events.list())
    stream = sdk.stream("start")
    found, cursors = [], []
    for message in islice(stream, 9 + 3):
        found.append(message)
        cursors.append(stream.cursor)
    assert events(found) == everything
    sdk.events.post(update(9))
    everything = list(sdk.events.list())
    for place, cursor in enumerate(cursors, 1):
        rest = events(found[:place])
        for message in sdk.stream(cursor):
            rest += events([message])
            if len(rest) == len(everything):
                break
        assert rest == everything


def test_the_stream_has_the_filters_of_events(sdk: Client) -> None:
    fleet = create_fleet(sdk, 2)
    sdk.events.bulk([update(1, fleet[0]), connected(fleet[1]), update(2, fleet[1])])
    stream = sdk.stream("start", type="VEHICLE_CHARGE_UPDATED", vehicle_id=fleet[1],
                        charger_id=CHARGER)  # fmt: skip
    event, state = islice(stream, 2)
    assert isinstance(event, Event)
    assert (numbers([event]), isinstance(state, VehicleState)) == ({fleet[1]: [2]}, True)


def test_the_stream_survives_restarts_while_others_write(new_server: Callable[..., Server]) -> None:
    server, count = new_server(), 120
    port = int(server.url.rpartition(":")[2])
    with Client(server.url, server.key(), retries=20) as client:
        (vehicle,) = create_fleet(client, 1)

        def write() -> None:
            for number in range(count):
                client.events.post(update(number, vehicle))

        writer = threading.Thread(target=write)
        writer.start()
        found: list[Event] = []
        for message in client.stream("start"):
            found += events([message])
            if len(found) in (30, 80) and isinstance(message, Event):
                server.kill() if len(found) == 30 else server.stop()
                server.start(port)
            if len(found) == count:
                break
        writer.join()
        assert found == list(client.events.list(page_size=1000))


def test_interrupted_is_true_during_an_outage() -> None:
    outage = [Reply(503), Reply(None)]
    with ScriptedServer(*outage, Reply(200, b"id: a\n\n", STREAM)) as server:
        stream = Client(server.url, "key").stream()
        seen = {stream.interrupted}
        connecting = threading.Thread(target=stream.__enter__)
        connecting.start()
        while connecting.is_alive():
            seen.add(stream.interrupted)
        stream.close()
    assert seen == {False, True}
    assert not stream.interrupted


def test_permanent_errors_of_the_stream_are_raised(sdk: Client) -> None:
    with pytest.raises(Invalid) as caught:
        next(sdk.stream("nonsense"))
    assert caught.value.parameter == "cursor"
    refusals: list[tuple[Reply, type[TetherError]]] = [
        (Reply(403, b'{"message":"Forbidden"}'), Forbidden),
        (Reply(404, b'{"message":"Not Found"}'), NotFound),
        (Reply(404, b"<html>"), UnexpectedAnswer),
        (Reply(200, b"[]", {"content-type": "application/json"}), UnexpectedAnswer),
        (Reply(200, b"event: state\ndata: {}\n\n", STREAM), UnexpectedAnswer),
    ]
    for refusal, error in refusals:
        with ScriptedServer(refusal) as server, Client(server.url, "key") as client:
            with pytest.raises(error):
                next(client.stream())
            assert len(server.requests) == 1


def test_the_stream_follows_the_standard_and_sends_the_last_event_id() -> None:
    script = [
        Reply(503),
        Reply(200, b":\r\nretry: 9\r\nid: a\r\n\r\nevent:event\rid: b\rdata:" + EVENT + b"\r\r:\n",
             STREAM),
        Reply(200, b"event: later\ndata: {}\nid: c\n\nid: d\nevent: state\ndata: "
             + STATE.replace(b",", b",\ndata: ", 1) + b"\n\nid: e\nevent: state\ndata: {}", STREAM),
        Reply(None),
        Reply(429, b"", {"retry-after": "0"}),
        Reply(200, b"event: event\nid:f\ndata: " + EVENT + b"\n\n", STREAM),
    ]  # fmt: skip
    with ScriptedServer(*script) as server, Client(server.url, "key") as client:
        stream = client.stream("start", vehicle_id="V1")
        found = [(type(message).__name__, stream.cursor) for message in islice(stream, 3)]
        sent = [(one.target, one.headers.get("last-event-id")) for one in server.requests]
    assert found == [("Event", "b"), ("VehicleState", "d"), ("Event", "f")]
    assert sent == [
        ("/stream?cursor=start&vehicleId=V1", None),
        ("/stream?cursor=start&vehicleId=V1", None),
        ("/stream?vehicleId=V1", "b"),
        ("/stream?vehicleId=V1", "d"),
        ("/stream?vehicleId=V1", "d"),
        ("/stream?vehicleId=V1", "d"),
    ]


def test_the_async_stream_is_the_same_and_can_be_cancelled(
    server: Server, key: str, sdk: Client
) -> None:
    async def scenario() -> None:
        async with AsyncClient(server.url, key) as client:
            found: list[Message] = []
            async with client.stream() as stream:
                for number in range(20):
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.02):
                            async for message in stream:
                                found.append(message)
                    await client.events.post(update(number))
                while len(events(found)) < 20:
                    found.append(await anext(stream))
            assert numbers(events(found)) == {VEHICLE: list(range(20))}
            assert isinstance(await anext(stream), VehicleState)
            await stream.close()
            with pytest.raises(Invalid):
                await anext(client.stream("nonsense"))

    asyncio.run(scenario())
    refused = Reply(403, b'{"message":"Forbidden"}')
    script = [Reply(200, b"id: a\n\n", STREAM), Reply(None), Reply(503), refused]

    async def interrupted(url: str) -> None:
        async with AsyncClient(url, "key") as client, client.stream() as stream:
            assert stream.cursor == "a"
            with pytest.raises(Forbidden):
                await anext(stream)

    with ScriptedServer(*script) as scripted:
        asyncio.run(interrupted(scripted.url))
        assert [one.headers.get("last-event-id") for one in scripted.requests] == [
            None, "a", "a", "a",
        ]  # fmt: skip
