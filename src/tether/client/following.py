"""Following events and changed sessions: where a consumer is, and what comes next.

The server's cursors stand between pages. A consumer may stop in the middle of one, so its own place
is finer: for events the id of the last one that it has had, which is a place also when that event
was taken back, and the cursor with which its page was asked for; for sessions, which move to the
end when they change again, the last change that it has had.

With it goes the epoch of the database, as the same place is another one after a restore.
"""

import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

from tether.client.errors import (
    EpochChanged,
    Invalid,
    RateLimited,
    Unavailable,
    epoch_changed,
    invalid,
)
from tether.client.exchange import (
    NO_RETRIES,
    Request,
    RetryPolicy,
    Script,
    exchange,
    log,
    read,
    with_query,
)
from tether.client.models import Event, Instant, Withdrawal
from tether.client.pagination import CycleDetector, epoch_of, is_partial, next_cursor
from tether.client.values import instant_text
from tether.domain.views import Session

PAGE = 1000
FIRST = "2000-01-01T00:00:00.000Z"  # the API takes no earlier instant
_WARN_AFTER_FAILURES = 3
_LOG_CURSOR = re.compile(r"([0-9]{1,4}|[0-9a-f-]{36})\.([^.]*)(?:\.([0-9a-f]*))?")
_CHANGE_CURSOR = re.compile(r"([0-9T:.-]{23}Z)/((?:[0-9a-f-]{36})?)(?:/([0-9a-f]*))?")

M = TypeVar("M", Event, Session, Withdrawal)


class Follower(ABC, Generic[M]):
    """A consumer's place in a feed, and what of it is fetched but not yet taken.

    When the database was restored it raises EpochChanged, or with `start_again` begins again.
    """

    def __init__(
        self, kind: type[M], what: str, poll_s: float, policy: RetryPolicy, *, start_again: bool
    ) -> None:
        self._kind: type[M] = kind
        self._what = what
        self._page: str | None = None  # the server's cursor of the page that we are on
        self._following: str | None = None  # that of the one behind it, once the page is fetched
        self._ready: deque[M] = deque()
        self._poll_s = poll_s
        self._policy = policy
        self._start_again = start_again
        self._epoch: str | None = None  # of the place; None for the start, which is in every one
        self._failures = 0
        self._cycles = CycleDetector()

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

    @abstractmethod
    def _begin(self) -> None:
        """Goes to the start."""

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
            answer = yield from exchange(request, NO_RETRIES, 200)
        except (RateLimited, Unavailable) as error:
            self._failures += 1
            if self._failures == _WARN_AFTER_FAILURES:
                log.warning("Following the %s is interrupted: %s", self._what, error)
            wait = self._policy.backoff(self._failures, error.retry_after)
            return max(wait, self._poll_s)
        except EpochChanged as error:
            return self._leave(error)
        self._failures = 0
        if self._epoch not in (None, epoch_of(answer)):
            return self._leave(epoch_changed())
        page = read(list[self._kind], answer, request)  # type: ignore[name-defined]
        if page:
            self._epoch = epoch_of(answer)
        following = next_cursor(answer)
        if page:
            self._cycles.check(following)
        if new := self._new(page):
            self._ready.extend(new)
            self._following = following
        elif following:
            self._turn(following)
        return 0 if page or is_partial(answer) else self._poll_s

    def _leave(self, error: EpochChanged) -> float:
        if not self._start_again:
            raise error
        log.warning("The database was restored: following the %s from the start again", self._what)
        self._page = self._following = self._epoch = None
        self._cycles = CycleDetector()
        self._begin()
        return 0


class LogFollower(Follower[M]):
    """Follows the events, or what is taken back of them, in the order of the commits."""

    def __init__(
        self,
        kind: type[M],
        cursor: str | None,
        poll_s: float,
        policy: RetryPolicy,
        *,
        start_again: bool = False,
    ) -> None:
        what, self._path = _LOGS[kind]
        # mypy loses M here
        super().__init__(kind, what, poll_s, policy, start_again=start_again)  # type: ignore[arg-type]
        self._last: str | None = None  # of the page that we are on, the last one that was taken
        self._count = 0  # that were taken, if a cursor of an older version says so
        if cursor is not None:
            self._count, self._last, self._page, self._epoch = _parse_log_cursor(cursor)

    @property
    def cursor(self) -> str:
        return cursor_after(self._last or self._count, self._page, self._epoch)

    def fetch(self) -> Script[float]:
        try:
            return (yield from super().fetch())
        except Invalid:
            if self._last is None:
                raise
        # The server does not know it any more: what of its page was taken already comes again.
        self._last = None
        return 0

    def _target(self) -> str:
        return with_query(self._path, limit=PAGE, cursor=self._last or self._page)

    def _new(self, page: Sequence[M]) -> Sequence[M]:
        return page[self._count :]

    def _taken(self, entry: M) -> None:
        self._last, self._count = entry.id, 0

    def _begin(self) -> None:
        self._last, self._count = None, 0

    def _turn(self, page: str) -> None:
        super()._turn(page)
        self._last, self._count = None, 0


_LOGS: dict[type, tuple[str, str]] = {
    Event: ("events", "/events"),
    Withdrawal: ("withdrawals", "/events/withdrawn"),
}


class ChangeFollower(Follower[Session]):
    """Follows the changes of sessions, from a cursor, or from an instant if there is none."""

    def __init__(
        self,
        cursor: str | None,
        updated_from: Instant | None,
        poll_s: float,
        policy: RetryPolicy,
        *,
        start_again: bool,
    ) -> None:
        super().__init__(Session, "sessions", poll_s, policy, start_again=start_again)
        start = FIRST if updated_from is None else instant_text("updatedFrom", updated_from)
        self._start = self._last = (start, "")
        if cursor is not None:
            self._last, self._epoch = _parse_change_cursor(cursor)

    @property
    def cursor(self) -> str:
        return "/".join([*self._last, self._epoch] if self._epoch else self._last)

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
        return [session for session in page if _change_order(session) > self._last]

    def _taken(self, entry: Session) -> None:
        self._last = _change_order(entry)

    def _begin(self) -> None:
        self._last = self._start


def _change_order(session: Session) -> tuple[str, str]:
    """What the server orders changes by."""
    return session.updated_at, session.id


def cursor_after(taken: str | int, page: str | None, epoch: str | None) -> str:
    """The place behind the entry of this id, or behind so many entries, of the page with the
    server's cursor `page`.
    """
    return f"{taken}.{page or ''}{f'.{epoch}' if epoch else ''}"


def _parse_log_cursor(cursor: str) -> tuple[int, str | None, str | None, str | None]:
    """Count, id of the last entry, page and epoch. Of before epochs is what has entries and none,
    unless the server tells by the page.
    """
    match = _LOG_CURSOR.fullmatch(cursor)
    if match is None:
        raise invalid("cursor", "It must be one that `follow` gave.")
    taken, page, epoch = match[1], match[2] or None, match[3]
    count, last = (int(taken), None) if taken.isdigit() else (0, taken)
    return count, last, page, epoch or ("" if (count or last) and not page else None)


def _parse_change_cursor(cursor: str) -> tuple[tuple[str, str], str | None]:
    """The last change and the epoch; of before epochs is what has a change and none."""
    match = _CHANGE_CURSOR.fullmatch(cursor)
    if match is None:
        raise invalid("cursor", "It must be one that `changes` gave.")
    return (match[1], match[2]), match[3] or ("" if match[2] else None)
