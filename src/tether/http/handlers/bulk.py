"""Many events in one request (an addition to the reference)."""

from collections import Counter
from collections.abc import Callable, Sequence
from tempfile import SpooledTemporaryFile
from typing import Any, TypeAlias

from falcon.asgi import Request, Response

from tether.domain.bulk_limits import MAX_BYTES
from tether.domain.errors import RateLimited, Refusal
from tether.domain.keys import Key
from tether.domain.models import Event, to_json
from tether.domain.rate_limits import Limiter
from tether.http import requests
from tether.http.errors import STATUS
from tether.ingest.bulk_reader import Item, read_items
from tether.ingest.event_batcher import WriteResult
from tether.ingest.turns import Places, Steps, in_turns
from tether.server.store import Store
from tether.storage.events import EventRow

SHOWN_AT_ONCE = 200
Doubts: TypeAlias = dict[int, list[str]]
"""The members whose unit is in doubt, by the place of their item."""


class BulkResource:
    """`/events/bulk`: stores the good events of a body, and says of each what became of it."""

    def __init__(self, store: Store, limiter: Limiter, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._limiter = limiter
        self._now_ms = now_ms
        self._arriving = Places(of_all=32, of_each=8)  # bodies on disk
        self._in_memory = Places(of_all=2, of_each=2)

    async def on_post(self, req: Request, resp: Response) -> None:
        key, is_gzip = requests.key_of(req), requests.is_gzipped(req)
        body = requests.body_at_hand(req)
        if body is not None:  # no others need be waited for that are long in coming
            results, doubts = await self._results(req, lambda: body, is_gzip=is_gzip)
        else:
            async with self._arriving.one(key.partner):
                with SpooledTemporaryFile(requests.CHUNK_BYTES) as spool:
                    async for part in requests.body_of(req, MAX_BYTES):
                        spool.write(part)
                    spool.seek(0)
                    results, doubts = await self._results(req, spool.read, is_gzip=is_gzip)
        requests.show_standing(resp, await self._limiter.take(key, 0))  # its events counted
        refusals = [result for result in results if isinstance(result, Refusal)]
        req.context.rejections = Counter(refusal.code for refusal in refusals)
        if wait_s := max((refusal.retry_after_s for refusal in refusals), default=0):
            resp.set_header("Retry-After", str(wait_s))
        resp.data = await in_turns(_answer(results, doubts))

    async def _results(
        self, req: Request, read: Callable[[], bytes], *, is_gzip: bool
    ) -> tuple[list[WriteResult], Doubts]:
        """For each item of the body the id of its event, or why it was not stored; and which of
        those that were have members whose unit is in doubt.

        Raises Unavailable if nothing can be stored now.
        """
        key = requests.key_of(req)
        async with self._in_memory.one(key.partner):
            body = read()
            if is_gzip:
                body = await in_turns(requests.gunzip(body, MAX_BYTES))
            items = await in_turns(read_items(body, self._now_ms()))
            req.context.events = len(items)
            results = await self._store_all(key, items)
            doubts = await self._doubts(key.partner, items, results)
            req.context.doubted = [name for names in doubts.values() for name in names]
            return results, doubts

    async def _store_all(self, key: Key, items: Sequence[Item]) -> list[WriteResult]:
        admitted, beyond = await self._admit(key, len(items))
        arrivals = await in_turns(self._arrivals(items[:admitted]))
        fates = iter(await self._store.batcher.add_all(key.partner, arrivals) if arrivals else ())
        results = [next(fates) if isinstance(one, Event) else one for one in items[:admitted]]
        return [*results, *[beyond] * (len(items) - admitted)]

    async def _doubts(
        self, partner: int, items: Sequence[Item], results: Sequence[WriteResult]
    ) -> Doubts:
        places, events = [], []
        for place, (item, result) in enumerate(zip(items, results, strict=True)):
            stored = isinstance(result, str)
            if stored and isinstance(item, Event) and (item.charge_power or item.charged_energy):
                places.append(place)
                events.append(item)
        found = await self._store.doubts.of_events(partner, events)
        return {place: names for place, names in zip(places, found, strict=True) if names}

    def _arrivals(self, items: Sequence[Item]) -> Steps[list[EventRow]]:
        arrivals = []
        for item in items:
            if isinstance(item, Event):
                arrivals.append(self._store.batcher.arrival(item))
                yield
        return arrivals

    async def _admit(self, key: Key, count: int) -> tuple[int, Refusal]:
        """How many of so many events the key may report now, and what the others are told.

        The gate has let the request in, and counted it as its first event.
        """
        verdict = await self._limiter.take(key, count - 1)
        if verdict.allowed:
            return count, RateLimited(0).refusal()
        admitted, rest = 1, min(verdict.remaining, count - 2)
        if rest > 0 and (await self._limiter.take(key, rest)).allowed:
            admitted += rest
        one_more = await self._limiter.take(key, 1)
        admitted += one_more.allowed
        return admitted, RateLimited(max(1, one_more.retry_after_s)).refusal()


def _answer(results: Sequence[WriteResult], doubts: Doubts) -> Steps[bytes]:
    parts = []
    for start in range(0, len(results), SHOWN_AT_ONCE):
        shown = [
            _shown(result, doubts.get(place, ()))
            for place, result in enumerate(results[start : start + SHOWN_AT_ONCE], start)
        ]
        parts.append(to_json(shown)[1:-1])
        yield
    return b"[" + b",".join(parts) + b"]"


def _shown(result: WriteResult, doubted: Sequence[str]) -> dict[str, Any]:
    if isinstance(result, str):
        warnings = [{"code": requests.UNIT, "parameter": name} for name in doubted]
        stored = {"status": 201, "id": result}
        return {**stored, "warnings": warnings} if warnings else stored
    shown = {
        "status": STATUS[result.code],
        "message": result.message,
        "code": result.code,
    }
    return shown if result.parameter is None else {**shown, "parameter": result.parameter}
