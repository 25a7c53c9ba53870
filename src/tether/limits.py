"""The rate limit of a key: a bucket that holds `burst` tokens and refills at the key's rate."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from tether.keys import Key


class Verdict(NamedTuple):
    """What the limiter says of one request."""

    allowed: bool
    remaining: int
    reset_s: int
    """Whole seconds until the bucket is full again."""
    retry_after_s: int
    """Whole seconds until a request would be allowed; 0 if this one was."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class TokenBuckets:
    """One bucket for each key, in the memory of this process."""

    def __init__(self, clock: Callable[[], float], most_keys: int = 100_000) -> None:
        self._clock = clock
        self._most_keys = most_keys
        self._buckets: dict[str, _Bucket] = {}

    def take(self, key: Key, cost: int = 1) -> Verdict:
        """Takes `cost` tokens of the key's bucket, if it has them."""
        now, rate = self._clock(), key.rate.per_second
        bucket = self._buckets.get(key.digest)
        if bucket is None:
            bucket = self._add(key, now)
        tokens = min(float(key.burst), bucket.tokens + (now - bucket.filled_at) * rate)
        allowed = tokens >= cost
        bucket.tokens = tokens - cost if allowed else tokens
        bucket.filled_at = now
        missing = 0.0 if allowed else cost - bucket.tokens
        return Verdict(
            allowed,
            remaining=int(bucket.tokens),
            reset_s=math.ceil((key.burst - bucket.tokens) / rate),
            retry_after_s=math.ceil(missing / rate),
        )

    def _add(self, key: Key, now: float) -> _Bucket:
        if len(self._buckets) >= self._most_keys:  # the oldest goes: its key had its rest
            del self._buckets[next(iter(self._buckets))]
        bucket = self._buckets[key.digest] = _Bucket(float(key.burst), now)
        return bucket
