"""What many tasks report at once shares requests, and nobody can tell but by the speed."""

import asyncio
import json
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.client.devices import update
from tests.client.scripted import Said, Scripted
from tests.conftest import Server
from tether.client import (
    AsyncClient,
    Client,
    Conflict,
    Event,
    Forbidden,
    Invalid,
    RateLimited,
    TetherError,
    Unavailable,
)

ID = "0188ac4b-9dfa-7c3e-a51b-2f8e6d0b4c97"
CREATED = Said(201, json.dumps({"id": ID}).encode(), delay_s=0.3)


def together(count: int, *items: dict[str, object], **headers: str) -> Said:
    """A bulk answer: these items, then others that are stored, `count` in all."""
    stored = [{"status": 201, "id": ID}] * (count - len(items))
    return Said(200, json.dumps([*items, *stored]).encode(), headers)


async def outcomes(sdk: AsyncClient, count: int) -> list[Any]:
    """What comes of so many events of tasks that report at once."""
    posts = (sdk.events.post(update(number)) for number in range(count))
    return await asyncio.gather(*posts, return_exceptions=True)


def against(
    scripted: Scripted, use: Callable[[AsyncClient], Awaitable[Any]], **options: Any
) -> Any:
    async def main() -> Any:
        async with AsyncClient(scripted.url, "key", **options) as sdk:
            return await use(sdk)

    return asyncio.run(main())


def test_each_task_gets_the_fate_of_its_own_event(server: Server, key: str, sdk: Client) -> None:
    async def use() -> None:
        async with AsyncClient(server.url, key) as client:

            async def report(number: int) -> str:
                charger = "nobody" if number % 5 == 3 else "C1"
                kind = "ARRIVED" if number % 7 == 6 else "VEHICLE_CONNECTED"
                time = f"2026-05-01T10:{number // 60:02}:{number % 60:02}Z"
                return await client.events.post(
                    Event(type=kind, charger_id=charger, vehicle_id="V1", timestamp=time)
                )

            fates = await asyncio.gather(*map(report, range(300)), return_exceptions=True)
            again = await asyncio.gather(*map(report, range(300)), return_exceptions=True)
            stored = {event.id: event async for event in client.events.list(page_size=1000)}
        for number, (fate, other) in enumerate(zip(fates, again, strict=True)):
            if number % 7 == 6:
                assert isinstance(fate, Invalid)
                assert (fate.status, fate.parameter) == (400, "type")
            elif number % 5 == 3:
                assert isinstance(fate, Conflict)
                assert (fate.status, fate.event and fate.event.charger_id) == (409, "nobody")
                assert fate.request_id
            else:
                assert isinstance(fate, str)
                assert fate == other
                assert stored.pop(fate).timestamp == f"2026-05-01T10:{number // 60:02}:" + (
                    f"{number % 60:02}.000Z"
                )
        assert stored == {}

    asyncio.run(use())


def test_a_lone_event_goes_by_itself_and_many_go_in_few_requests() -> None:
    with Scripted(CREATED, *[CREATED] * 4, together(60)) as scripted:

        async def use(sdk: AsyncClient) -> list[Any]:
            assert await sdk.events.post(update(0)) == ID
            return await outcomes(sdk, 64)

        assert against(scripted, use) == [ID] * 64
        targets = [asked.target for asked in scripted.asked]
        assert targets == ["/events"] * 5 + ["/events/bulk"]
        lines = zlib.decompress(scripted.asked[-1].body, 31).splitlines()
        assert [json.loads(line)["chargedEnergy"] for line in lines] == [*range(4, 64)]


def test_what_waits_for_the_rate_limit_is_sent_again_and_only_that() -> None:
    later = {"status": 429, "message": "later"}
    script = [together(6, later, **{"retry-after": "0"}), together(1)]
    with Scripted(*[CREATED] * 4, *script) as scripted:
        assert against(scripted, lambda sdk: outcomes(sdk, 10)) == [ID] * 10
        assert len(scripted.asked) == 6
        assert len(zlib.decompress(scripted.asked[-1].body, 31).splitlines()) == 1


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        (Said(403, b'{"message":"No."}', {"x-request-id": "abc"}), Forbidden),
        (Said(503, b'{"message":"Later."}', {"x-request-id": "abc"}), Unavailable),
        (together(6, *[{"status": 429, "message": "Later."}] * 6), RateLimited),
        (Said(None), Unavailable),
    ],
)
def test_a_request_that_fails_fails_for_each_of_its_events(
    answer: Said, meaning: type[TetherError]
) -> None:
    with Scripted(*[CREATED] * 4, answer) as scripted:
        fates = against(scripted, lambda sdk: outcomes(sdk, 10), retries=0)
    assert fates[:4] == [ID] * 4
    assert [type(fate) for fate in fates[4:]] == [meaning] * 6
    assert len(set(map(id, fates[4:]))) == 6  # each has one of its own, with its event
    assert [fate.event.charged_energy for fate in fates[4:]] == [*range(4, 10)]
    if answer.headers.get("x-request-id"):
        assert {fate.request_id for fate in fates[4:]} == {"abc"}


@pytest.mark.parametrize("status", [404, 405])
def test_where_nobody_takes_bulk_each_goes_by_itself(status: int) -> None:
    with Scripted(*[CREATED] * 4, Said(status, b"<p>what?</p>"), CREATED) as scripted:
        assert against(scripted, lambda sdk: outcomes(sdk, 40)) == [ID] * 40
        assert [asked.target for asked in scripted.asked].count("/events/bulk") == 1


def test_who_does_not_wait_any_more_is_not_missed(server: Server, key: str, sdk: Client) -> None:
    async def use() -> None:
        async with AsyncClient(server.url, key) as client:
            posts = [asyncio.create_task(client.events.post(update(n))) for n in range(200)]
            await asyncio.sleep(0.002)
            for post in posts[::3]:
                post.cancel()
            fates = await asyncio.gather(*posts, return_exceptions=True)
            assert all(isinstance(fate, str) for fate in fates[1::3] + fates[2::3])
            assert isinstance(await client.events.post(update(1000)), str)

    asyncio.run(use())
