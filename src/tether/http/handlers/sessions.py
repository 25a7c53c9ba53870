"""Charging sessions over HTTP (an addition to the reference)."""

import re

from falcon.asgi import Response

from tether.domain.errors import Invalid
from tether.domain.filters import SessionFilter
from tether.domain.models import ENTITY_ID_RULE, is_entity_id, to_json, uuid_to_read
from tether.domain.session_views import FLAGS, StoredSession, session_of
from tether.http import pagination
from tether.http.requests import ApiRequest
from tether.server.store import Store
from tether.storage.turns import map_in_steps

LIST_PARAMETERS = (
    "limit", "cursor", "order", "chargerId", "vehicleId", "from", "to", "endedFrom", "endedTo",
    "overlappingFrom", "overlappingTo", "status", "flag", "estimated", "updatedFrom", "stale",
)  # fmt: skip
REPEATED = ("chargerId", "vehicleId")
MAX_IDS = 50  # each needs a search of its own in an index
# These may change in a session. With them a changed session could leave the list of changes.
_NOT_OF_CHANGES = (
    "status", "flag", "estimated", "endedFrom", "endedTo", "overlappingFrom", "overlappingTo",
)  # fmt: skip
_INSTANTS = {
    "from": "from_ms",
    "to": "to_ms",
    "endedFrom": "ended_from_ms",
    "endedTo": "ended_to_ms",
    "overlappingFrom": "overlapping_from_ms",
    "overlappingTo": "overlapping_to_ms",
    "updatedFrom": "updated_from_ms",
}
_WINDOWS = (
    ("from", "to"),
    ("endedFrom", "endedTo"),
    ("overlappingFrom", "overlappingTo"),
    ("updatedFrom",),
)
_POSITION = re.compile(r"(-?[0-9]{1,15}) ([0-9a-f-]{36})")


class SessionListResource:
    """`/sessions`: in the order of start, or with `updatedFrom` in the order of the last change."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def on_get(self, req: ApiRequest, resp: Response) -> None:
        page = pagination.Page(self._store, req, resp, LIST_PARAMETERS, REPEATED)
        wanted = filter_of(page.query)
        changes = wanted.updated_from_ms is not None
        if changes and page.descending:
            raise Invalid(
                "order", "It must be asc together with updatedFrom: changes are followed."
            )
        after = await page.begin(_position, derived=True)
        async with self._store.turns.of(page.partner):
            # One more than the page has, to know whether another page follows.
            found, stop = await self._store.sessions.page(
                page.partner, wanted, after, page.limit + 1, descending=page.descending
            )
            sessions = page.finish(
                found,
                lambda session: (
                    f"{session.updated_ms if changes else session.record.start_ms} {session.id}"
                ),
                stop=None if stop is None else "{} {}".format(*stop),
                follow=changes,
            )
            resp.data = b"[%b]" % b",".join(await map_in_steps(_body, sessions))


class SessionResource:
    """`/sessions/{id}`: one session."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def on_get(self, req: ApiRequest, resp: Response, id: str) -> None:
        session_id, partner = uuid_to_read(id), req.context.partner
        await pagination.wait_until_derived(self._store, req, resp)
        resp.data = _body(await self._store.sessions.get(partner, session_id))


def filter_of(query: dict[str, str]) -> SessionFilter:
    """The filter for sessions of a query. Raises Invalid."""
    charger_ids, vehicle_ids = (ids_of(query, name) for name in REPEATED)
    _check_word(query, "status", ("active", "ended"))
    _check_word(query, "estimated", ("true", "false"))
    if query.get("flag", next(iter(FLAGS))) not in FLAGS:
        raise Invalid("flag", f"It must be one of {', '.join(FLAGS)}.")
    for name in _NOT_OF_CHANGES if "updatedFrom" in query else ():
        if name in query:
            raise Invalid(
                name,
                "It cannot be given together with updatedFrom: a follower would miss the changes "
                "by which a session leaves the list.",
            )
    instants = pagination.instants_of(query, *_WINDOWS)
    status, estimated = query.get("status"), query.get("estimated")
    return SessionFilter(
        charger_ids,
        vehicle_ids,
        active=None if status is None else status == "active",
        flag=query.get("flag"),
        estimated=None if estimated is None else estimated == "true",
        **{_INSTANTS[name]: at_ms for name, at_ms in instants.items()},
    )


def ids_of(query: dict[str, str], name: str) -> tuple[str, ...]:
    """The ids in a parameter, without duplicates. Raises Invalid."""
    if name not in query:
        return ()
    ids = tuple(dict.fromkeys(query[name].split(",")))
    if not all(map(is_entity_id, ids)):
        raise Invalid(name, ENTITY_ID_RULE)
    if len(ids) > MAX_IDS:
        raise Invalid(name, f"It can be given at most {MAX_IDS} times.")
    return ids


def _check_word(query: dict[str, str], name: str, words: tuple[str, str]) -> None:
    if query.get(name, words[0]) not in words:
        raise Invalid(name, f"It must be {' or '.join(words)}.")


def _body(session: StoredSession) -> bytes:
    return to_json(session_of(session))


def _position(text: str) -> tuple[int, str] | None:
    match = _POSITION.fullmatch(text)
    return (int(match[1]), match[2]) if match else None
