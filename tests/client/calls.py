"""Calls of the blocking and of the async client, for tests that expect the same of both."""

import asyncio
from collections.abc import Callable
from typing import Any

from tether.client import AsyncClient, Client

KEY = "ttr_live_0123456789abcdefghijABCDEFGHIJ000000"


def blocking(url: str, *calls: Callable[[Any], Any], **options: Any) -> Any:
    """Calls each function with a client for this URL. Returns the last result."""
    with Client(url, KEY, **options) as client:
        return [call(client) for call in calls][-1]


def asynchronous(url: str, *calls: Callable[[Any], Any], **options: Any) -> Any:
    """As `blocking`, with an AsyncClient."""

    async def run() -> Any:
        async with AsyncClient(url, KEY, **options) as client:
            return [await call(client) for call in calls][-1]

    return asyncio.run(run())
