"""Scripts for chargers and vehicles."""

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import msgspec

from tether.client.bulk import BulkCalls, put_result
from tether.client.conversion import entity_id, exact, patch_of
from tether.client.errors import PreconditionFailed
from tether.client.exchange import (
    Answer,
    Created,
    Request,
    RetryPolicy,
    Script,
    exchange,
    path,
    read,
    unexpected_answer,
    warn_user,
    warnings_in,
    with_query,
)
from tether.client.models import Charger, Saved, Vehicle
from tether.domain.models import Entity, to_json

E = TypeVar("E", Charger, Vehicle)


class EntityCalls(Generic[E]):
    """Scripts for chargers, or for vehicles; `AsyncChargers` says what they do."""

    def __init__(self, kind: type[E], policy: RetryPolicy) -> None:
        self._kind: type[E] = kind
        self._policy = policy
        name = kind.__name__.lower()
        self.path = f"/{name}s"
        self.bulk = BulkCalls(name, f"{self.path}/bulk", policy, exact, put_result)

    def put(self, entity: Entity, if_match: str | None) -> Script[Saved]:
        entity = exact(entity)
        request = Request("PUT", self._path(entity.id), to_json(entity), _condition(if_match))
        try:
            answer = yield from exchange(request, self._policy, 200, 201)
        except PreconditionFailed as error:
            # The answer to an earlier try was lost. That try may have changed the version.
            if not error.unsure:
                raise
            stored, etag = yield from self.get_with_etag(entity.id)
            if msgspec.structs.asdict(stored) != msgspec.structs.asdict(entity):
                raise error from None
            return Saved(created=False, etag=etag)
        return _saved(answer, request)

    def patch(self, id: str, changes: Mapping[str, Any], if_match: str | None) -> Script[Saved]:
        body = patch_of(self._kind, changes)
        request = Request("PATCH", self._path(id), body, _condition(if_match))
        answer = yield from exchange(request, self._policy, 200)
        return _saved(answer, request)

    def delete(self, id: str, events: str | None, if_match: str | None) -> Script[bool]:
        target = with_query(self._path(id), events=events)
        request = Request("DELETE", target, None, _condition(if_match))
        answer = yield from exchange(request, self._policy, 202, 204)
        return answer.status == 204

    def get_with_etag(self, id: str) -> Script[tuple[E, str]]:
        request = Request("GET", self.path + path(id))
        answer = yield from exchange(request, self._policy, 200)
        return read(self._kind, answer, request), answer.headers.get("etag", "")

    def _path(self, id: str) -> str:
        return self.path + path(entity_id("id", id))


def _condition(if_match: str | None) -> dict[str, str]:
    return {} if if_match is None else {"If-Match": if_match}


def _saved(answer: Answer, request: Request) -> Saved:
    created = answer.status == 201
    if created:
        read(Created, answer, request)
    elif answer.body:  # such as the login page of a hotel: nothing was stored
        raise unexpected_answer(answer, request, "it should be empty")
    warn_user(warnings_in(answer))
    return Saved(created=created, etag=answer.headers.get("etag", ""))
