"""Retention: deletes data that is older than its settings allow, in the background."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from time import monotonic_ns, time_ns

from tether.domain.errors import NotDerived, Unavailable
from tether.domain.partners import RetentionPeriods
from tether.domain.timestamps import DAY_MS, HOUR_MS
from tether.server.store import Store
from tether.storage.retention import LEASE_MS

log = logging.getLogger(__name__)

AUDIT_PERIOD_S = 600.0
DELETION_PERIOD_S = 3600.0
EXPIRY_PERIOD_S = 15.0


class CautiousClock:
    """Milliseconds since 1970, for deleting what is old: what a wrong clock deletes is lost.

    A clock that is set forward by over an hour is believed after a day.
    """

    def __init__(self) -> None:
        self._believed_ns = monotonic_ns()
        self._offset_ns = time_ns() - self._believed_ns

    def __call__(self) -> int:
        passed_ns = monotonic_ns()
        offset_ns = time_ns() - passed_ns
        is_near = offset_ns - self._offset_ns <= HOUR_MS * 1_000_000
        if is_near or passed_ns - self._believed_ns > DAY_MS * 1_000_000:
            self._believed_ns, self._offset_ns = passed_ns, offset_ns
        return (passed_ns + self._offset_ns) // 1_000_000


async def run_audit_deletion(store: Store, days: int, now_ms: Callable[[], int]) -> None:
    """Deletes entries of the audit trail that are older than this, until it is cancelled."""
    while True:
        deleted = 0
        with suppress(Unavailable):
            deleted = await store.audit.delete_before(now_ms() - days * DAY_MS)
        # Other requests get their turn between two batches.
        await asyncio.sleep(0.1 if deleted else AUDIT_PERIOD_S)


async def run_deletion(store: Store, attempt_days: int, now_ms: Callable[[], int]) -> None:
    """Deletes old rows every hour, until it is cancelled.

    `attempt_days` is how long attempts of webhooks are kept by default; 0: for ever.
    """
    while True:
        try:
            await delete_old(store, now_ms(), attempt_days * DAY_MS)
        except Unavailable:
            pass
        except Exception as error:  # it is tried again
            log.error("old rows not deleted", exc_info=error)
        await asyncio.sleep(DELETION_PERIOD_S)


async def delete_old(store: Store, now_ms: int, attempts_ms: int = 0) -> None:
    """Deletes old rows once. `attempts_ms` is as for `run_deletion`. Raises Unavailable."""
    await store.key_requests.delete_expired(now_ms)
    for partner in await store.partners.all():
        await store.refused_requests.delete_old(partner.id, now_ms)
        await store.key_hours.delete_old(partner.id, now_ms)
        own_ms = (await store.retention.get(partner.id)).attempts_ms
        if age_ms := attempts_ms if own_ms is None else own_ms:
            await store.webhooks.delete_attempts_before(partner.id, now_ms - age_ms)
        await store.retention.delete_tombstones(partner.id, now_ms)


async def run_expiry(
    store: Store, event_days: int, now_ms: Callable[[], int], *, alone: bool
) -> None:
    """Expires old events of all partners, until it is cancelled.

    `event_days` is how long events are kept by default; 0: for ever. `alone` says that no other
    process expires events of this database.
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
                    continue  # it is tried again
                except Unavailable:
                    raise
                except Exception as error:  # go on with the other partners
                    log.error("expired events not deleted", exc_info=error)
            await store.engine.shrink()
        await asyncio.sleep(EXPIRY_PERIOD_S)


async def expire(
    store: Store, partner: int, ages: RetentionPeriods, default_ms: int, now_ms: Callable[[], int]
) -> None:
    """Moves the partner's horizon forward, and expires the events before it.

    Does nothing while another process expires events of this partner. Raises Unavailable.
    """
    age_ms = default_ms if ages.events_ms is None else ages.events_ms
    if age_ms:
        # The horizon moves in steps of an hour.
        horizon_ms = (now_ms() - age_ms) // HOUR_MS * HOUR_MS
        if ages.horizon_ms is None or horizon_ms > ages.horizon_ms:
            await store.retention.move_horizon(partner, horizon_ms)
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
