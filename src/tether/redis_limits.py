"""Rate limits that all workers and nodes share, in Redis or Valkey, by the library throttled-py.

A request never fails or waits long for Redis: whoever gets no answer in time counts in its own
memory, takes the share of one worker, and leaves Redis alone until it is known to answer again.
"""

import asyncio
import math
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from typing import Any

import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from throttled.asyncio import RateLimiterRegistry, per_duration, store
from throttled.exceptions import BaseThrottledError

from tether.keys import Key, Rate
from tether.limits import Limiter, Verdict

log = structlog.get_logger()

TIMEOUT_S = 0.025  # a healthy Redis answers in a millisecond
PROBE_EVERY_S = 0.5
_FAILURES = (RedisError, BaseThrottledError, OSError, TimeoutError)


class SharedBuckets:
    """The buckets in Redis; `own` counts while Redis cannot be reached."""

    def __init__(self, url: str, own: Limiter, tell: Callable[[bool], None]) -> None:
        """`tell` is told whether Redis is in use whenever that changes."""
        self._own = own
        self._tell = tell
        self._probing: asyncio.Task[None] | None = None
        self._store = store.RedisStore(
            url,
            {
                "SOCKET_TIMEOUT": 1.0,
                "SOCKET_CONNECT_TIMEOUT": 1.0,
                "CONNECTION_POOL_KWARGS": {"retry": Retry(NoBackoff(), 0)},
            },
        )
        self._limiter = lru_cache(maxsize=1000)(self._new_limiter)
        tell(True)

    async def take(self, key: Key, cost: int = 1) -> Verdict:
        if self._probing is None:
            limiter = self._limiter(key.rate, key.burst)
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    result = await limiter.limit(key.digest, cost)
            except _FAILURES as error:
                self._fall_back(error)
            else:
                state = result.state
                return Verdict(
                    allowed=not result.limited,
                    remaining=state.remaining,
                    reset_s=math.ceil(state.reset_after),
                    retry_after_s=max(1, math.ceil(state.retry_after)) if result.limited else 0,
                )
        return await self._own.take(key, cost)

    async def close(self) -> None:
        """Lets go of Redis."""
        if self._probing is not None:
            self._probing.cancel()

    def _new_limiter(self, rate: Rate, burst: int) -> Any:
        quota = per_duration(timedelta(seconds=rate.window_s), rate.requests, burst)
        return RateLimiterRegistry.get("gcra")(quota, self._store)

    def _fall_back(self, error: Exception) -> None:
        if self._probing is None:
            log.warning("redis lost: each worker limits by itself", cause=repr(error))
            self._tell(False)
            self._probing = asyncio.create_task(self._probe())

    async def _probe(self) -> None:
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await self._store.exists("tether")
                break
            except _FAILURES:
                continue
        log.info("redis is back: the limits are shared again")
        self._tell(True)
        self._probing = None
