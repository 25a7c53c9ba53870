"""The rate limit of a key: a bucket that holds `burst` tokens and refills at the key's rate."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tether.domain.keys import Key


class Verdict(NamedTuple):
    """What a limiter says of one request."""

    allowed: bool
    remaining: int
    reset_s: int
    """Whole seconds until the bucket is full again."""
    retry_after_s: int
    """Whole seconds until a request would be allowed; 0 if this one was."""


class Limiter(Protocol):
    """Counts what the keys do. It never fails: when in doubt it counts by itself."""

    async def take(self, key: Key, cost: int = 1) -> Verdict:
        """Takes `cost` tokens of the key's bucket, if it has them."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class TokenBuckets:
    """The buckets in the memory of this process: of `workers` processes each holds its share."""

    def __init__(
        self, clock: Callable[[], float], workers: int = 1, most_keys: int = 100_000
    ) -> None:
        self._clock = clock
        self._workers = workers
        self._most_keys = most_keys
        self._buckets: dict[str, _Bucket] = {}

    async def take(self, key: Key, cost: int = 1) -> Verdict:
        rate, size = self._share(key)
        bucket = self._filled(key, rate, size)
        allowed = bucket.tokens >= cost
        if allowed:
            bucket.tokens -= cost
        reset_s = math.ceil((size - bucket.tokens) / rate)
        retry_after_s = 0 if allowed else math.ceil((cost - bucket.tokens) / rate)
        return Verdict(allowed, int(bucket.tokens), reset_s, retry_after_s)

    def cap(self, key: Key, remaining: int) -> None:
        """All workers together have no more than that left: here is no more than its share."""
        bucket = self._filled(key, *self._share(key))
        bucket.tokens = min(bucket.tokens, remaining / self._workers)

    def _share(self, key: Key) -> tuple[float, float]:
        """Rate a second and size of the bucket here; at least 1, else nothing would be let in."""
        return key.rate.per_second / self._workers, max(key.burst / self._workers, 1.0)

    def _filled(self, key: Key, rate: float, size: float) -> _Bucket:
        """The bucket with what it has regained since it was looked at."""
        now = self._clock()
        bucket = self._buckets.get(key.digest)
        if bucket is None:
            return self._add(key.digest, _Bucket(size, now))
        bucket.tokens = min(size, bucket.tokens + (now - bucket.filled_at) * rate)
        bucket.filled_at = now
        return bucket

    def _add(self, digest: str, bucket: _Bucket) -> _Bucket:
        if len(self._buckets) >= self._most_keys:  # the oldest goes: its key had its rest
            del self._buckets[next(iter(self._buckets))]
        self._buckets[digest] = bucket
        return bucket
