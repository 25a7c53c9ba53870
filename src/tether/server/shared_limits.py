"""Rate limits in Redis or Valkey that all workers and nodes share, with the script of throttled-py.

A request never fails because of Redis and never waits long for it. If there is no answer in time,
this process counts the request itself. It then has one worker's share of the tokens that Redis
reported last. After such failures it does not use Redis until a probe succeeds. Requests that wait
share a round trip.
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
# A request that arrives during a round trip waits for its end. This counts as part of its timeout,
# but at least this much remains.
MIN_TIMEOUT_S = TIMEOUT_S / 4
PROBE_TIMEOUT_S = TIMEOUT_S / 2  # shorter: a slow Redis must not be found and lost again and again
LATE_IN_A_ROW = 4  # late answers after which Redis counts as lost
CONNECT_TIMEOUT_S = 1.0
PROBE_EVERY_S = 0.5
MAX_AT_ONCE = 100  # each takes Redis about ten microseconds, in which other clients wait
# The generic cell rate algorithm: a bucket of `burst` tokens that refills at the key's rate.
_SCRIPT = RedisLimitAtomicActionSpec.SCRIPTS
_ROUNDS = 3  # of the event loop: to send a request; to receive, read and pass on an answer

T = TypeVar("T")


def open_redis(url: str) -> "Redis":
    """A client for this URL, without a connection yet. Raises SetupError."""
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
    since_s: float


class SharedBuckets:
    """The buckets in Redis. The `local` buckets are used while Redis does not answer."""

    def __init__(self, redis: "Redis", local: TokenBuckets, on_use: Callable[[bool], None]) -> None:
        """`on_use` is called at each change, with whether Redis is in use."""
        self._redis = redis
        self._local = local
        self._on_use = on_use
        self._in_use = False
        self._waiting: list[_Take] = []
        self._sending: asyncio.Task[None] | None = None
        self._sha = ""
        self._late = 0
        on_use(False)
        self._probing = asyncio.create_task(self._probe())

    async def take(self, key: Key, cost: int = 1) -> Verdict:
        if self._in_use:
            loop = asyncio.get_running_loop()
            answer: asyncio.Future[Verdict | None] = loop.create_future()
            self._waiting.append(_Take(key, cost, answer, loop.time()))
            if self._sending is None:
                self._sending = asyncio.create_task(self._send_all())
            verdict = await answer
            if verdict is not None:
                return verdict
        return await self._local.take(key, cost)

    async def _send_all(self) -> None:
        while self._waiting:
            takes, self._waiting = self._waiting[:MAX_AT_ONCE], self._waiting[MAX_AT_ONCE:]
            verdicts: list[Verdict] | list[None]
            try:
                waited_s = asyncio.get_running_loop().time() - takes[0].since_s
                timeout_s = max(TIMEOUT_S - waited_s, MIN_TIMEOUT_S)
                verdicts = await _with_timeout(self._send(takes), timeout_s)
                self._late = 0
            except Exception as error:  # no request may fail because of Redis
                self._note_failure(error)
                takes, self._waiting = [*takes, *self._waiting], []
                verdicts = [None] * len(takes)
            for take, verdict in zip(takes, verdicts, strict=True):
                if verdict is not None:
                    self._local.cap(take.key, verdict.remaining)
                if not take.verdict.done():
                    take.verdict.set_result(verdict)
        self._sending = None

    async def _send(self, takes: list[_Take]) -> list[Verdict]:
        pipeline = self._redis.pipeline(transaction=False)
        for take in takes:
            rate, name = take.key.rate, f"tether:rate:{take.key.digest}"
            interval_s = rate.window_s / rate.requests
            pipeline.evalsha(self._sha, 1, name, str(interval_s), take.key.burst, take.cost)
        try:
            return [_verdict(*reply) for reply in await pipeline.execute()]
        except NoScriptError:  # Redis was restarted: none of the commands has run
            self._sha = await self._redis.script_load(_SCRIPT)
            return await self._send(takes)

    def _note_failure(self, error: Exception) -> None:
        self._late += 1
        if isinstance(error, TimeoutError) and self._late < LATE_IN_A_ROW:
            return
        self._late = 0
        log.warning("redis lost: each worker limits by itself", cause=repr(error))
        self._in_use = False
        self._on_use(False)
        self._probing = asyncio.create_task(self._probe())

    async def _probe(self) -> None:
        """Uses Redis again when it answers fast."""
        has_logged = bool(self._sha)
        while True:
            try:
                self._sha = await self._redis.script_load(_SCRIPT)
                await _with_timeout(self._redis.exists("tether"), PROBE_TIMEOUT_S)
                break
            except Exception as error:
                if not has_logged:
                    log.warning(
                        "redis not reached: each worker limits by itself", cause=repr(error)
                    )
                    has_logged = True
            await asyncio.sleep(PROBE_EVERY_S)
        log.info("redis is in use: the limits are shared")
        self._in_use = True
        self._on_use(True)


async def _with_timeout(answer: Awaitable[T], seconds: float) -> T:
    """The answer, if it arrives in time. Raises TimeoutError.

    The time starts when the request is sent. An answer that has arrived in time counts, even if
    this busy process has not read it yet.
    """
    reply = asyncio.ensure_future(answer)
    try:
        await _run_loop_rounds(reply)
        await asyncio.wait({reply}, timeout=seconds)
        await _run_loop_rounds(reply)
        if not reply.done():
            raise TimeoutError
        return reply.result()
    finally:
        reply.cancel()


async def _run_loop_rounds(reply: "asyncio.Future[T]") -> None:
    for _ in range(_ROUNDS):
        if not reply.done():
            await asyncio.sleep(0)


def _verdict(limited: int, remaining: int, reset_s: bytes, retry_s: bytes) -> Verdict:
    return Verdict(
        allowed=not limited,
        remaining=max(0, remaining),
        reset_s=math.ceil(float(reset_s)),
        retry_after_s=max(1, math.ceil(float(retry_s))) if limited else 0,
    )
