"""How often somebody may ask the console for something."""

import time
from typing import NamedTuple

from tether.domain.errors import RateLimited
from tether.domain.keys import Rate
from tether.server.authenticator import TokenBuckets


class _Counted(NamedTuple):
    digest: str
    rate: Rate
    burst: int


class RateLimit:
    """So often may each of those whom a text tells apart; all workers together."""

    def __init__(self, rate: Rate, burst: int, workers: int) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets = TokenBuckets(time.monotonic, workers, most_keys=10_000)

    async def check(self, who: str) -> None:
        """Raises RateLimited if this one asked too often."""
        verdict = await self._buckets.take(_Counted(who, self._rate, self._burst))
        if not verdict.allowed:
            raise RateLimited(verdict.retry_after_s)
