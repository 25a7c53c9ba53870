"""What is kept for a time only goes when that is over, also if nothing new comes to push it out."""

import asyncio
import logging
from collections.abc import Callable

from tether.domain.errors import Unavailable
from tether.server.store import Store

log = logging.getLogger(__name__)

PERIOD_S = 3600.0


async def keep_forgetting(store: Store, now_ms: Callable[[], int]) -> None:
    """Deletes what is too old, again and again."""
    while True:
        await asyncio.sleep(PERIOD_S)
        try:
            await forget(store, now_ms())
        except Unavailable:
            continue
        except Exception as error:  # it is tried again
            log.error("old rows not deleted", exc_info=error)


async def forget(store: Store, now_ms: int) -> None:
    """Deletes what is too old by this time. Raises Unavailable."""
    await store.key_requests.forget(now_ms)
    for partner in await store.partners.all():
        await store.refused_requests.forget(partner.id, now_ms)
        await store.key_hours.forget(partner.id, now_ms)
