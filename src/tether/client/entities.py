"""What can be asked about chargers and vehicles, and their live states: one set of scripts."""

from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from tether.client.bulk import BulkCalls, put_result
from tether.client.errors import PreconditionFailed
from tether.client.exchange import (
    Answer,
    Created,
    Onward,
    Request,
    RetryPolicy,
    Script,
    ask,
    exchange,
    is_partial,
    next_cursor,
    no_answer_of_ours,
    path,
    read,
    stale,
    with_query,
)
from tether.client.models import Charger, PutResult, Saved, Vehicle
from tether.client.units import doubts_in, tell_user
from tether.client.values import entity_id, exact, patch_of
from tether.domain import models
from tether.domain.models import Entity, to_json
from tether.domain.views import ChargerState, VehicleState

E = TypeVar("E", Charger, Vehicle)
S = TypeVar("S", ChargerState, VehicleState)
M = TypeVar("M")
N = TypeVar("N")


class Pages(Generic[M]):
    """The pages of a list, one after the other, until there is no more."""

    def __init__(self, kind: type[M], policy: RetryPolicy, target: str, **query: Any) -> None:
        self._kind: type[M] = kind
        self._policy = policy
        self._target = target
        self._query = query
        self._onward = Onward()
        self.more = True

    def next(self) -> Script[list[M]]:
        request = Request("GET", with_query(self._target, **self._query))
        answer = yield from exchange(request, self._policy, 200)
        page = self._entries(answer, request)
        self._query["cursor"] = cursor = next_cursor(answer)
        # Events and changes have a link at their end too, for what is to come: a short page is the
        # last unless it says that it is not, else a list would never end while others write.
        is_short = len(page) < self._query["limit"] and not is_partial(answer)
        self.more = cursor is not None and not is_short
        self._onward.check(cursor if self.more else None)
        return page

    def _entries(self, answer: Answer, request: Request) -> list[M]:
        return read(list[self._kind], answer, request)  # type: ignore[name-defined]


class _Stated(msgspec.Struct, Generic[N]):
    state: N


class StatePages(Pages[tuple[M, N]]):
    """The pages of a list whose entries have a state: pairs of both."""

    def __init__(
        self, kind: type[M], state: type[N], policy: RetryPolicy, target: str, **query: Any
    ) -> None:
        super().__init__(tuple[M, N], policy, target, include="state", **query)
        self._entity, self._state = kind, state

    def _entries(self, answer: Answer, request: Request) -> list[tuple[M, N]]:
        entities = read(list[self._entity], answer, request)  # type: ignore[name-defined]
        stated = read(list[_Stated[self._state]], answer, request)  # type: ignore[name-defined]
        return [(entity, one.state) for entity, one in zip(entities, stated, strict=True)]


class EntityCalls(Generic[E, S]):
    """Scripts for chargers, or for vehicles; `AsyncChargers` says what they do."""

    def __init__(self, kind: type[E], state: type[S], policy: RetryPolicy) -> None:
        self._kind: type[E] = kind
        self._state: type[S] = state
        self._policy = policy
        self._list = f"/{kind.__name__.lower()}s"
        self._bulk: BulkCalls[models.Charger | models.Vehicle, PutResult] = BulkCalls(
            kind.__name__.lower(), policy, exact, put_result
        )

    def put(self, entity: Entity, if_match: str | None) -> Script[Saved]:
        entity = exact(entity)
        request = Request("PUT", self._path(entity.id), to_json(entity), _condition(if_match))
        try:
            answer = yield from exchange(request, self._policy, 200, 201)
        except PreconditionFailed as error:
            # An earlier try, whose answer was lost, may have made the version a new one.
            if not error.unsure:
                raise
            stored, etag = yield from self.get_with_etag(entity.id)
            if not _same(stored, entity):
                raise error from None
            return Saved(created=False, etag=etag)
        return _saved(answer, request)

    def bulk(self, entities: Iterable[Entity]) -> Script[list[PutResult]]:
        return self._bulk.all(entities)

    def patch(self, entity: str, changes: Mapping[str, Any], if_match: str | None) -> Script[Saved]:
        body = patch_of(self._kind, changes)
        request = Request("PATCH", self._path(entity), body, _condition(if_match))
        answer = yield from exchange(request, self._policy, 200)
        return _saved(answer, request)

    def delete(self, entity: str, events: str | None, if_match: str | None) -> Script[bool]:
        """Deletes it; whether that is done, not only begun."""
        target = with_query(self._path(entity), events=events)
        request = Request("DELETE", target, None, _condition(if_match))
        answer = yield from exchange(request, self._policy, 202, 204)
        return answer.status == 204

    def get(self, entity: str) -> Script[E]:
        found, _ = yield from self.get_with_etag(entity)
        return found

    def get_with_etag(self, entity: str) -> Script[tuple[E, str]]:
        request = Request("GET", path(self._list[1:], entity))
        answer = yield from exchange(request, self._policy, 200)
        return read(self._kind, answer, request), answer.headers.get("etag", "")

    def state(self, entity: str, stale_allowed: bool) -> Script[S]:
        target = path(self._list[1:], entity, "state")
        request = Request("GET", with_query(target, stale=stale(stale_allowed)))
        return ask(self._state, request, self._policy)

    def pages(self, page_size: int) -> Pages[E]:
        return Pages(self._kind, self._policy, self._list, limit=page_size)

    def state_pages(self, page_size: int, stale_allowed: bool) -> StatePages[E, S]:
        return StatePages(
            self._kind,
            self._state,
            self._policy,
            self._list,
            limit=page_size,
            stale=stale(stale_allowed),
        )

    def _path(self, entity: str) -> str:
        return path(self._list[1:], entity_id("id", entity))


def _condition(if_match: str | None) -> dict[str, str]:
    return {} if if_match is None else {"If-Match": if_match}


def _saved(answer: Answer, request: Request) -> Saved:
    created = answer.status == 201
    if created:
        read(Created, answer, request)
    elif answer.body:  # such as a hotel's login page: nothing was stored
        raise no_answer_of_ours(answer, request, "it should be empty")
    tell_user(doubts_in(answer))
    return Saved(created=created, etag=answer.headers.get("etag", ""))


def _same(stored: msgspec.Struct, sent: msgspec.Struct) -> bool:
    return msgspec.structs.asdict(stored) == msgspec.structs.asdict(sent)
