"""Many events in one request (an addition to the reference)."""

import asyncio
from collections.abc import Callable
from tempfile import SpooledTemporaryFile
from typing import Any, TypeAlias

from falcon.asgi import Request, Response

from tether.api import requests
from tether.api.errors import status_of
from tether.bulk import MAX_BYTES, Unread, items_of, read_item
from tether.errors import RateLimited, TetherError, Unavailable
from tether.keys import Key
from tether.limits import Limiter
from tether.model import Event, to_json
from tether.store.store import Store

AT_ONCE = 2  # bodies in memory; the others wait on disk
PORTION = 1000  # events that are admitted together
TURN = 200  # events that are read before others are served: two milliseconds

Result = str | TetherError
Outcome: TypeAlias = "asyncio.Future[str] | TetherError"


class BulkResource:
    """`/events/bulk`: stores the good events of a body, and says of each what became of it."""

    def __init__(self, store: Store, limiter: Limiter, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._limiter = limiter
        self._now_ms = now_ms
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def on_post(self, req: Request, resp: Response) -> None:
        is_gzip = requests.is_gzipped(req)
        with SpooledTemporaryFile(requests.CHUNK_BYTES) as spool:
            async for chunk in requests.body_of(req, MAX_BYTES):
                spool.write(chunk)
            async with self._turn:
                spool.seek(0)
                body = spool.read()
                # Eight MiB take a while: others are served meanwhile.
                items = await asyncio.to_thread(_items_of, body, is_gzip=is_gzip)
                results = await self._store_all(requests.key_of(req), items)
        req.context.rejections = [result for result in results if not isinstance(result, str)]
        resp.data = to_json([_shown(result) for result in results])
        if waits := [r.retry_after_s for r in results if isinstance(r, RateLimited)]:
            resp.set_header("Retry-After", str(max(waits)))

    async def _store_all(self, key: Key, items: list[Unread]) -> list[Result]:
        """For each item the id of its event, or why it was not stored.

        While some events are being committed, the next ones are read.
        """
        outcomes: list[Outcome] = []
        for start in range(0, len(items), PORTION):
            portion = items[start : start + PORTION]
            # The gate has let the request in, and counted it as its first event.
            admitted, refusal = await self._admit(key, len(portion), paid=int(start == 0))
            failure = await self._add_all(key.partner, portion[:admitted], outcomes)
            if stop := failure or refusal:
                outcomes += [stop] * (len(items) - len(outcomes))
                break
        return await _settled(outcomes)

    async def _add_all(
        self, partner: int, items: list[Unread], outcomes: list[Outcome]
    ) -> Unavailable | None:
        """Passes them on, and puts the outcome of each to the others."""
        for start in range(0, len(items), TURN):
            now_ms = self._now_ms()
            for unread in items[start : start + TURN]:
                item = read_item(unread, now_ms)
                outcomes.append(
                    self._store.intake.add(partner, item) if isinstance(item, Event) else item
                )
            await asyncio.sleep(0)
            # What failed must not be overtaken: later events of a vehicle come after earlier ones.
            if failure := _failure(outcomes[-1]):
                return failure
        return None

    async def _admit(self, key: Key, count: int, paid: int) -> tuple[int, RateLimited | None]:
        """How many of so many events the key may report now, and what the others are told."""
        verdict = await self._limiter.take(key, count - paid)
        if verdict.allowed:
            return count, None
        admitted, rest = paid, min(verdict.remaining, count - paid - 1)
        if rest > 0 and (await self._limiter.take(key, rest)).allowed:
            admitted += rest
        one_more = await self._limiter.take(key, 1)
        admitted += one_more.allowed
        return admitted, RateLimited(max(1, one_more.retry_after_s))


def _items_of(body: bytes, *, is_gzip: bool) -> list[Unread]:
    return items_of(requests.gunzip(body, MAX_BYTES) if is_gzip else body)


def _failure(outcome: Outcome) -> Unavailable | None:
    """Why the database took neither this event nor those before it, if it is known already."""
    if isinstance(outcome, TetherError) or not outcome.done():
        return None
    error = outcome.exception()
    return error if isinstance(error, Unavailable) else None


async def _settled(outcomes: list[Outcome]) -> list[Result]:
    results: list[Result] = []
    for outcome in outcomes:
        try:
            results.append(outcome if isinstance(outcome, TetherError) else await outcome)
        except TetherError as error:
            results.append(error)
    return results


def _shown(result: Result) -> dict[str, Any]:
    if isinstance(result, str):
        return {"status": 201, "id": result}
    return {"status": status_of(result), "message": str(result)}
