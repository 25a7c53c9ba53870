"""Many events in one request (an addition to the reference)."""

import asyncio
from collections.abc import Callable, Iterator
from itertools import repeat
from tempfile import SpooledTemporaryFile
from typing import Any

from falcon.asgi import Request, Response

from tether.api import requests
from tether.api.errors import status_of
from tether.bulk import MAX_BYTES, Unread, items_of, read_item
from tether.errors import RateLimited, TetherError, Unavailable
from tether.keys import Key
from tether.limits import Limiter
from tether.model import Event, to_json
from tether.store.intake import Arrival
from tether.store.store import Store

AT_ONCE = 2  # bodies in memory; the others wait on disk
TURN = 200  # events that are read before others are served: two milliseconds

Result = str | TetherError


class BulkResource:
    """`/events/bulk`: stores the good events of a body, and says of each what became of it."""

    def __init__(self, store: Store, limiter: Limiter, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._limiter = limiter
        self._now_ms = now_ms
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def on_post(self, req: Request, resp: Response) -> None:
        key, is_gzip = requests.key_of(req), requests.is_gzipped(req)
        with SpooledTemporaryFile(requests.CHUNK_BYTES) as spool:
            async for chunk in requests.body_of(req, MAX_BYTES):
                spool.write(chunk)
            async with self._turn:
                spool.seek(0)
                body = spool.read()
                # Eight MiB take a while: others are served meanwhile.
                items = await asyncio.to_thread(_items_of, body, is_gzip=is_gzip)
                results = await self._store_all(key, items)
        requests.show_standing(resp, await self._limiter.take(key, 0))  # its events counted
        req.context.rejections = [type(r).__name__ for r in results if not isinstance(r, str)]
        resp.data = to_json([_shown(result) for result in results])
        if waits := [r.retry_after_s for r in results if isinstance(r, RateLimited)]:
            resp.set_header("Retry-After", str(max(waits)))

    async def _store_all(self, key: Key, items: list[Unread]) -> list[Result]:
        """For each item the id of its event, or why it was not stored."""
        admitted, refusal = await self._admit(key, len(items))
        arrivals: list[Arrival] = []
        results: list[Result | None] = []  # None for what is to be stored
        for start in range(0, admitted, TURN):
            now_ms = self._now_ms()
            for unread in items[start : min(start + TURN, admitted)]:
                item = read_item(unread, now_ms)
                if isinstance(item, Event):
                    arrivals.append(self._store.intake.arrival(item))
                    results.append(None)
                else:
                    results.append(item)
            await asyncio.sleep(0)
        fates = await self._fates(key.partner, arrivals)
        rest = [refusal] * (len(items) - admitted)
        return [next(fates) if result is None else result for result in [*results, *rest]]

    async def _fates(self, partner: int, arrivals: list[Arrival]) -> Iterator[Result]:
        """What became of each."""
        if not arrivals:
            return iter(())
        try:
            return iter(await self._store.intake.add_all(partner, arrivals))
        except Unavailable as error:
            return repeat(error)

    async def _admit(self, key: Key, count: int) -> tuple[int, RateLimited | None]:
        """How many of so many events the key may report now, and what the others are told.

        The gate has let the request in, and counted it as its first event.
        """
        verdict = await self._limiter.take(key, count - 1)
        if verdict.allowed:
            return count, None
        admitted, rest = 1, min(verdict.remaining, count - 2)
        if rest > 0 and (await self._limiter.take(key, rest)).allowed:
            admitted += rest
        one_more = await self._limiter.take(key, 1)
        admitted += one_more.allowed
        return admitted, RateLimited(max(1, one_more.retry_after_s))


def _items_of(body: bytes, *, is_gzip: bool) -> list[Unread]:
    return items_of(requests.gunzip(body, MAX_BYTES) if is_gzip else body)


def _shown(result: Result) -> dict[str, Any]:
    if isinstance(result, str):
        return {"status": 201, "id": result}
    return {"status": status_of(result), "message": str(result)}
