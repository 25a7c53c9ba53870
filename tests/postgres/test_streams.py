"""A stream on any worker or node shows the events of all others, without a gap."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import httpx

from tests.conftest import Server
from tests.sse import Message, events_in, messages, states_in, streaming, without_age
from tests.wire import VEHICLE, Partner, event, run
from tether.domain.keys import Rate

WRITERS, EVENTS = 4, 40


async def write(servers: list[Server], partner: Partner, writer: int) -> None:
    """Posts events of its own vehicle, some late, each on a connection to a random worker."""
    chance = random.Random(writer)
    numbers = list(range(writer * EVENTS, (writer + 1) * EVENTS))
    for place in range(0, EVENTS, 10):
        chance.shuffle(portion := numbers[place : place + 10])
        numbers[place : place + 10] = portion
    headers = {"x-api-key": partner.key}
    for number in numbers:
        url = chance.choice(servers).url
        async with httpx.AsyncClient(base_url=url, headers=headers, verify=False) as client:
            answer = await client.post("/events", content=event(number, vehicle=f"V{writer}"))
        assert answer.status_code == 201, answer.text


def has_all(found: list[Message]) -> bool:
    """Whether all events came and the last state of a portion, which brings an id."""
    whole = bool(found) and found[-1].name == "state" and found[-1].id != ""
    return whole and len(events_in(found)) >= WRITERS * EVENTS


async def consume(servers: list[Server], partner: Partner, found: list[Message]) -> None:
    """Keeps all messages; the stream is cut off at random, and continues on a random worker."""
    chance = random.Random(5)
    last_id = ""
    while not has_all(found):
        headers = {"x-api-key": partner.key, "Last-Event-ID": last_id}
        url = chance.choice(servers).url
        left = chance.randrange(1, 10_000)
        async with (
            httpx.AsyncClient(base_url=url, headers=headers, verify=False) as client,
            client.stream("GET", "/stream", params={"cursor": "start"}) as answer,
        ):
            assert answer.status_code == 200
            text = ""
            async for piece in answer.aiter_text():
                text += piece[:left]
                left -= len(piece)
                *whole, text = text.split("\n\n")
                for block in whole:
                    for message in messages([*block.split("\n"), ""]):
                        last_id = message.id or last_id
                        if not message.is_place:
                            found.append(message)
                if left <= 0 or has_all(found):
                    break


def test_every_event_once_in_order_whichever_worker_and_node_answers(
    node: Callable[..., Server], database: str
) -> None:
    first = node("--workers", "2", database=database)
    servers = [first, node(database=database)]
    partner = Partner(first, first.key(rate=Rate(1_000_000, 1)))
    vehicles = [f"V{writer}" for writer in range(WRITERS)]
    for vehicle in vehicles:
        assert partner.client.put(f"/vehicles/{vehicle}", content=VEHICLE).is_success
    found: list[Message] = []

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(consume(servers, partner, found))
            for writer in range(WRITERS):
                group.create_task(write(servers, partner, writer))

    run(scenario())
    assert events_in(found) == partner.events()
    states: dict[str, Any] = {
        vehicle: without_age(partner.client.get(f"/vehicles/{vehicle}/state").json())
        for vehicle in vehicles
    }
    assert states_in(found) == states
    for server in servers:
        assert server.failures() == []
        assert server.stop() == 0


def test_a_late_event_before_hundreds_of_stays_is_shown_too(
    node: Callable[..., Server], database: str
) -> None:
    partner = Partner(node(database=database))
    lines = b"\n".join(event(number) for number in range(1, 251))
    assert partner.client.post("/events/bulk", content=lines).is_success
    with streaming(partner.client) as found:
        place = next(found)
        assert partner.client.post("/events", content=event(0)).status_code == 201
        while place.name != "event" or place.data["timestamp"] != "2026-01-01T00:00:00.000Z":
            place = next(found)
