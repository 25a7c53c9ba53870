"""Chargers and vehicles over HTTP: the same handlers serve both."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

import msgspec
from falcon.asgi import Response

from tether.domain.errors import Invalid, NotFound, PreconditionFailed
from tether.domain.models import Charger, Vehicle, is_entity_id, to_json
from tether.domain.validation import changes_of, new_entity, patched_entity
from tether.domain.views import ChargerState, VehicleState
from tether.http import pagination, requests
from tether.http.requests import ApiRequest
from tether.ingest.unit_warnings import unlikely_members
from tether.server.store import Store
from tether.storage.audit import audit_entry
from tether.storage.erasures import Erasure
from tether.storage.log_positions import Epoch
from tether.storage.turns import TimeSlice

LIST_PARAMETERS = ("limit", "cursor", "include", "stale")
STATES_AT_ONCE = 20  # the state of a charger has up to 100 vehicles
MAX_BYTES = 2_000_000
BULK = "bulk"  # also an id: the path `/chargers/bulk` has no other
E = TypeVar("E", Charger, Vehicle)


StatesOf: TypeAlias = Callable[
    [int, Sequence[str]], Awaitable[Sequence[ChargerState] | Sequence[VehicleState]]
]
"""Takes a partner and the ids of entities. Returns the current state of each."""


class EntityResource(Generic[E]):
    """One charger or vehicle: `/chargers/{id}`, `/vehicles/{id}`."""

    def __init__(self, kind: type[E], store: Store, now_ms: Callable[[], int]) -> None:
        self._kind: type[E] = kind
        self._store = store
        self._now_ms = now_ms

    async def on_get(self, req: ApiRequest, resp: Response, id: str = BULK) -> None:
        entity_id = requests.id_to_read(id)
        epoch = await self._store.epochs.current()
        stored = await self._store.entities.get(self._kind, req.context.partner, entity_id)
        tag = etag(stored.version, epoch)
        resp.set_header("ETag", tag)
        if is_known_to_client(req, tag):
            resp.status = 304
        else:
            resp.data = stored.body

    async def on_put(self, req: ApiRequest, resp: Response, id: str = BULK) -> None:
        entity_id = requests.id_to_write(id)
        entity = new_entity(self._kind, entity_id, await requests.read_document(req))
        epoch = await self._store.epochs.current()
        version = await self._put(req, entity, epoch)
        resp.set_header("ETag", etag(version, epoch))
        requests.warn_of(req, resp, unlikely_members(self._kind, msgspec.structs.asdict(entity)))
        if version == 1:
            resp.status = 201
            resp.data = to_json({"id": entity_id})
        else:
            resp.data = b""

    async def on_delete(self, req: ApiRequest, resp: Response, id: str = BULK) -> None:
        entity_id, partner = requests.id_to_read(id), req.context.partner
        query = pagination.query_of(req, ("events",))
        if query.get("events", "erase") != "erase":
            raise Invalid("events", "It must be erase, or left out.")
        req.context.is_kept = "events" not in query  # it would name the erased entity
        version = 0
        if is_conditional(req):
            epoch = await self._store.epochs.current()
            version = (await self._store.entities.get(self._kind, partner, entity_id)).version
            check_version(req, etag(version, epoch))
        one, now_ms = self._kind.__name__.lower(), self._now_ms()
        by = requests.actor_of(req)
        if entity_id in by.request_id:  # the client may choose it
            by = by._replace(request_id="")
        is_person = self._kind is Vehicle  # its id must not stay anywhere
        entry = audit_entry(
            partner, now_ms, by,
            f"{one}.erase" if "events" in query else f"{one}.delete",
            one if is_person or "events" in query else entity_id,
        )  # fmt: skip
        done = await self._store.erasing.erase(
            Erasure(partner, f"{one}s", entity_id), now_ms, [entry],
            with_events="events" in query, version=version,
        )  # fmt: skip
        req.context.is_kept = False
        resp.status = 204 if done else 202

    async def _put(self, req: ApiRequest, entity: E, epoch: Epoch) -> int:
        partner = req.context.partner
        if not is_conditional(req):
            return await self._store.entities.put(partner, entity)
        try:
            current = await self._store.entities.get(self._kind, partner, entity.id)
        except NotFound:
            if must_exist(req):
                raise PreconditionFailed from None
            return await self._store.entities.create(partner, entity)
        check_version(req, etag(current.version, epoch))
        return await self._store.entities.replace(partner, entity, current.version)

    async def on_patch(self, req: ApiRequest, resp: Response, id: str = BULK) -> None:
        entity_id = requests.id_to_write(id)
        partner = req.context.partner
        changes = changes_of(self._kind, entity_id, await requests.read_document(req))
        epoch = await self._store.epochs.current()

        def patch(version: int, entity: E) -> E:
            check_version(req, etag(version, epoch))
            return patched_entity(entity, changes)

        version = await self._store.entities.patch(self._kind, partner, entity_id, patch)
        resp.set_header("ETag", etag(version, epoch))
        requests.warn_of(req, resp, unlikely_members(self._kind, changes))
        resp.data = b""


class EntityListResource(Generic[E]):
    """All chargers or vehicles of a partner, in pages in order of id: `/chargers`, `/vehicles`.

    With `include=state` each has its current state (an addition to the reference).
    """

    def __init__(self, kind: type[E], store: Store, states: StatesOf) -> None:
        self._kind: type[E] = kind
        self._store = store
        self._states = states

    async def on_get(self, req: ApiRequest, resp: Response) -> None:
        page = pagination.Page(self._store, req, resp, LIST_PARAMETERS)
        query, partner, with_states = page.query, page.partner, "include" in page.query
        if query.get("include", "state") != "state":
            raise Invalid("include", "It must be state, or left out.")
        if "stale" in query and not with_states:
            raise Invalid("stale", "It can only be given together with include=state.")
        after = await page.begin(_position, derived=with_states) or ""
        turns = self._store.turns if with_states else self._store.entity_turns
        async with turns.of(partner):
            # One more than the page has, to know whether another page follows.
            found = await self._store.entities.page(self._kind, partner, after, page.limit + 1)
            entities = found[: page.limit]
            bodies = [body for _, body in entities]
            if with_states:
                bodies = await self._with_states(partner, entities)
            resp.data = f"[{','.join(bodies)}]".encode()
        if len(bodies) < len(found):
            page.link_next(entities[len(bodies) - 1][0], partial=len(bodies) < len(entities))

    async def _with_states(self, partner: int, entities: Sequence[tuple[str, str]]) -> list[str]:
        """The bodies with their states; fewer if these are large."""
        bodies: list[str] = []
        size, time_slice = 0, TimeSlice()
        while size < MAX_BYTES and (some := entities[len(bodies) : len(bodies) + STATES_AT_ONCE]):
            states = await self._states(partner, [entity_id for entity_id, _ in some])
            for (_, body), state in zip(some, states, strict=True):
                bodies.append(f'{body[:-1]},"state":{to_json(state).decode()}}}')
                size += len(bodies[-1])
                await time_slice.yield_if_over()
        return bodies


def _position(text: str) -> str | None:
    return text if is_entity_id(text) else None


# Conditions (an addition to the reference: RFC 9110, 13.1) ----------------------------------------


def etag(version: int, epoch: Epoch) -> str:
    """The entity tag of a version of a charger or vehicle.

    It has the epoch, because after a restore the same version number may be used again.
    """
    return f'"{version}-{epoch.id}"' if epoch.id else f'"{version}"'


def is_known_to_client(req: ApiRequest, tag: str) -> bool:
    """Whether If-None-Match has this version. The answer is 304 to a read, 412 to a write."""
    wanted = req.get_header("If-None-Match")
    return wanted is not None and (wanted == "*" or tag in _etags(wanted, weak=True))


def is_conditional(req: ApiRequest) -> bool:
    """Whether the request has If-Match or If-None-Match."""
    return must_exist(req) or req.get_header("If-None-Match") is not None


def must_exist(req: ApiRequest) -> bool:
    """Whether the request has If-Match: the entity must exist."""
    return req.get_header("If-Match") is not None


def check_version(req: ApiRequest, tag: str) -> None:
    """Raises PreconditionFailed unless this version fits If-Match and If-None-Match."""
    wanted = req.get_header("If-Match")
    if wanted is not None and wanted != "*" and tag not in _etags(wanted, weak=False):
        raise PreconditionFailed
    if is_known_to_client(req, tag):
        raise PreconditionFailed


def _etags(header: str, *, weak: bool) -> set[str]:
    tags = (tag.strip() for tag in header.split(","))
    return {tag.removeprefix("W/") if weak else tag for tag in tags}
