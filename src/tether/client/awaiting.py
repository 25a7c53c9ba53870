"""Waiting and HTTP for the awaiting client. `blocking.py` has the same names for the other."""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from tether.client.connection import Endpoint

if TYPE_CHECKING:
    from tether.client.awaiting_http import AwaitingHttp as Http

__all__ = ["Http", "Stop", "http_to", "sleep", "wait"]

Stop = asyncio.Event
sleep = asyncio.sleep


async def wait(stop: Stop, seconds: float) -> None:
    """Waits until `stop` is set, at most so many seconds."""
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


def http_to(endpoint: Endpoint) -> "Http":
    """The connections to a server."""
    from tether.client.awaiting_http import AwaitingHttp  # loading aiohttp takes a while

    return AwaitingHttp(endpoint)
