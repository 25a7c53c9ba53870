"""Events over HTTP."""

import re
from collections.abc import Callable, Sequence

from falcon.asgi import Response

from tether.domain.errors import Invalid, NotFound
from tether.domain.filters import EventFilter
from tether.domain.models import (
    ENTITY_ID_RULE,
    EventType,
    event_id_from_path,
    is_entity_id,
    to_json,
    uuid_to_read,
)
from tether.domain.validation import has_unlikely_power, new_event
from tether.http import pagination, requests
from tether.http.requests import ApiRequest
from tether.server.store import Store
from tether.storage.audit import audit_entry
from tether.storage.events import EVENTS, WITHDRAWALS

WITHDRAWAL_PARAMETERS = ("limit", "cursor", "order", "type", "chargerId", "vehicleId")
LIST_PARAMETERS = (*WITHDRAWAL_PARAMETERS, "from", "to")
_POSITION = re.compile(r"[0-9]{1,18}")


class EventListResource:
    """`/events`: stores an event; lists the events in the order of the commits."""

    def __init__(self, store: Store, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._batcher = store.batcher  # imported now: later there may be no file descriptor left
        self._now_ms = now_ms

    async def on_post(self, req: ApiRequest, resp: Response) -> None:
        partner = req.context.partner
        document = await requests.read_document(req, if_array="POST many to /events/bulk")
        event = new_event(document, self._now_ms())
        event_id = await self._batcher.add(partner, event)
        if event.charged_energy or has_unlikely_power(event):
            requests.warn_of(req, resp, await self._store.unit_warnings.of_event(partner, event))
        resp.status = 201
        resp.data = to_json({"id": event_id})

    async def on_get(self, req: ApiRequest, resp: Response) -> None:
        await _list(self._store, req, resp, LIST_PARAMETERS, EVENTS)


class WithdrawalListResource:
    """`/events/withdrawn`: the withdrawals in the order of the commits."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def on_get(self, req: ApiRequest, resp: Response) -> None:
        await _list(self._store, req, resp, WITHDRAWAL_PARAMETERS, WITHDRAWALS)


async def _list(
    store: Store, req: ApiRequest, resp: Response, parameters: Sequence[str], table: str
) -> None:
    """Answers with a page of events or withdrawals."""
    page = pagination.Page(store, req, resp, parameters)
    wanted = filter_of(page.query)
    after = await _begin(page, store, table)
    async with store.turns.of(page.partner):
        found, stop = await store.events.page(
            page.partner, wanted, after=after, limit=page.limit + 1,
            descending=page.descending, table=table,
        )  # fmt: skip
    # In ascending order more events may come, so the last page has a link, too. An empty page
    # without a link says that there is nothing yet.
    events = page.finish(
        found,
        lambda event: str(event[0]),
        stop=None if stop is None else str(stop),
        follow=not page.descending,
    )
    resp.data = f"[{','.join(body for _, body in events)}]".encode()


async def _begin(page: pagination.Page, store: Store, table: str) -> int | None:
    """The sequence number after which the page begins, None at the start of the list.

    The cursor may also be the id of the last event that the client has. Raises Invalid.
    """
    event_id = event_id_from_path(page.query.get("cursor", ""))
    if event_id is None:
        return await page.begin(lambda text: int(text) if _POSITION.fullmatch(text) else None)
    seq = await store.events.seq_of(page.partner, event_id, table=table)
    if seq is None:
        raise Invalid("cursor", "No event of this id is known.")
    await page.begin(None)
    return seq


class EventResource:
    """`/events/{id}`: one event."""

    def __init__(self, store: Store, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms

    async def on_get(self, req: ApiRequest, resp: Response, id: str) -> None:
        resp.data = await self._store.events.get(req.context.partner, uuid_to_read(id))

    async def on_delete(self, req: ApiRequest, resp: Response, id: str) -> None:
        event_id = uuid_to_read(id)
        partner, by = req.context.partner, requests.actor_of(req)
        entry = audit_entry(partner, self._now_ms(), by, "event.withdraw", event_id)
        found = self._store.withdrawals.withdraw(partner, [event_id], audited=lambda _: entry)
        async for known in found:
            if not all(known):
                raise NotFound
        resp.status = 204


def filter_of(query: dict[str, str]) -> EventFilter:
    """The filter for events of a query. Raises Invalid."""
    kind = query.get("type")
    if kind is not None and kind not in tuple(EventType):
        raise Invalid("type", f"It must be one of {', '.join(EventType)}.")
    for name in ("chargerId", "vehicleId"):
        if name in query and not is_entity_id(query[name]):
            raise Invalid(name, ENTITY_ID_RULE)
    instants = pagination.instants_of(query, ("from", "to"))
    return EventFilter(
        kind, query.get("chargerId"), query.get("vehicleId"), instants.get("from"),
        instants.get("to"),
    )  # fmt: skip
