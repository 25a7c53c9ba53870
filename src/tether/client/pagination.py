"""Pagination: the pages of a list, one after the other."""

import re
from dataclasses import replace
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qs, urlsplit

import msgspec

from tether.client.errors import UnexpectedAnswer
from tether.client.exchange import Answer, Request, RetryPolicy, Script, exchange, read, with_query

M = TypeVar("M")
N = TypeVar("N")
_NEXT = re.compile(r'<([^<>]*)>\s*;[^,<]*\brel="?next\b"?')  # never looks at a byte twice


def next_cursor(answer: Answer) -> str | None:
    """The cursor in the link to the next page. The host of the link is ignored."""
    match = _NEXT.search(answer.headers.get("link", ""))
    try:
        found = parse_qs(urlsplit(match[1]).query).get("cursor") if match else None
    except ValueError:  # such as a bracket too many
        raise UnexpectedAnswer("The link to the next page is no address.", status=200) from None
    return found[0] if found else None


def epoch_of(answer: Answer) -> str:
    """The epoch of the database in the answer of a list; empty if it has none."""
    return answer.headers.get("tether-epoch", "")


def is_partial(answer: Answer) -> bool:
    """Whether there are more pages although the page is short: the server stopped reading."""
    return 'partial="true"' in answer.headers.get("link", "")


class CycleDetector:
    """Detects cursors that lead in a circle, by Brent's algorithm: it keeps one cursor."""

    def __init__(self) -> None:
        self._kept: str | None = None
        self._steps, self._max_steps = 0, 1

    def check(self, cursor: str | None) -> None:
        """Adds a cursor; None is ignored. Raises UnexpectedAnswer in a circle."""
        if cursor is None:
            return
        if cursor == self._kept:
            raise UnexpectedAnswer("The links to the next page lead in a circle.", status=200)
        self._steps += 1
        if self._steps == self._max_steps:
            self._kept, self._steps, self._max_steps = cursor, 0, 2 * self._max_steps


class Pages(Generic[M]):
    """The pages of a list, until `more` is false."""

    def __init__(self, kind: type[M], policy: RetryPolicy, target: str, **query: Any) -> None:
        self._kind: type[M] = kind
        self._policy = policy
        self._target = target
        self._query = query
        self._cycles = CycleDetector()
        self.more = True

    def next(self) -> Script[list[M]]:
        request = Request("GET", with_query(self._target, **self._query))
        answer = yield from exchange(request, self._policy, 200)
        page = self._entries(answer, request)
        self._query["cursor"] = cursor = next_cursor(answer)
        # Lists of events and changes have a link even on their last page, for later entries. So the
        # list ends with a short page that is not partial. It must end while others write.
        is_short = len(page) < self._query["limit"] and not is_partial(answer)
        self.more = cursor is not None and not is_short
        self._cycles.check(cursor if self.more else None)
        return page

    def _entries(self, answer: Answer, request: Request) -> list[M]:
        return read(list[self._kind], answer, request)  # type: ignore[name-defined]


class Lines(Pages[M]):
    """A list in a single answer, as lines of JSON."""

    def next(self) -> Script[list[M]]:
        target = with_query(self._target, **self._query)
        request = Request("GET", target, headers={"Accept": "application/x-ndjson"})
        answer = yield from exchange(request, self._policy, 200)
        self.more = False
        lines = answer.body.splitlines()
        return [read(self._kind, replace(answer, body=line), request) for line in lines]


class _WithState(msgspec.Struct, Generic[N]):
    state: N


class StatePages(Pages[tuple[M, N]]):
    """The pages of a list with states. The entries are pairs of entity and state."""

    def __init__(
        self, kind: type[M], state: type[N], policy: RetryPolicy, target: str, **query: Any
    ) -> None:
        super().__init__(tuple[M, N], policy, target, include="state", **query)
        self._entity, self._state = kind, state

    def _entries(self, answer: Answer, request: Request) -> list[tuple[M, N]]:
        entities = read(list[self._entity], answer, request)  # type: ignore[name-defined]
        states = read(list[_WithState[self._state]], answer, request)  # type: ignore[name-defined]
        return [(entity, found.state) for entity, found in zip(entities, states, strict=True)]
