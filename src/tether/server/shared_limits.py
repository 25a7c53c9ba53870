"""Rate limits that all workers and nodes share, in Redis or Valkey, by the script of throttled-py.

A request never fails or waits long for Redis: whoever gets no answer in time counts in this
process, which has the share of one worker of what Redis said last, and a Redis that is lost is left
alone until it is known to answer again.
Requests that wait are asked about together: under load one round trip serves many.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError
from throttled.rate_limiter.gcra import RedisLimitAtomicActionSpec

from tether.domain.errors import SetupError
from tether.domain.keys import Key
from tether.server.authenticator import TokenBuckets, Verdict

log = structlog.get_logger()

TIMEOUT_S = 0.04  # a healthy Redis answers in a millisecond
# Who comes while others are asked about waits for their answer too: that is taken off his own time.
LEAST_S = TIMEOUT_S / 4
BACK_IN_S = TIMEOUT_S / 2  # a Redis that is just too slow is not lost and found all the time
LATE_IN_A_ROW = 4  # answers that are too late mean that it is lost; one can happen
CONNECT_TIMEOUT_S = 1.0
PROBE_EVERY_S = 0.5
MOST_AT_ONCE = 100  # the script takes Redis some ten microseconds, and others wait meanwhile
# The generic cell rate algorithm: a bucket of `burst` tokens that refills at the key's rate.
_SCRIPT = RedisLimitAtomicActionSpec.SCRIPTS
_PASSES = 3  # of the event loop: to send a request; to see an answer, to read it, to hand it on

T = TypeVar("T")


def open_redis(url: str) -> "Redis":
    """A client for this URL, not yet connected. Raises SetupError."""
    try:
        return Redis.from_url(
            url,
            socket_timeout=CONNECT_TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError:
        raise SetupError(
            "The URL of Redis cannot be read: write redis://host:6379/0, or rediss:// for TLS."
        ) from None


@dataclass(slots=True, eq=False)
class _Take:
    key: Key
    cost: int
    verdict: "asyncio.Future[Verdict | None]"
    since: float


class SharedBuckets:
    """The buckets in Redis; `own` counts while Redis cannot be reached."""

    def __init__(self, redis: "Redis", own: TokenBuckets, tell: Callable[[bool], None]) -> None:
        """`tell` is told whether Redis is in use whenever that changes."""
        self._redis = redis
        self._own = own
        self._tell = tell
        self._in_use = False
        self._waiting: list[_Take] = []
        self._asking: asyncio.Task[None] | None = None
        self._sha = ""
        self._late = 0
        tell(False)
        self._probing = asyncio.create_task(self._probe())

    async def take(self, key: Key, cost: int = 1) -> Verdict:
        if self._in_use:
            loop = asyncio.get_running_loop()
            answer: asyncio.Future[Verdict | None] = loop.create_future()
            self._waiting.append(_Take(key, cost, answer, loop.time()))
            if self._asking is None:
                self._asking = asyncio.create_task(self._ask_for_all())
            verdict = await answer
            if verdict is not None:
                return verdict
        return await self._own.take(key, cost)

    async def _ask_for_all(self) -> None:
        while self._waiting:
            takes, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
            verdicts: list[Verdict] | list[None]
            try:
                waited_s = asyncio.get_running_loop().time() - takes[0].since
                verdicts = await _soon(self._ask(takes), max(TIMEOUT_S - waited_s, LEAST_S))
                self._late = 0
            except Exception as error:  # whatever it is, no request may fail for it
                self._doubt(error)
                takes, self._waiting = [*takes, *self._waiting], []
                verdicts = [None] * len(takes)
            for take, verdict in zip(takes, verdicts, strict=True):
                if verdict is not None:
                    self._own.cap(take.key, verdict.remaining)
                if not take.verdict.done():
                    take.verdict.set_result(verdict)
        self._asking = None

    async def _ask(self, takes: list[_Take]) -> list[Verdict]:
        pipeline = self._redis.pipeline(transaction=False)
        for take in takes:
            rate, name = take.key.rate, f"tether:rate:{take.key.digest}"
            interval_s = rate.window_s / rate.requests
            pipeline.evalsha(self._sha, 1, name, str(interval_s), take.key.burst, take.cost)
        try:
            return [_verdict(*reply) for reply in await pipeline.execute()]
        except NoScriptError:  # Redis was restarted, and none of them has run
            self._sha = await self._redis.script_load(_SCRIPT)
            return await self._ask(takes)

    def _doubt(self, error: Exception) -> None:
        self._late += 1
        if isinstance(error, TimeoutError) and self._late < LATE_IN_A_ROW:
            return
        self._late = 0
        log.warning("redis lost: each worker limits by itself", cause=repr(error))
        self._in_use = False
        self._tell(False)
        self._probing = asyncio.create_task(self._probe())

    async def _probe(self) -> None:
        """Goes back to Redis when it answers, and soon."""
        complained = bool(self._sha)
        while True:
            try:
                self._sha = await self._redis.script_load(_SCRIPT)
                await _soon(self._redis.exists("tether"), BACK_IN_S)
                break
            except Exception as error:
                if not complained:
                    log.warning(
                        "redis not reached: each worker limits by itself", cause=repr(error)
                    )
                    complained = True
            await asyncio.sleep(PROBE_EVERY_S)
        log.info("redis is in use: the limits are shared")
        self._in_use = True
        self._tell(True)


async def _soon(answer: Awaitable[T], seconds: float) -> T:
    """The answer, if it is here in time. Raises TimeoutError.

    The time begins when the request is sent. When this process is busy, it runs out while the
    answer waits to be read: that is no reason to give up.
    """
    asked = asyncio.ensure_future(answer)
    try:
        await _passes(asked)
        await asyncio.wait({asked}, timeout=seconds)
        await _passes(asked)
        if not asked.done():
            raise TimeoutError
        return asked.result()
    finally:
        asked.cancel()


async def _passes(asked: "asyncio.Future[T]") -> None:
    for _ in range(_PASSES):
        if not asked.done():
            await asyncio.sleep(0)


def _verdict(limited: int, remaining: int, reset_s: bytes, retry_s: bytes) -> Verdict:
    return Verdict(
        allowed=not limited,
        remaining=max(0, remaining),
        reset_s=math.ceil(float(reset_s)),
        retry_after_s=max(1, math.ceil(float(retry_s))) if limited else 0,
    )
