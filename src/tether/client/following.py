"""Following events, withdrawals and changed sessions: the position of a consumer, the next entries.

The server's cursors are positions between pages. A consumer may stop in the middle of a page, so
the cursors of the SDK contain more. The cursor of events has the id of the last event that was
taken, which may be withdrawn by now, and the server's cursor of the page. The cursor of sessions
has the last change that was taken, because a session moves to the end when it changes again.

Both also have the epoch of the database, because a restore makes older cursors useless.
"""

import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

from tether.client.conversion import instant_text
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
    WARN_AFTER_FAILURES,
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
from tether.domain.views import Session

PAGE_SIZE = 1000
FIRST_INSTANT = "2000-01-01T00:00:00.000Z"  # the API takes no earlier instant
_LOG_CURSOR = re.compile(r"([0-9]{1,4}|[0-9a-f-]{36})\.([^.]*)(?:\.([0-9a-f]*))?")
_CHANGE_CURSOR = re.compile(r"([0-9T:.-]{23}Z)/((?:[0-9a-f-]{36})?)(?:/([0-9a-f]*))?")

M = TypeVar("M", Event, Session, Withdrawal)


class Follower(ABC, Generic[M]):
    """A consumer's position in a feed, and the entries that were fetched but not taken yet.

    After a restore of the database it raises EpochChanged, or with `start_again` begins again.
    """

    def __init__(
        self, kind: type[M], what: str, poll_s: float, policy: RetryPolicy, *, start_again: bool
    ) -> None:
        self._kind: type[M] = kind
        self._what = what
        self._page: str | None = None  # the server's cursor of the current page
        self._next_page: str | None = None  # of the next page, when the current one is fetched
        self._fetched: deque[M] = deque()
        self._poll_s = poll_s
        self._policy = policy
        self._start_again = start_again
        self._epoch: str | None = None  # of the current position; None at the start
        self._failures = 0
        self._cycles = CycleDetector()

    @property
    @abstractmethod
    def cursor(self) -> str:
        """The position after the last entry that was taken."""

    @abstractmethod
    def _target(self) -> str:
        """Path and query of the current page."""

    @abstractmethod
    def _untaken(self, page: Sequence[M]) -> Sequence[M]:
        """The entries of this page that were not taken yet."""

    @abstractmethod
    def _taken(self, entry: M) -> None:
        """Moves the position behind this entry."""

    def _go_to(self, page: str | None) -> None:
        """Moves the position to the begin of this page; None is the first page."""
        self._page, self._next_page = page, None

    def take(self) -> M | None:
        """The next entry; None if `fetch` must be called first."""
        if not self._fetched:
            return None
        entry = self._fetched.popleft()
        self._taken(entry)
        if not self._fetched and self._next_page:
            self._go_to(self._next_page)
        return entry

    def fetch(self) -> Script[float]:
        """Fetches the next entries. Returns the seconds to wait before the next fetch: 0 if there
        are entries. In an outage the seconds grow.
        """
        request = Request("GET", self._target())
        try:
            answer = yield from exchange(request, NO_RETRIES, 200)
        except (RateLimited, Unavailable) as error:
            self._failures += 1
            if self._failures == WARN_AFTER_FAILURES:
                log.warning("Following the %s is interrupted: %s", self._what, error)
            wait = self._policy.backoff(self._failures, error.retry_after)
            return max(wait, self._poll_s)
        except EpochChanged as error:
            return self._epoch_changed(error)
        self._failures = 0
        if self._epoch not in (None, epoch_of(answer)):
            return self._epoch_changed(epoch_changed())
        page = read(list[self._kind], answer, request)  # type: ignore[name-defined]
        following = next_cursor(answer)
        if page:
            self._epoch = epoch_of(answer)
            self._cycles.check(following)
        if new := self._untaken(page):
            self._fetched.extend(new)
            self._next_page = following
        elif following:
            self._go_to(following)
        return 0 if page or is_partial(answer) else self._poll_s

    def _epoch_changed(self, error: EpochChanged) -> float:
        if not self._start_again:
            raise error
        log.warning("The database was restored: following the %s from the start again", self._what)
        self._epoch, self._cycles = None, CycleDetector()
        self._go_to(None)
        return 0


class LogFollower(Follower[M]):
    """Follows events, or withdrawals, in the order of the commits."""

    def __init__(
        self,
        kind: type[M],
        cursor: str | None,
        poll_s: float,
        policy: RetryPolicy,
        *,
        start_again: bool,
    ) -> None:
        what, self._path = _LOGS[kind]
        # mypy loses M here
        super().__init__(kind, what, poll_s, policy, start_again=start_again)  # type: ignore[arg-type]
        self._last: str | None = None  # id of the last entry that was taken from this page
        self._count = 0  # entries that were taken from this page, if an old cursor has no id
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
        # The server no longer knows this id. Read the page again: some entries come twice.
        self._last = None
        return 0

    def _target(self) -> str:
        return with_query(self._path, limit=PAGE_SIZE, cursor=self._last or self._page)

    def _untaken(self, page: Sequence[M]) -> Sequence[M]:
        return page[self._count :]

    def _taken(self, entry: M) -> None:
        self._last, self._count = entry.id, 0

    def _go_to(self, page: str | None) -> None:
        super()._go_to(page)
        self._last, self._count = None, 0


_LOGS: dict[type, tuple[str, str]] = {
    Event: ("events", "/events"),
    Withdrawal: ("withdrawals", "/events/withdrawn"),
}


class ChangeFollower(Follower[Session]):
    """Follows the changes of sessions, from a cursor or from an instant."""

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
        start = FIRST_INSTANT if updated_from is None else instant_text("updatedFrom", updated_from)
        self._start = self._last = (start, "")
        if cursor is not None:
            self._last, self._epoch = _parse_change_cursor(cursor)

    @property
    def cursor(self) -> str:
        return "/".join([*self._last, self._epoch] if self._epoch else self._last)

    def _target(self) -> str:
        # The server need not derive all events first: the follower gets later changes, too.
        return with_query(
            "/sessions",
            limit=PAGE_SIZE,
            updatedFrom=self._last[0],
            stale="allowed",
            cursor=self._page,
        )

    def _untaken(self, page: Sequence[Session]) -> Sequence[Session]:
        return [session for session in page if _change_order(session) > self._last]

    def _taken(self, entry: Session) -> None:
        self._last = _change_order(entry)

    def _go_to(self, page: str | None) -> None:
        super()._go_to(page)
        if page is None:
            self._last = self._start


def _change_order(session: Session) -> tuple[str, str]:
    """The server's order of changes."""
    return session.updated_at, session.id


def cursor_after(taken: str | int, page: str | None, epoch: str | None) -> str:
    """The cursor of the SDK for a position in a page. `taken` is the id of the last entry that was
    taken, or the number of entries. `page` is the server's cursor of the page.
    """
    return f"{taken}.{page or ''}{f'.{epoch}' if epoch else ''}"


def _parse_log_cursor(cursor: str) -> tuple[int, str | None, str | None, str | None]:
    """The count, the id of the last entry, the page and the epoch.

    A cursor with an entry, but without page and epoch, is older than epochs: its epoch is "".
    """
    match = _LOG_CURSOR.fullmatch(cursor)
    if match is None:
        raise invalid("cursor", "It must be one that `follow` gave.")
    taken, page, epoch = match[1], match[2] or None, match[3]
    count, last = (int(taken), None) if taken.isdigit() else (0, taken)
    return count, last, page, epoch or ("" if (count or last) and not page else None)


def _parse_change_cursor(cursor: str) -> tuple[tuple[str, str], str | None]:
    """The last change and the epoch. A change without epoch is older than epochs: that is ""."""
    match = _CHANGE_CURSOR.fullmatch(cursor)
    if match is None:
        raise invalid("cursor", "It must be one that `changes` gave.")
    return (match[1], match[2]), match[3] or ("" if match[2] else None)
