"""Pagination: the pages of a list, one after the other."""

import re
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qs, urlsplit

import msgspec

from tether.client.errors import UnexpectedAnswer
from tether.client.exchange import Answer, Request, RetryPolicy, Script, exchange, read, with_query

M = TypeVar("M")
N = TypeVar("N")
_NEXT = re.compile(r'<([^<>]*)>\s*;[^,<]*\brel="?next\b"?')  # never looks at a byte twice


def next_cursor(answer: Answer) -> str | None:
    """The cursor in the link to the next page. Only that: the link's host is not asked."""
    match = _NEXT.search(answer.headers.get("link", ""))
    try:
        found = parse_qs(urlsplit(match[1]).query).get("cursor") if match else None
    except ValueError:  # such as a bracket too many: to take it for the end would lose the rest
        raise UnexpectedAnswer("The link to the next page is no address.", status=200) from None
    return found[0] if found else None


def epoch_of(answer: Answer) -> str:
    """The epoch of the database that a list is of; nothing before the first one began."""
    return answer.headers.get("tether-epoch", "")


def is_partial(answer: Answer) -> bool:
    """Whether more follows although the page is short, or empty: the server had read enough."""
    return 'partial="true"' in answer.headers.get("link", "")


class CycleDetector:
    """Sees whether cursors lead in a circle, with one of them in memory (Brent's algorithm)."""

    def __init__(self) -> None:
        self._seen: str | None = None
        self._steps, self._turn = 0, 1

    def check(self, cursor: str | None) -> None:
        """One more cursor, unless it is None. Raises UnexpectedAnswer in a circle."""
        if cursor is None:
            return
        if cursor == self._seen:
            raise UnexpectedAnswer("The links to the next page lead in a circle.", status=200)
        self._steps += 1
        if self._steps == self._turn:
            self._seen, self._steps, self._turn = cursor, 0, 2 * self._turn


class Pages(Generic[M]):
    """The pages of a list, one after the other, until there is no more."""

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
        # Events and changes have a link at their end too, for what is to come: a short page is the
        # last unless it says that it is not, else a list would never end while others write.
        is_short = len(page) < self._query["limit"] and not is_partial(answer)
        self.more = cursor is not None and not is_short
        self._cycles.check(cursor if self.more else None)
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
