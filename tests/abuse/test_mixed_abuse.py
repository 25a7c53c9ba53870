"""While several partners abuse the server in many ways, a partner within its limits is served."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path

import aiohttp
import pytest

from bench import hostile
from bench.soak import Good
from tests.conftest import Server
from tests.wire import many_files

SECONDS = 3.0
RATE = 25.0
EVENTS = 2_000  # of each hostile partner to begin with
ABUSES: list[hostile.Abuse] = [
    hostile.bulk_bombs, hostile.wrong_bulk, hostile.shuffled_bulk, hostile.commas, hostile.scans,
    hostile.crowded_charger, hostile.patches, hostile.unread_lists, hostile.wrong_keys,
    hostile.streams, hostile.single_requests,
]  # fmt: skip


async def abuse(partner: hostile.Partner, number: int) -> None:
    """Runs four abuses at once, until the event is set."""
    headers = {"x-api-key": partner.key}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        partner.url, connector=connector, headers=headers
    ) as partner.session:
        for place in range(number, 1000, 4):
            await asyncio.gather(*(ABUSES[(place + n) % len(ABUSES)](partner) for n in range(4)))


def test_a_partner_is_never_refused_beside_mixed_abuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostile, "VEHICLES", 300)
    server = Server(str(tmp_path / "tether.db"), ["--log-level", "warning"]).start()
    good_key, *keys = [server.key() for _ in range(4)]
    partners = [hostile.Partner(server.url, key, n) for n, key in enumerate(keys)]
    good = Good(seed=1)

    async def scenario() -> None:
        for number, key in enumerate(keys):
            await hostile.furnish(server.url, key, number, EVENTS)
        work: list[Coroutine[None, None, None]] = [
            abuse(partner, number) for number, partner in enumerate(partners)
        ]
        crowd = [asyncio.create_task(one) for one in work]
        await good.run(server.url, good_key, SECONDS, RATE)
        for task in crowd:
            task.cancel()
        await asyncio.gather(*crowd, return_exceptions=True)

    try:
        with many_files():
            asyncio.run(scenario())
    finally:
        server.kill()  # the requests would keep it busy for a while
    assert good.failures == []
    assert len(good.taken_ms) == SECONDS * RATE
    statuses = set().union(*(partner.statuses for partner in partners))
    assert not {one for one in statuses if one.startswith("5") and one != "503"}
    assert server.failures() == []
