"""What a server does by itself, beside requests: it forgets what is kept for a time only."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from tether.domain.errors import Unavailable
from tether.server.store import Store

AGAIN_S = 600.0
DAY_MS = 86_400_000


async def forget_audit(store: Store, days: int, now_ms: Callable[[], int]) -> None:
    """Deletes entries of the audit trail that are older, some at a time, again and again."""
    while True:
        forgotten = 0
        with suppress(Unavailable):
            forgotten = await store.audit.forget(now_ms() - days * DAY_MS)
        # The others have their turn between two portions.
        await asyncio.sleep(0.1 if forgotten else AGAIN_S)
