"""Many events, chargers or vehicles in one request (an addition to the reference)."""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import Any, TypeAlias, TypeVar

import msgspec
from falcon.asgi import Response

from tether.domain.errors import NotFound, RateLimited, Refusal, Unavailable
from tether.domain.keys import Key
from tether.domain.models import Charger, Event, Vehicle, to_json
from tether.domain.validation import MAX_BYTES
from tether.http import requests
from tether.http.handlers.entities import EntityResource, etag
from tether.http.middleware import set_rate_limit
from tether.http.requests import ApiRequest
from tether.ingest.bulk_reader import Items, entities, event_ids, events_at, read_items
from tether.ingest.json_reader import gunzip
from tether.ingest.unit_warnings import unlikely_members
from tether.server.authenticator import Limiter
from tether.server.status_codes import STATUS
from tether.server.store import Store
from tether.storage.audit import audit_entry
from tether.storage.engine import Statement
from tether.storage.log_positions import Epoch
from tether.storage.turns import in_steps, map_in_steps

MAX_REFUSED_SHOWN = 10  # refused items that the console shows
E = TypeVar("E", Charger, Vehicle)
Result: TypeAlias = dict[str, Any] | Refusal  # of an item, for the answer
StoreAll: TypeAlias = Callable[[Sequence[Any]], Awaitable[Sequence[Result]]]


class Bulk:
    """Answers a request with many items: the answer has a result for each item.

    All resources share one object, because it limits how many bodies are read at once.
    """

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self._on_disk = requests.body_turns(32, 8)
        self._in_memory = requests.body_turns(3, 2)

    async def answer(self, req: ApiRequest, resp: Response, items: Items, store: StoreAll) -> None:
        """Stores the valid items of the body with `store`, which returns a result for each.

        Raises the errors of `store`, of `read_items` and of reading the body.
        """
        key, is_gzip = requests.key_of(req), requests.is_gzipped(req)
        body = req.buffered_body()
        if body is not None:  # it needs no turn among the bodies that are still arriving
            results = await self._results(req, lambda: body, items, store, is_gzip=is_gzip)
        else:
            async with self._on_disk.of(key.partner):
                with SpooledTemporaryFile(requests.CHUNK_BYTES) as spool:
                    async for part in requests.body_of(req, MAX_BYTES):
                        spool.write(part)
                    spool.seek(0)
                    results = await self._results(req, spool.read, items, store, is_gzip=is_gzip)
        set_rate_limit(resp, await self._limiter.take(key, 0))  # after its items took tokens
        refused = [
            (n, result) for n, result in enumerate(results, 1) if isinstance(result, Refusal)
        ]
        refusals = [refusal for _, refusal in refused]
        req.context.refused_items = refused[:MAX_REFUSED_SHOWN]
        req.context.rejections = Counter(refusal.code for refusal in refusals)
        if wait_s := max((refusal.retry_after_s for refusal in refusals), default=0):
            resp.set_header("Retry-After", str(wait_s))
        resp.data = b"[%b]" % b",".join(await map_in_steps(_encode, results))

    async def _results(
        self,
        req: ApiRequest,
        read: Callable[[], bytes],
        items: Items,
        store: StoreAll,
        *,
        is_gzip: bool,
    ) -> list[Result]:
        key = requests.key_of(req)
        async with self._in_memory.of(key.partner):
            body = read()
            if is_gzip:
                body = await in_steps(gunzip(body, MAX_BYTES))
            found = await in_steps(read_items(body, items))
            req.context.in_bulk = len(found)
            admitted, beyond = await self._admit(key, len(found))
            good = [item for item in found[:admitted] if not isinstance(item, Refusal)]
            added = iter(await store(good) if good else ())
            results = [
                item if isinstance(item, Refusal) else next(added) for item in found[:admitted]
            ]
            req.context.warned = [
                warning["parameter"]
                for result in results
                if isinstance(result, dict)
                for warning in result.get("warnings", ())
            ]
            return [*results, *[beyond] * (len(found) - admitted)]

    async def _admit(self, key: Key, count: int) -> tuple[int, Refusal]:
        """How many of `count` items the key may send now, and the refusal of the others.

        The middleware has counted the request itself, which counts as the first item.
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


class EventBulkResource:
    """`/events/bulk`: many events, each as in `POST /events`."""

    def __init__(self, bulk: Bulk, store: Store, now_ms: Callable[[], int]) -> None:
        self._bulk = bulk
        self._store = store
        self._now_ms = now_ms

    async def on_post(self, req: ApiRequest, resp: Response) -> None:
        async def store(events: Sequence[Any]) -> Sequence[Result]:
            rows = await map_in_steps(self._store.batcher.row_of, events)
            partner = req.context.partner
            results: list[Result] = [
                id if isinstance(id, Refusal) else {"status": 201, "id": id}
                for id in await self._store.batcher.add_all(partner, rows)
            ]
            await self._warn(partner, events, results)
            return results

        await self._bulk.answer(req, resp, events_at(self._now_ms()), store)

    async def _warn(self, partner: int, events: Sequence[Event], results: Sequence[Result]) -> None:
        """Adds warnings to the results of stored events with an unlikely unit."""
        stored = [
            (event, result)
            for event, result in zip(events, results, strict=True)
            if isinstance(result, dict) and (event.charge_power or event.charged_energy)
        ]
        warned = await self._store.unit_warnings.of_events(partner, [event for event, _ in stored])
        for (_, result), members in zip(stored, warned, strict=True):
            result.update(_warnings(members))


class WithdrawResource:
    """`/events/withdraw`: withdraws many events by their ids, each like `DELETE /events/{id}`."""

    def __init__(self, bulk: Bulk, store: Store, now_ms: Callable[[], int]) -> None:
        self._bulk = bulk
        self._store = store
        self._now_ms = now_ms

    async def on_post(self, req: ApiRequest, resp: Response) -> None:
        partner, by = req.context.partner, requests.actor_of(req)

        def audited(found: list[str]) -> Statement:
            many = {"events": len(found)}
            return audit_entry(partner, self._now_ms(), by, "event.withdraw", found[0], after=many)

        async def withdraw(ids: Sequence[str]) -> Sequence[Result]:
            results: list[Result] = []
            withdrawals = self._store.withdrawals.withdraw(partner, ids, audited=audited)
            try:
                async for known in withdrawals:
                    done = zip(ids[len(results) :], known, strict=False)
                    results += [
                        {"status": 204, "id": id} if is_known else NotFound().refusal()
                        for id, is_known in done
                    ]
                    await self._store.projector.apply_backpressure(partner, len(known))
            except Unavailable as error:
                if not results:
                    raise
                results += [error.refusal()] * (len(ids) - len(results))
            return results

        await self._bulk.answer(req, resp, event_ids(), withdraw)


class EntityBulkResource(EntityResource[E]):
    """`/chargers/bulk`, `/vehicles/bulk`: many entities, each as in a PUT.

    For other methods the path means the entity with the id `bulk`.
    """

    def __init__(self, kind: type[E], bulk: Bulk, store: Store, now_ms: Callable[[], int]) -> None:
        super().__init__(kind, store, now_ms)  # type: ignore[arg-type]  # mypy loses E here
        self._items = entities(kind)
        self._bulk = bulk

    async def on_post(self, req: ApiRequest, resp: Response) -> None:
        async def store(entities: Sequence[Any]) -> Sequence[Result]:
            epoch = await self._store.epochs.current()
            versions = await self._store.entities.put_all(req.context.partner, entities)
            return await map_in_steps(partial(_saved, epoch=epoch), entities, versions)

        await self._bulk.answer(req, resp, self._items, store)


def _saved(entity: Charger | Vehicle, version: int | Refusal, epoch: Epoch) -> Result:
    if isinstance(version, Refusal):
        return version
    status = 201 if version == 1 else 200
    members = unlikely_members(type(entity), msgspec.structs.asdict(entity))
    stored = {"status": status, "id": entity.id, "etag": etag(version, epoch)}
    return stored | _warnings(members)


def _warnings(members: Sequence[str]) -> dict[str, Any]:
    """The warnings about these members with an unlikely unit; empty without members."""
    warnings = [{"code": requests.UNIT, "parameter": name} for name in members]
    return {"warnings": warnings} if warnings else {}


def _encode(result: Result) -> bytes:
    if not isinstance(result, Refusal):
        return to_json(result)
    view = {"status": STATUS[result.code], "message": result.message, "code": result.code}
    return to_json(view if result.parameter is None else {**view, "parameter": result.parameter})
