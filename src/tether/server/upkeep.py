"""What a server does by itself, beside requests: what is kept for a time only goes when that is
over, also if nothing new comes to push it out.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from tether.domain.errors import NotDerived, Unavailable
from tether.domain.partners import DAY_MS, RetentionPeriods
from tether.server.store import Store
from tether.storage.retention import LEASE_MS

log = logging.getLogger(__name__)

AGAIN_S = 600.0
FORGETS_AGAIN_S = 3600.0
EXPIRES_AGAIN_S = 15.0
STEP_MS = 3_600_000  # in which horizons move on


async def forget_audit(store: Store, days: int, now_ms: Callable[[], int]) -> None:
    """Deletes entries of the audit trail that are older, some at a time, again and again."""
    while True:
        forgotten = 0
        with suppress(Unavailable):
            forgotten = await store.audit.forget(now_ms() - days * DAY_MS)
        # The others have their turn between two portions.
        await asyncio.sleep(0.1 if forgotten else AGAIN_S)


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
        await asyncio.sleep(FORGETS_AGAIN_S)


async def forget(store: Store, now_ms: int, attempts_ms: int = 0) -> None:
    """Deletes what is too old by this time. Raises Unavailable."""
    await store.key_requests.delete_expired(now_ms)
    for partner in await store.partners.all():
        await store.refused_requests.delete_old(partner.id, now_ms)
        await store.key_hours.delete_old(partner.id, now_ms)
        own_ms = (await store.retention.get(partner.id)).attempts_ms
        if age_ms := attempts_ms if own_ms is None else own_ms:
            await store.webhooks.delete_attempts_before(partner.id, now_ms - age_ms)
        await store.retention.delete_tombstones(partner.id, now_ms)


async def keep_expiring(
    store: Store, event_days: int, now_ms: Callable[[], int], *, alone: bool
) -> None:
    """Lets events expire, again and again. They are kept for so many days where nothing else is
    said of their partner; 0: for ever. `alone` says that no other process can be at it.
    """
    if alone:
        with suppress(Unavailable):
            await store.retention.release_all()
    while True:
        with suppress(Unavailable):
            for partner, ages in await store.retention.all():
                try:
                    await expire(store, partner, ages, event_days * DAY_MS, now_ms)
                except NotDerived:
                    continue  # it is tried again; the others need not wait for that
                except Unavailable:
                    raise
                except Exception as error:  # what is wrong with one must not end the others
                    log.error("expired events not deleted", exc_info=error)
            await store.shrink()
        await asyncio.sleep(EXPIRES_AGAIN_S)


async def expire(
    store: Store, partner: int, ages: RetentionPeriods, default_ms: int, now_ms: Callable[[], int]
) -> None:
    """Moves the partner's horizon on, and lets go what is before it, unless another process does.
    Raises Unavailable.
    """
    age_ms = default_ms if ages.events_ms is None else ages.events_ms
    if age_ms:
        horizon_ms = (now_ms() - age_ms) // STEP_MS * STEP_MS
        if ages.horizon_ms is None or horizon_ms > ages.horizon_ms:
            await store.retention.move(partner, horizon_ms)
            ages = await store.retention.get(partner)
    if ages.horizon_ms is None or ages.horizon_ms == ages.expired_ms:
        return
    if not await store.retention.claim(partner, now_ms()):
        return
    renewing = asyncio.create_task(_renew(store, partner, now_ms))
    try:
        await store.expiring.expire(partner, ages.horizon_ms)
    except Exception:
        await store.retention.release(partner)
        raise
    finally:
        renewing.cancel()
    await store.retention.release(partner, ages.horizon_ms)


async def _renew(store: Store, partner: int, now_ms: Callable[[], int]) -> None:
    while True:
        await asyncio.sleep(LEASE_MS / 3000)
        with suppress(Unavailable):
            await store.retention.renew(partner, now_ms())
