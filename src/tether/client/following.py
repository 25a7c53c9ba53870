"""Following events and changed sessions: where a consumer is, and what comes next.

The server's cursors stand between pages. A consumer may stop in the middle of one, so its own place
is finer: for events the cursor with which its page was asked for and how many of that page it has
had, since what is committed never changes its place; for sessions, which move to the end when they
change again, the last change that it has had.
"""

import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

from tether.client.errors import RateLimited, Unavailable, invalid
from tether.client.exchange import (
    NO_PATIENCE,
    Patience,
    Request,
    Script,
    exchange,
    log,
    next_cursor,
    read,
    with_query,
)
from tether.client.models import Event
from tether.derived import Session

PAGE = 1000
_QUIET_FAILURES = 3
_CHANGE = re.compile(r"([0-9T:.-]{23}Z)/((?:[0-9a-f-]{36})?)")

M = TypeVar("M", Event, Session)


class Follower(ABC, Generic[M]):
    """A consumer's place in a feed, and what of it is fetched but not yet taken."""

    def __init__(self, kind: type[M], what: str, poll_s: float, patience: Patience) -> None:
        self._kind: type[M] = kind
        self._what = what
        self._page: str | None = None  # the server's cursor of the page that we are on
        self._following: str | None = None  # that of the one behind it, once the page is fetched
        self._ready: deque[M] = deque()
        self._poll_s = poll_s
        self._patience = patience
        self._failures = 0

    @property
    @abstractmethod
    def cursor(self) -> str:
        """The place right after the last entry that was taken."""

    @abstractmethod
    def _target(self) -> str:
        """Path and query of the page that we are on."""

    @abstractmethod
    def _new(self, page: Sequence[M]) -> Sequence[M]:
        """What of the page was not taken yet."""

    @abstractmethod
    def _taken(self, entry: M) -> None:
        """This entry was taken."""

    def _turn(self, page: str) -> None:
        """All of the page was taken: goes on to this one."""
        self._page, self._following = page, None

    def take(self) -> M | None:
        """The next entry; None if there has to be a fetch first."""
        if not self._ready:
            return None
        entry = self._ready.popleft()
        self._taken(entry)
        if not self._ready and self._following:
            self._turn(self._following)
        return entry

    def fetch(self) -> Script[float]:
        """Gets what comes next. The seconds to wait before the next fetch, if this got nothing.

        An outage does not end it: it asks again, less and less often.
        """
        request = Request("GET", self._target())
        try:
            answer = yield from exchange(request, NO_PATIENCE, 200)
        except (RateLimited, Unavailable) as error:
            self._failures += 1
            if self._failures == _QUIET_FAILURES:
                log.warning("Following the %s is interrupted: %s", self._what, error)
            wait = self._patience.backoff(self._failures, error.retry_after)
            return max(wait, self._poll_s)
        self._failures = 0
        page = read(list[self._kind], answer, request)  # type: ignore[name-defined]
        following = next_cursor(answer)
        if new := self._new(page):
            self._ready.extend(new)
            self._following = following
        elif page and following:
            self._turn(following)
        return 0 if page else self._poll_s


class EventFollower(Follower[Event]):
    """Follows the events in the order in which they are committed."""

    def __init__(self, cursor: str | None, poll_s: float, patience: Patience) -> None:
        super().__init__(Event, "events", poll_s, patience)
        self._page, self._count = _parsed(cursor)

    @property
    def cursor(self) -> str:
        return cursor_behind(self._count, self._page)

    def _target(self) -> str:
        return with_query("/events", limit=PAGE, cursor=self._page)

    def _new(self, page: Sequence[Event]) -> Sequence[Event]:
        return page[self._count :]

    def _taken(self, entry: Event) -> None:
        self._count += 1

    def _turn(self, page: str) -> None:
        super()._turn(page)
        self._count = 0


class ChangeFollower(Follower[Session]):
    """Follows the changes of sessions, from a cursor or else from the instant `start`."""

    def __init__(self, cursor: str | None, start: str, poll_s: float, patience: Patience) -> None:
        super().__init__(Session, "sessions", poll_s, patience)
        self._last = (start, "") if cursor is None else _change(cursor)

    @property
    def cursor(self) -> str:
        return "/".join(self._last)

    def _target(self) -> str:
        # Who follows has what comes later, too: it need not wait until all events are derived.
        return with_query(
            "/sessions",
            limit=PAGE,
            updatedFrom=self._last[0],
            stale="allowed",
            cursor=self._page,
        )

    def _new(self, page: Sequence[Session]) -> Sequence[Session]:
        return [session for session in page if _key(session) > self._last]

    def _taken(self, entry: Session) -> None:
        self._last = _key(entry)


def _key(session: Session) -> tuple[str, str]:
    """What the server orders changes by."""
    return session.updated_at, session.id


def cursor_behind(entries: int, page: str | None) -> str:
    """The place behind so many entries of the page with the server's cursor `page`."""
    return f"{entries}.{page or ''}"


def _parsed(cursor: str | None) -> tuple[str | None, int]:
    if cursor is None:
        return None, 0
    count, dot, page = cursor.partition(".")
    if not (dot and count.isascii() and count.isdigit() and len(count) <= 4):
        raise invalid("cursor", "It must be one that `follow` gave.")
    return page or None, int(count)


def _change(cursor: str) -> tuple[str, str]:
    match = _CHANGE.fullmatch(cursor)
    if match is None:
        raise invalid("cursor", "It must be one that `changes` gave.")
    return match[1], match[2]
