"""Sessions are derived and compared beside servers while events arrive."""

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Any

from tests.store.test_contract import add_site, event, report
from tether.server.store import Store


def test_deriving_ends_though_events_keep_arriving(in_store: Callable[..., Any]) -> None:
    async def scenario(store: Store, partner: int) -> None:
        await add_site(store, partner)
        await report(store, partner, [event(0)])

        async def report_on() -> None:
            for second in count(1):
                await report(store, partner, [event(second)])
                await asyncio.sleep(0.02)

        reporting = asyncio.create_task(report_on())
        async with asyncio.timeout(10):
            async for _ in store.rebuilder.derive(partner):
                pass
        reporting.cancel()

    in_store(scenario)
