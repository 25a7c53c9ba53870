"""Events that many tasks report at once share requests, without other effects."""

import asyncio
import json
import zlib
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest

from tests.client.devices import create_fleet, numbers, update
from tests.client.scripted import Reply, ScriptedServer
from tests.conftest import Server
from tether.client import (
    AsyncClient,
    Client,
    Conflict,
    Event,
    Invalid,
    RateLimited,
    Unavailable,
)
from tether.domain.keys import Rate

ID = "0188ac4b-9dfa-7c3e-a51b-2f8e6d0b4c97"
CREATED = Reply(201, json.dumps({"id": ID}).encode(), delay_s=0.3)


def together(count: int, *items: dict[str, object], **headers: str) -> Reply:
    """A bulk answer with `count` items: these, then items of stored events."""
    stored = [{"status": 201, "id": ID}] * (count - len(items))
    return Reply(200, json.dumps([*items, *stored]).encode(), headers)


async def outcomes(sdk: AsyncClient, count: int) -> list[Any]:
    """The outcomes of so many events that tasks report at once."""
    posts = (sdk.events.post(update(number)) for number in range(count))
    return await asyncio.gather(*posts, return_exceptions=True)


def against(
    scripted: ScriptedServer, use: Callable[[AsyncClient], Awaitable[Any]], **options: Any
) -> Any:
    async def main() -> Any:
        async with AsyncClient(scripted.url, "key", **options) as sdk:
            return await use(sdk)

    return asyncio.run(main())


def test_each_task_gets_the_result_of_its_own_event(server: Server, key: str, sdk: Client) -> None:
    async def use() -> None:
        async with AsyncClient(server.url, key) as client:

            async def report(number: int) -> str:
                charger = "nobody" if number % 5 == 3 else "C1"
                kind = "ARRIVED" if number % 7 == 6 else "VEHICLE_CONNECTED"
                time = f"2026-05-01T10:{number // 60:02}:{number % 60:02}Z"
                return await client.events.post(
                    Event(type=kind, charger_id=charger, vehicle_id="V1", timestamp=time)
                )

            results = await asyncio.gather(*map(report, range(300)), return_exceptions=True)
            again = await asyncio.gather(*map(report, range(300)), return_exceptions=True)
            stored = {event.id: event async for event in client.events.list(page_size=1000)}
        for number, (result, other) in enumerate(zip(results, again, strict=True)):
            if number % 7 == 6:
                assert isinstance(result, Invalid)
                assert (result.status, result.parameter) == (400, "type")
            elif number % 5 == 3:
                assert isinstance(result, Conflict)
                assert (result.status, result.event and result.event.charger_id) == (409, "nobody")
                assert result.request_id
            else:
                assert isinstance(result, str)
                assert result == other
                assert stored.pop(result).timestamp == f"2026-05-01T10:{number // 60:02}:" + (
                    f"{number % 60:02}.000Z"
                )
        assert stored == {}

    asyncio.run(use())


def test_one_event_is_sent_alone_and_many_in_few_requests() -> None:
    with ScriptedServer(CREATED, *[CREATED] * 4, together(60)) as scripted:

        async def use(sdk: AsyncClient) -> list[Any]:
            assert await sdk.events.post(update(0)) == ID
            return await outcomes(sdk, 64)

        assert against(scripted, use) == [ID] * 64
        targets = [request.target for request in scripted.requests]
        assert targets == ["/events"] * 5 + ["/events/bulk"]
        lines = zlib.decompress(scripted.requests[-1].body, 31).splitlines()
        assert [json.loads(line)["chargedEnergy"] for line in lines] == [*range(4, 64)]


LATER = {"status": 429, "message": "Later."}
DOWN = {"status": 503, "message": "Down."}


def test_an_event_that_must_wait_is_sent_again_and_no_other_waits() -> None:
    script = [together(6, LATER, **{"retry-after": "1"}), CREATED]
    with ScriptedServer(*[CREATED] * 4, *script) as scripted:

        async def use(sdk: AsyncClient) -> None:
            posts = [asyncio.create_task(sdk.events.post(update(number))) for number in range(10)]
            ended: list[asyncio.Task[str]] = []
            for post in posts:
                post.add_done_callback(ended.append)
            assert await asyncio.gather(*posts) == [ID] * 10
            assert ended[-1] is posts[4]

        against(scripted, use)
        assert [request.target for request in scripted.requests[4:]] == ["/events/bulk", "/events"]
        assert json.loads(scripted.requests[-1].body)["chargedEnergy"] == 4


def test_waiting_events_do_not_delay_others() -> None:
    later = Reply(429, b'{"message":"Later."}', {"retry-after": "60"}, delay_s=0.3)
    with ScriptedServer(*[later] * 4, CREATED) as scripted:

        async def use(sdk: AsyncClient) -> None:
            posts = [asyncio.create_task(sdk.events.post(update(number))) for number in range(5)]
            done, _ = await asyncio.wait(posts, timeout=30, return_when=asyncio.FIRST_COMPLETED)
            assert done == {posts[4]}
            for post in posts:
                post.cancel()

        against(scripted, use)


def test_a_key_with_a_low_rate_limit_sends_all_events(server: Server) -> None:
    partner = f"slow {uuid4()}"
    with Client(server.url, server.key(partner)) as sdk:
        fleet = create_fleet(sdk, 64)
        slow = server.key(partner, rate=Rate(100, 1), burst=20)

        async def use() -> None:
            async with AsyncClient(server.url, slow) as client:

                async def report(vehicle: str) -> None:
                    for number in range(3):
                        await client.events.post(update(number, vehicle))

                await asyncio.gather(*map(report, fleet))

        asyncio.run(use())
        stored = numbers(sdk.events.list(page_size=1000))
        assert stored == {vehicle: [*range(3)] for vehicle in fleet}


@pytest.mark.parametrize(
    ("item", "alone"),
    [
        ({"status": 400, "message": "Parameter {type} is invalid. It must be one."}, {}),
        ({"status": 409, "message": "Unknown charger."}, {}),
        ({"status": 413, "message": "Too large."}, {}),
        ({"status": 429, "message": "Later."}, {"retry-after": "3600"}),
        ({"status": 500, "message": "Internal Server Error"}, {}),
        ({"status": 503, "message": "Later."}, {"retry-after": "2"}),
        ({"status": 201}, {}),
        ({"status": 418}, {}),
    ],
)
def test_a_refusal_is_the_same_as_for_an_event_sent_alone(
    item: dict[str, Any], alone: dict[str, str]
) -> None:
    headers = {"X-Request-Id": "abc", **alone}
    retries = 8 if alone.get("retry-after") == "3600" else 0  # too long to wait
    body = {name: value for name, value in item.items() if name != "status"}
    with ScriptedServer(Reply(item["status"], json.dumps(body).encode(), headers)) as scripted:
        expected = against(scripted, lambda sdk: outcomes(sdk, 1), retries=retries)[0]
    with ScriptedServer(*[CREATED] * 4, together(6, item, **headers)) as scripted:
        found = against(scripted, lambda sdk: outcomes(sdk, 10), retries=retries)
    assert found[:4] + found[5:] == [ID] * 9
    assert type(found[4]) is type(expected)
    assert found[4].event.charged_energy == 4
    for name in ("status", "request_id", "retry_after", "parameter"):
        assert getattr(found[4], name, None) == getattr(expected, name, None)
    if "message" in item:
        assert found[4].message == expected.message


def test_each_event_of_a_request_has_its_own_error() -> None:
    with ScriptedServer(*[CREATED] * 4, together(6, DOWN, *[LATER] * 5)) as scripted:
        results = against(scripted, lambda sdk: outcomes(sdk, 10), retries=0)
    assert [type(result) for result in results[4:]] == [Unavailable, *[RateLimited] * 5]


@pytest.mark.parametrize("status", [503, None])
def test_a_lost_request_is_lost_for_each_of_its_events(status: int | None) -> None:
    with ScriptedServer(*[CREATED] * 4, Reply(status)) as scripted:
        results = against(scripted, lambda sdk: outcomes(sdk, 10), retries=0)
        request_id = scripted.requests[-1].headers["x-request-id"]
    assert results[:4] == [ID] * 4
    assert [type(result) for result in results[4:]] == [Unavailable] * 6
    assert len(set(map(id, results[4:]))) == 6  # each task has its own error, with its event
    assert [result.event.charged_energy for result in results[4:]] == [*range(4, 10)]
    assert {result.request_id for result in results[4:]} == {request_id}


@pytest.mark.parametrize(
    "answer",
    [
        Reply(400, b'{"message":"What is this?"}'),
        Reply(403, b"<p>This looks dangerous.</p>"),
        Reply(413, b"<p>Too large.</p>"),
        Reply(415, b'{"message":"No gzip."}'),
        Reply(500, b'{"message":"Internal Server Error"}'),
        Reply(200, b"<p>Log in, please.</p>"),
        Reply(200, b'[{"status":201}, 1, 2, 3, 4, 5]'),
        together(5),
        together(7),
    ],
)
def test_events_that_cannot_share_a_request_are_sent_alone(answer: Reply) -> None:
    with ScriptedServer(*[CREATED] * 4, answer, *[CREATED] * 10, together(6)) as scripted:

        async def use(sdk: AsyncClient) -> None:
            assert await outcomes(sdk, 10) == [ID] * 10
            assert await outcomes(sdk, 10) == [ID] * 10

        against(scripted, use)
        targets = [request.target for request in scripted.requests]
        assert targets == [*["/events"] * 4, "/events/bulk", *["/events"] * 10, "/events/bulk"]


@pytest.mark.parametrize("status", [404, 405])
def test_without_the_bulk_call_each_event_is_sent_alone(status: int) -> None:
    with ScriptedServer(*[CREATED] * 4, Reply(status, b"<p>what?</p>"), CREATED) as scripted:
        assert against(scripted, lambda sdk: outcomes(sdk, 40)) == [ID] * 40
        assert [request.target for request in scripted.requests].count("/events/bulk") == 1


def test_events_of_cancelled_tasks_are_not_sent() -> None:
    with ScriptedServer(*[CREATED] * 4, together(3)) as scripted:

        async def use(sdk: AsyncClient) -> None:
            posts = [asyncio.create_task(sdk.events.post(update(number))) for number in range(10)]
            while len(scripted.requests) < 4:  # noqa: ASYNC110 - else the next one gets their answer
                await asyncio.sleep(0.01)
            for post in (posts[0], posts[4], posts[6], posts[8]):
                post.cancel()
            results = await asyncio.gather(*posts, return_exceptions=True)
            assert [result for result in results if isinstance(result, str)] == [ID] * 6

        against(scripted, use)
        lines = zlib.decompress(scripted.requests[-1].body, 31).splitlines()
        assert [json.loads(line)["chargedEnergy"] for line in lines] == [5, 7, 9]


def test_no_task_waits_for_ever_when_all_others_are_cancelled(
    server: Server, key: str, sdk: Client
) -> None:
    async def use() -> None:
        async with AsyncClient(server.url, key) as client, asyncio.timeout(20):
            for round in range(10):
                posts = {asyncio.create_task(client.events.post(update(n))) for n in range(100)}
                await asyncio.sleep(0.002 * round)
                for task in asyncio.all_tasks() - posts - {asyncio.current_task()}:
                    task.cancel()
                assert len(set(await asyncio.gather(*posts))) == 100

    asyncio.run(use())


def test_an_event_that_cannot_be_sent_does_not_disturb_others() -> None:
    with ScriptedServer(*[CREATED] * 4, together(6)) as scripted:

        async def use(sdk: AsyncClient) -> None:
            bad = update(1, vehicle="no id")
            refusal = asyncio.gather(sdk.events.post(bad), return_exceptions=True)
            first, (refused,), last = await asyncio.gather(
                outcomes(sdk, 5), refusal, outcomes(sdk, 5)
            )
            assert isinstance(refused, Invalid)
            assert refused.parameter == "vehicleId"
            assert first + last == [ID] * 10

        against(scripted, use)


def test_no_task_waits_for_ever_after_the_client_is_closed(
    server: Server, key: str, sdk: Client
) -> None:
    async def use() -> None:
        client = AsyncClient(server.url, key)
        posts = [asyncio.create_task(client.events.post(update(n))) for n in range(100)]
        await asyncio.sleep(0.003)
        await client.close()
        async with asyncio.timeout(20):
            results = await asyncio.gather(*posts, return_exceptions=True)
        errors = [result for result in results if not isinstance(result, str)]
        assert len(set(map(id, errors))) == len(errors)

    asyncio.run(use())


def test_cancelled_tasks_do_not_disturb_others(server: Server, key: str, sdk: Client) -> None:
    async def use() -> None:
        async with AsyncClient(server.url, key) as client:
            posts = [asyncio.create_task(client.events.post(update(n))) for n in range(200)]
            await asyncio.sleep(0.002)
            for post in posts[::3]:
                post.cancel()
            results = await asyncio.gather(*posts, return_exceptions=True)
            assert all(isinstance(result, str) for result in results[1::3] + results[2::3])
            assert isinstance(await client.events.post(update(1000)), str)

    asyncio.run(use())
