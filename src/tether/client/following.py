"""Following the events: where a consumer is, and what comes next.

The server's cursors stand between pages. A consumer may stop in the middle of one, so its place is
the cursor with which its page was asked for and how many events of that page it has had. What has
been committed never changes its place, so the same cursor brings the same events again, and perhaps
more behind them.
"""

from collections import deque

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

PAGE = 1000
_QUIET_FAILURES = 3


class Follower:
    """A consumer's place among the events, and those that are fetched but not yet taken."""

    def __init__(self, cursor: str | None, poll_s: float, patience: Patience) -> None:
        self._page, self._taken = _parsed(cursor)
        self._following: str | None = None  # the page's successor, once the page is fetched
        self._ready: deque[Event] = deque()
        self._poll_s = poll_s
        self._patience = patience
        self._failures = 0

    @property
    def cursor(self) -> str:
        """The place right after the last event that was taken."""
        return cursor_behind(self._taken, self._page)

    def take(self) -> Event | None:
        """The next event; None if there has to be a fetch first."""
        if not self._ready:
            return None
        event = self._ready.popleft()
        self._taken += 1
        if not self._ready and self._following:
            self._page, self._taken, self._following = self._following, 0, None
        return event

    def fetch(self) -> Script[float]:
        """Gets what comes next. The seconds to wait before the next fetch, if this got nothing.

        An outage does not end it: it asks again, less and less often.
        """
        request = Request("GET", with_query("/events", limit=PAGE, cursor=self._page))
        try:
            answer = yield from exchange(request, NO_PATIENCE, 200)
        except (RateLimited, Unavailable) as error:
            self._failures += 1
            if self._failures == _QUIET_FAILURES:
                log.warning("Following the events is interrupted: %s", error)
            wait = self._patience.backoff(self._failures, error.retry_after)
            return max(wait, self._poll_s)
        self._failures = 0
        page = read(list[Event], answer, request)
        following = next_cursor(answer)
        if page[self._taken :]:
            self._ready.extend(page[self._taken :])
            self._following = following
            return 0
        if page and following and self._taken == len(page):
            self._page, self._taken = following, 0
        return self._poll_s


def cursor_behind(entries: int, page: str | None) -> str:
    """The place behind so many entries of the page with the server's cursor `page`."""
    return f"{entries}.{page or ''}"


def _parsed(cursor: str | None) -> tuple[str | None, int]:
    if cursor is None:
        return None, 0
    taken, dot, page = cursor.partition(".")
    if not (dot and taken.isascii() and taken.isdigit() and len(taken) <= 4):
        raise invalid("cursor", "It must be one that `follow` gave.")
    return page or None, int(taken)
