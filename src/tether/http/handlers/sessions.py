"""Charging sessions over HTTP (an addition to the reference)."""

import re

from falcon.asgi import Request, Response

from tether.domain.errors import Invalid, NotFound
from tether.domain.filters import SessionFilter
from tether.domain.models import ENTITY_ID_RULE, event_id_from_path, is_entity_id, to_json
from tether.domain.session_views import session_of
from tether.domain.validation import check_instant
from tether.http import requests
from tether.server.store import Store
from tether.storage.turns import Rest

LIST_PARAMETERS = (
    "limit", "cursor", "chargerId", "vehicleId", "from", "to", "status", "updatedFrom", "stale",
)  # fmt: skip
_POSITION = re.compile(r"-?[0-9]{1,15} [0-9a-f-]{36}")


class SessionListResource:
    """`/sessions`: in the order of their start, or with `updatedFrom` of their last change."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def on_get(self, req: Request, resp: Response) -> None:
        query = requests.query_of(req, LIST_PARAMETERS)
        limit, wanted = requests.limit_of(query), _filter(query)
        partner, epoch = requests.partner_of(req), await self._store.epochs.current()
        after = _position(requests.cursor_of(query, epoch, _POSITION.fullmatch))
        requests.show_epoch(resp, epoch)
        if not await requests.takes_stale(self._store, req, resp, query):
            await self._store.projector.catch_up(partner)
        async with self._store.turns.of(partner):
            # One more than asked for, to know whether another page follows.
            found, stop = await self._store.sessions.page(partner, wanted, after, limit + 1)
            page = found[:limit]
            shown, rest = [], Rest()
            for known in page:
                shown.append(to_json(session_of(known)))
                await rest.if_long()
            resp.data = b"[%b]" % b",".join(shown)
        # The end of the changes is only the end for now: see /events.
        changes = wanted.updated_from_ms is not None
        partial = stop is not None and len(found) <= limit
        if stop is not None and partial:
            place = stop
        elif len(found) > limit or (page and changes):
            place = (page[-1].updated_ms if changes else page[-1].record.start_ms), page[-1].id
        else:
            return
        link = requests.next_link(req, query, epoch, "{} {}".format(*place), partial=partial)
        resp.set_header("Link", link)

    on_head = on_get


class SessionResource:
    """`/sessions/{id}`: one session."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def on_get(self, req: Request, resp: Response, id: str) -> None:
        session_id = event_id_from_path(id)
        if session_id is None:
            raise NotFound
        partner = requests.partner_of(req)
        if not await requests.takes_stale(self._store, req, resp):
            await self._store.projector.catch_up(partner)
        resp.data = to_json(session_of(await self._store.sessions.get(partner, session_id)))

    on_head = on_get


def _filter(query: dict[str, str]) -> SessionFilter:
    for name in ("chargerId", "vehicleId"):
        if name in query and not is_entity_id(query[name]):
            raise Invalid(name, ENTITY_ID_RULE)
    status = query.get("status")
    if status not in (None, "active", "ended"):
        raise Invalid("status", "It must be active or ended.")
    if status is not None and "updatedFrom" in query:
        raise Invalid(
            "status",
            "It cannot be given together with updatedFrom: who follows changes would miss those of "
            "the status.",
        )
    from_ms, to_ms, updated_from_ms = (
        check_instant(name, query[name]) if name in query else None
        for name in ("from", "to", "updatedFrom")
    )
    return SessionFilter(
        query.get("chargerId"),
        query.get("vehicleId"),
        from_ms,
        to_ms,
        None if status is None else status == "active",
        updated_from_ms,
    )


def _position(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    instant, _, session_id = text.partition(" ")
    return int(instant), session_id
