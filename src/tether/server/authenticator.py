"""Recognises keys: which request carries which key, whether it works, how often it may be used, and
when it was used last.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import monotonic_ns, time_ns
from typing import NamedTuple, Protocol, TypeAlias

from tether.domain.errors import Forbidden, Unavailable
from tether.domain.keys import KEY_LENGTH, Key, Rate, digest_if_well_formed
from tether.storage.key_hours import HOUR_MS, SLOT_MS, Counts

log = logging.getLogger(__name__)  # a command that makes keys need not load more

# A revoked or changed key is known everywhere after at most 2 s; half of that leaves room.
REMEMBERED_MS = 1_000
MOST_REMEMBERED = 10_000
# Anybody can make up keys of the right form. So many that are not remembered are looked up at once:
# those that are do not wait behind them.
STRANGE_AT_ONCE = 4
PATIENCE_S = 5.0
USE_WRITTEN_S = 10.0
MOST_COUNTED = 10_000  # keys

Uses: TypeAlias = "Mapping[str, tuple[int, str | None]]"  # ms since 1970 and address, by digest


class ForwardClock:
    """Milliseconds since 1970, which go on as time does when the machine's clock is set back.

    Else a key that has expired would work again. A clock that is set forward is followed.
    """

    def __init__(self) -> None:
        self._offset_ns = time_ns() - monotonic_ns()

    def __call__(self) -> int:
        passed_ns = monotonic_ns()
        now_ns = max(time_ns(), passed_ns + self._offset_ns)
        self._offset_ns = now_ns - passed_ns
        return now_ns // 1_000_000


class _Remembered(NamedTuple):
    """A key as it was read, and up to when it is let in without more ado."""

    key: Key
    read_ms: int
    works_until_ms: float


class Authenticator:
    """The keys that were used lately, read again from the store every second.

    `now_ms` is a clock that does not go back.
    """

    def __init__(
        self, find: Callable[[str], Awaitable[Key | None]], now_ms: Callable[[], int]
    ) -> None:
        self._find = find
        self._now_ms = now_ms
        self._remembered: dict[str, _Remembered] = {}
        self._readings: dict[str, asyncio.Future[Key | None]] = {}
        self._strange = asyncio.Semaphore(STRANGE_AT_ONCE)

    async def recognise(self, secret: str | None) -> Key:
        """The key. Raises Forbidden if it is missing, malformed, unknown, expired or revoked."""
        # Anybody can send this: nothing is made or kept of what is no key.
        if secret is None or len(secret) != KEY_LENGTH:
            raise Forbidden
        try:
            digest = digest_if_well_formed(secret)
        except ValueError:
            raise Forbidden from None
        now_ms = self._now_ms()
        known = self._remembered.get(digest)
        if known is not None and now_ms < known.works_until_ms:
            return known.key
        if known is None or now_ms - known.read_ms >= REMEMBERED_MS:
            # Whoever gives up takes it from nobody else.
            key = await asyncio.shield(self._reading(digest, now_ms))
        else:
            key = known.key
        if key is None or not key.works_at(now_ms):
            raise Forbidden
        return key

    def partner_of(self, secret: str) -> int | None:
        """Whose key it was when it was used last, if that is remembered. It may work no more."""
        key = self.remembered(secret)
        return key.partner if key else None

    def remembered(self, secret: str) -> Key | None:
        """The key as it was read last, if that was lately. It may work no more."""
        if len(secret) != KEY_LENGTH:
            return None
        try:
            known = self._remembered.get(digest_if_well_formed(secret))
        except ValueError:
            return None
        return known.key if known else None

    def _reading(self, digest: str, now_ms: int) -> "asyncio.Future[Key | None]":
        """The key from the store, which is asked once by all who want to know it at that time.

        Else every request under way would ask when a busy key is to be read again, and the writes
        would wait behind them for a connection.
        """
        reading = self._readings.get(digest)
        if reading is None:
            reading = asyncio.ensure_future(self._read_now(digest, now_ms))
            self._readings[digest] = reading
            reading.add_done_callback(lambda _: self._readings.pop(digest))
        return reading

    async def _read_now(self, digest: str, now_ms: int) -> Key | None:
        if digest in self._remembered:
            key = await self._find(digest)
        else:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._strange.acquire()
            except TimeoutError as error:
                raise Unavailable from error
            try:
                key = await self._find(digest)
            finally:
                self._strange.release()
        self._remember(digest, now_ms, key)
        return key

    def _remember(self, digest: str, read_ms: int, key: Key | None) -> None:
        if key is None:  # unknown keys are not remembered: anybody can make up millions
            self._remembered.pop(digest, None)
            return
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.clear()
        works_until_ms = min(key.works_until_ms, read_ms + REMEMBERED_MS)
        self._remembered[digest] = _Remembered(key, read_ms, works_until_ms)


# The rate limit: a bucket that holds `burst` tokens and refills at the key's rate -----------------


class Verdict(NamedTuple):
    """What a limiter says of one request."""

    allowed: bool
    remaining: int
    reset_s: int
    """Whole seconds until the bucket is full again."""
    retry_after_s: int
    """Whole seconds until a request would be allowed; 0 if this one was."""


class Limited(Protocol):
    """What has a bucket of its own: a key, or whoever else is limited."""

    @property
    def digest(self) -> str: ...
    @property
    def rate(self) -> Rate: ...
    @property
    def burst(self) -> int: ...


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
        """All workers together have no more than that left: here is no more than its share."""
        bucket = self._filled(key, *self._share(key))
        bucket.tokens = min(bucket.tokens, remaining / self._workers)

    def _share(self, key: Limited) -> tuple[float, float]:
        """Rate a second and size of the bucket here; at least 1, else nothing would be let in."""
        rate = key.rate
        per_second = rate.requests / (rate.window_s * self._workers)
        return per_second, max(key.burst / self._workers, 1.0)

    def _filled(self, key: Limited, rate: float, size: float) -> _Bucket:
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


# What keys are used for ---------------------------------------------------------------------------


class _Counted:
    """What a key did since it was written last, and in the window of its rate that goes on."""

    __slots__ = ("busiest", "calls", "events", "in_window", "limited", "refused", "window")

    def __init__(self) -> None:
        self.calls = self.refused = self.limited = self.events = self.busiest = 0
        self.window = self.in_window = 0

    def take(self, partner: int, key: str, hour: int) -> Counts:
        """What is to be written; it counts anew."""
        taken = Counts(
            partner, hour, key, self.calls, self.refused, self.limited, self.events, self.busiest
        )
        self.calls = self.refused = self.limited = self.events = self.busiest = 0
        return taken

    def give_back(self, taken: Counts) -> None:
        """It could not be written."""
        self.calls += taken.calls
        self.refused += taken.refused
        self.limited += taken.limited
        self.events += taken.events
        self.busiest = max(self.busiest, taken.busiest)


class KeyUse:
    """Notes which keys are used, and counts what they do. No request waits for it to be written.

    What cannot be written is kept and tried again.
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
        self._noted: dict[str, str | None] = {}
        self._unwritten: dict[str, tuple[int, str | None]] = {}
        self._counted: dict[tuple[int, str], _Counted] = {}
        self._slot = 0

    def note(self, digest: str, client: str | None) -> None:
        """The key is used now, from this address."""
        self._noted[digest] = client

    def count(self, key: Key, at_s: float, cost: int, *, refused: bool, limited: bool) -> None:
        """A call of the key has its answer, and used so much of its rate at this instant."""
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

    def stored(self, partner: int, events: int) -> None:
        """So many new events of the partner were stored."""
        self._of(partner, "").events += events

    def _of(self, partner: int, key: str) -> _Counted:
        counted = self._counted.get((partner, key))
        if counted is not None:
            return counted
        if len(self._counted) >= MOST_COUNTED:  # those go that did nothing since
            busy = {of: one for of, one in self._counted.items() if one.calls or one.events}
            self._counted = busy
        counted = _Counted()
        if len(self._counted) < MOST_COUNTED:
            self._counted[partner, key] = counted
        return counted

    async def keep_writing(self) -> None:
        """Writes what was noted, again and again."""
        while True:
            await asyncio.sleep(USE_WRITTEN_S)
            await self.write()

    async def write(self) -> None:
        """Writes what was noted and counted, if that is possible."""
        noted, self._noted = self._noted, {}
        now_ms = self._now_ms()
        self._unwritten.update({digest: (now_ms, client) for digest, client in noted.items()})
        try:
            if self._unwritten:
                await self._write(self._unwritten)
                self._unwritten = {}
            await self._write_counts(now_ms)
        except Unavailable:
            return
        except Exception as error:  # a note is worth no failure
            log.error("key use not written", exc_info=error)

    async def _write_counts(self, now_ms: int) -> None:
        hour, slot = now_ms // HOUR_MS, now_ms // SLOT_MS
        taken = [
            (one, one.take(partner, key, hour))
            for (partner, key), one in self._counted.items()
            if one.calls or one.events
        ]
        if not taken:
            return
        counts = [counts for _, counts in taken]
        if slot == self._slot:  # else what it used would be added to what it used just before
            counts = [one._replace(busiest=0) for one in counts]
        try:
            await self._add(counts, now_ms)
        except BaseException:
            for one, counts_of_one in taken:
                one.give_back(counts_of_one)
            raise
        self._slot = slot
