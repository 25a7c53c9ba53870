"""Authentication: whether a key is valid, its rate limit, and counts of its use."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import monotonic_ns, time_ns
from typing import NamedTuple, Protocol, TypeAlias

from tether.domain.errors import Forbidden, Unavailable
from tether.domain.keys import KEY_LENGTH, Key, Rate, digest_if_well_formed
from tether.domain.timestamps import HOUR_MS
from tether.storage.key_hours import SLOT_MS, Counts

log = logging.getLogger(__name__)  # not structlog: commands that make keys start faster

# The promise is that all servers know a revoked or changed key after 2 s at most.
CACHED_MS = 1_000
MAX_CACHED = 10_000
# Anybody can make up keys of the right form. Only so many keys that are not cached are looked up at
# once, so that cached keys do not wait behind them.
UNKNOWN_AT_ONCE = 4  # keys
LOOK_UP_TIMEOUT_S = 5.0  # for an unknown key to wait for its look-up
WRITE_USE_S = 10.0  # between two writes of the use of keys
MAX_COUNTED = 10_000  # keys

Uses: TypeAlias = "Mapping[str, tuple[int, str | None]]"  # ms since 1970 and address, by digest


class ForwardClock:
    """Milliseconds since 1970. It goes on steadily when the machine's clock is set back, so that an
    expired key does not work again. It follows a clock that is set forward.
    """

    def __init__(self) -> None:
        self._offset_ns = time_ns() - monotonic_ns()

    def __call__(self) -> int:
        passed_ns = monotonic_ns()
        now_ns = max(time_ns(), passed_ns + self._offset_ns)
        self._offset_ns = now_ns - passed_ns
        return now_ns // 1_000_000


class _CachedKey(NamedTuple):
    """A key, when it was read, and until when it needs no other check."""

    key: Key
    read_ms: int
    works_until_ms: float


class Authenticator:
    """Caches the keys that were used lately. Reads each of them again after a second.

    `now_ms` is a clock that does not go back.
    """

    def __init__(
        self, find: Callable[[str], Awaitable[Key | None]], now_ms: Callable[[], int]
    ) -> None:
        self._find = find
        self._now_ms = now_ms
        self._cached: dict[str, _CachedKey] = {}
        self._readings: dict[str, asyncio.Future[Key | None]] = {}
        self._unknown_slots = asyncio.Semaphore(UNKNOWN_AT_ONCE)

    async def authenticate(self, secret: str | None) -> Key:
        """The key. Raises Forbidden if it is missing, malformed, unknown, expired or revoked."""
        digest = _digest_of(secret)
        if digest is None:
            raise Forbidden
        now_ms = self._now_ms()
        cached = self._cached.get(digest)
        if cached is not None and now_ms < cached.works_until_ms:
            return cached.key
        if cached is None or now_ms - cached.read_ms >= CACHED_MS:
            # Shielded, because other requests wait for the same reading.
            key = await asyncio.shield(self._reading(digest, now_ms))
        else:
            key = cached.key
        if key is None or not key.works_at(now_ms):
            raise Forbidden
        return key

    def cached_key(self, secret: str) -> Key | None:
        """The cached key. It may not be valid any more."""
        cached = self._cached.get(_digest_of(secret) or "")
        return cached.key if cached else None

    def _reading(self, digest: str, now_ms: int) -> "asyncio.Future[Key | None]":
        """Reads the key from the store, once for all requests that wait for it.

        Otherwise every request under way would read a busy key again, and writes would wait behind
        these reads for a connection.
        """
        reading = self._readings.get(digest)
        if reading is None:
            reading = asyncio.ensure_future(self._read_now(digest, now_ms))
            self._readings[digest] = reading
            reading.add_done_callback(lambda _: self._readings.pop(digest))
        return reading

    async def _read_now(self, digest: str, now_ms: int) -> Key | None:
        if digest in self._cached:
            key = await self._find(digest)
        else:
            try:
                async with asyncio.timeout(LOOK_UP_TIMEOUT_S):
                    await self._unknown_slots.acquire()
            except TimeoutError as error:
                raise Unavailable from error
            try:
                key = await self._find(digest)
            finally:
                self._unknown_slots.release()
        self._cache(digest, now_ms, key)
        return key

    def _cache(self, digest: str, read_ms: int, key: Key | None) -> None:
        if key is None:  # unknown keys are not cached: anybody can make up millions
            self._cached.pop(digest, None)
            return
        if len(self._cached) >= MAX_CACHED:
            self._cached.clear()
        works_until_ms = min(key.works_until_ms, read_ms + CACHED_MS)
        self._cached[digest] = _CachedKey(key, read_ms, works_until_ms)


def _digest_of(secret: str | None) -> str | None:
    """The digest of a well-formed key. Anybody can send other texts, so they are not hashed."""
    if secret is None or len(secret) != KEY_LENGTH:
        return None
    try:
        return digest_if_well_formed(secret)
    except ValueError:
        return None


# Rate limits: a bucket holds `burst` tokens and refills at the key's rate -------------------------


class Verdict(NamedTuple):
    """The decision of a limiter about a request."""

    allowed: bool
    remaining: int
    reset_s: int
    """Whole seconds until the bucket is full again."""
    retry_after_s: int
    """Whole seconds until a request would be allowed; 0 if this one was."""


class Limited(Protocol):
    """A key or a client of the console, with a bucket of its own."""

    @property
    def digest(self) -> str: ...
    @property
    def rate(self) -> Rate: ...
    @property
    def burst(self) -> int: ...


class Limiter(Protocol):
    """Counts the requests of keys. It never fails: without Redis each process counts alone."""

    async def take(self, key: Key, cost: int = 1) -> Verdict:
        """Takes `cost` tokens of the key's bucket, if it has them."""


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class TokenBuckets:
    """The buckets of this process, which has its share of the rates if there are many `workers`."""

    def __init__(
        self, clock: Callable[[], float], workers: int = 1, max_keys: int = 100_000
    ) -> None:
        self._clock = clock
        self._workers = workers
        self._max_keys = max_keys
        self._buckets: dict[str, _Bucket] = {}

    async def take(self, key: Limited, cost: int = 1) -> Verdict:
        rate, size = self._share(key)
        bucket = self._filled(key, rate, size)
        allowed = bucket.tokens >= cost
        if allowed:
            bucket.tokens -= cost
        reset_s = math.ceil((size - bucket.tokens) / rate)
        retry_after_s = 0 if allowed else math.ceil((cost - bucket.tokens) / rate)
        return Verdict(allowed, int(bucket.tokens), reset_s, retry_after_s)

    def cap(self, key: Key, remaining: int) -> None:
        """Leaves this worker its share of the `remaining` tokens of all workers."""
        bucket = self._filled(key, *self._share(key))
        bucket.tokens = min(bucket.tokens, remaining / self._workers)

    def _share(self, key: Limited) -> tuple[float, float]:
        """Tokens per second and size of this bucket. The size is at least one request."""
        rate = key.rate
        per_second = rate.requests / (rate.window_s * self._workers)
        return per_second, max(key.burst / self._workers, 1.0)

    def _filled(self, key: Limited, rate: float, size: float) -> _Bucket:
        """The bucket after its refill since the last time."""
        now = self._clock()
        bucket = self._buckets.get(key.digest)
        if bucket is None:
            if len(self._buckets) >= self._max_keys:  # the oldest bucket is full again by now
                del self._buckets[next(iter(self._buckets))]
            bucket = self._buckets[key.digest] = _Bucket(size, now)
        bucket.tokens = min(size, bucket.tokens + (now - bucket.filled_at) * rate)
        bucket.filled_at = now
        return bucket


# The use of keys ----------------------------------------------------------------------------------


class _RunningCounts:
    """The counts of a key since the last write, and in the current window of its rate."""

    __slots__ = ("busiest", "calls", "events", "in_window", "limited", "refused", "window")

    def __init__(self) -> None:
        self.calls = self.refused = self.limited = self.events = self.busiest = 0
        self.window = self.in_window = 0

    def take(self, partner: int, key: str, hour: int) -> Counts:
        """Returns the counts to write and starts again from zero."""
        taken = Counts(
            partner, hour, key, self.calls, self.refused, self.limited, self.events, self.busiest
        )
        self.calls = self.refused = self.limited = self.events = self.busiest = 0
        return taken

    def give_back(self, taken: Counts) -> None:
        """Adds counts again that could not be written."""
        self.calls += taken.calls
        self.refused += taken.refused
        self.limited += taken.limited
        self.events += taken.events
        self.busiest = max(self.busiest, taken.busiest)


class KeyUse:
    """Records which keys are used, and counts their requests. No request waits for these writes.

    Records and counts that cannot be written are kept for the next write.
    """

    def __init__(
        self,
        write: Callable[[Uses], Awaitable[None]],
        add: Callable[[list[Counts], int], Awaitable[None]],
        now_ms: Callable[[], int],
    ) -> None:
        self._write = write
        self._add = add
        self._now_ms = now_ms
        self._used: dict[str, str | None] = {}
        self._unwritten: dict[str, tuple[int, str | None]] = {}
        self._counted: dict[tuple[int, str], _RunningCounts] = {}
        self._slot = 0

    def record(self, digest: str, client: str | None) -> None:
        """Records that the key was used, and the address of the client."""
        self._used[digest] = client

    def count(self, key: Key, at_s: float, cost: int, *, refused: bool, limited: bool) -> None:
        """Counts an answered request of the key. `cost` is how many tokens of its rate it took."""
        counted = self._of(key.partner, key.digest)
        counted.calls += 1
        counted.refused += refused
        counted.limited += limited
        window = int(at_s / key.rate.window_s)
        if window != counted.window:
            counted.window, counted.in_window = window, 0
        counted.in_window += cost
        if counted.in_window > counted.busiest:  # noqa: PLR1730 - max() takes longer
            counted.busiest = counted.in_window

    def count_events(self, partner: int, events: int) -> None:
        """Counts new events of the partner."""
        self._of(partner, "").events += events

    def _of(self, partner: int, key: str) -> _RunningCounts:
        counted = self._counted.get((partner, key))
        if counted is not None:
            return counted
        if len(self._counted) >= MAX_COUNTED:  # keys without new calls go
            busy = {
                of: counts for of, counts in self._counted.items() if counts.calls or counts.events
            }
            self._counted = busy
        counted = _RunningCounts()
        if len(self._counted) < MAX_COUNTED:
            self._counted[partner, key] = counted
        return counted

    async def run(self) -> None:
        """Writes the records and counts regularly, until it is cancelled."""
        while True:
            await asyncio.sleep(WRITE_USE_S)
            await self.write()

    async def write(self) -> None:
        """Writes the records and counts. If the database is unavailable, they are kept."""
        used, self._used = self._used, {}
        now_ms = self._now_ms()
        self._unwritten.update({digest: (now_ms, client) for digest, client in used.items()})
        try:
            if self._unwritten:
                await self._write(self._unwritten)
                self._unwritten = {}
            await self._write_counts(now_ms)
        except Unavailable:
            return
        except Exception as error:  # no reason to stop
            log.error("key use not written", exc_info=error)

    async def _write_counts(self, now_ms: int) -> None:
        hour, slot = now_ms // HOUR_MS, now_ms // SLOT_MS
        taken = [
            (running, running.take(partner, key, hour))
            for (partner, key), running in self._counted.items()
            if running.calls or running.events
        ]
        if not taken:
            return
        counts = [counts for _, counts in taken]
        if slot == self._slot:  # this slot already has a `busiest`, and the database adds them up
            counts = [of_key._replace(busiest=0) for of_key in counts]
        try:
            await self._add(counts, now_ms)
        except BaseException:
            for running, of_key in taken:
                running.give_back(of_key)
            raise
        self._slot = slot
