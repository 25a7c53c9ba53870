"""What is kept for a time only goes when that is over, also if nothing new comes to push it out."""

import asyncio
import logging
from collections.abc import Callable

from tether.domain.errors import Unavailable
from tether.domain.partners import DAY_MS
from tether.server.store import Store

log = logging.getLogger(__name__)

PERIOD_S = 3600.0


async def keep_forgetting(store: Store, attempt_days: int, now_ms: Callable[[], int]) -> None:
    """Deletes what is too old, again and again. Attempts of webhooks are kept for so many days
    where nothing else is said; 0: for ever.
    """
    while True:
        try:
            await forget(store, now_ms(), attempt_days * DAY_MS)
        except Unavailable:
            pass
        except Exception as error:  # it is tried again
            log.error("old rows not deleted", exc_info=error)
        await asyncio.sleep(PERIOD_S)


async def forget(store: Store, now_ms: int, attempts_ms: int = 0) -> None:
    """Deletes what is too old by this time. Raises Unavailable."""
    await store.key_requests.forget(now_ms)
    for partner in await store.partners.all():
        await store.refused_requests.forget(partner.id, now_ms)
        await store.key_hours.forget(partner.id, now_ms)
        own_ms = (await store.retention.get(partner.id)).attempts_ms
        if age_ms := attempts_ms if own_ms is None else own_ms:
            await store.webhooks.forget_aged(partner.id, now_ms - age_ms)
        await store.retention.forget_told(partner.id, now_ms)
