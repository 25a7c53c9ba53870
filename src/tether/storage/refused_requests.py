"""Requests that were refused, of each partner the newest: what was sent, and what was answered."""

from collections.abc import Sequence
from typing import NamedTuple

from tether.domain.errors import NotFound
from tether.storage.engine import Engine, Statement, batch, batch_of, columns_of

MOST = 5_000  # of a partner
DAYS_MS = 7 * 86_400_000
_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}  # as both engines do
_NEWEST_FIRST = "ORDER BY r.at_ms DESC, r.id DESC"


class RefusedRequest(NamedTuple):
    """A request that was refused. Body, answer and path are shortened, and have no key in them."""

    at_ms: int
    id: str
    key_prefix: str
    method: str
    path: str
    status: int
    taken_us: int
    error: str
    answer: str
    body: str


_COLUMNS = ", ".join(f"r.{name}" for name in RefusedRequest._fields)

ADD = f"""
WITH {batch("batch", *columns_of(RefusedRequest))}
INSERT INTO refused_requests (partner, {", ".join(RefusedRequest._fields)})
SELECT $1, {", ".join(f"b.{name}" for name in RefusedRequest._fields)} FROM batch b
WHERE EXISTS (SELECT 1 FROM partners WHERE id = $1)
ON CONFLICT (partner, at_ms, id) DO NOTHING
"""
FORGET = """
DELETE FROM refused_requests WHERE partner = $1 AND at_ms < $2
"""
FORGET_MORE = """
DELETE FROM refused_requests WHERE partner = $1 AND at_ms <= coalesce((
    SELECT r.at_ms FROM refused_requests r WHERE r.partner = $1
    ORDER BY r.at_ms DESC LIMIT 1 OFFSET $2
), -1)
"""
# $2 and $3 are the place, $4 since when, $5 and $6 the statuses, $7 how the path begins, $8 what
# the key, the path, the body, the answer or the id has in it. LIKE would do that too, but takes a
# hundred times as long where much of the text is nearly the same.
PAGE = f"""
SELECT {_COLUMNS} FROM refused_requests r
WHERE r.partner = $1 AND (r.at_ms, r.id) < ($2, $3) AND r.at_ms >= $4
  AND r.status >= $5 AND r.status <= $6 AND substr(r.path, 1, length($7)) = $7
  AND ($8 = '' OR {{position}}(
      lower(r.id || ' ' || r.key_prefix || ' ' || r.path || ' ' || r.answer || ' ' || r.body), $8
  ) > 0)
{_NEWEST_FIRST} LIMIT $9
"""
GET = f"""
SELECT {_COLUMNS} FROM refused_requests r WHERE r.partner = $1 AND r.id = $2
{_NEWEST_FIRST} LIMIT 1
"""


class RefusalFilter(NamedTuple):
    """Which of them are wanted."""

    statuses: tuple[int, int] = (400, 599)
    path: str = ""
    """How it begins."""
    text: str = ""
    """What it has in it."""


class RefusedRequests:
    """What was refused, of all partners. Every method raises Unavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._page = PAGE.format(position=engine.dialect.position)

    async def add(self, partner: int, requests: Sequence[RefusedRequest], now_ms: int) -> None:
        """Stores them; forgets what is older than a week, and the oldest of too many."""
        await self._engine.write_all(
            Statement(ADD, (partner, batch_of(requests))),
            Statement(FORGET, (partner, now_ms - DAYS_MS)),
            Statement(FORGET_MORE, (partner, MOST)),
        )

    async def forget(self, partner: int, now_ms: int) -> None:
        """Forgets what is older than a week."""
        await self._engine.write(FORGET, partner, now_ms - DAYS_MS)

    async def page(
        self, partner: int, wanted: RefusalFilter, before: tuple[int, str], now_ms: int, limit: int
    ) -> list[RefusedRequest]:
        """The newest of the last week before a place, an instant and an id."""
        rows = await self._engine.scan(
            self._page, partner, *before, now_ms - DAYS_MS, *wanted.statuses, wanted.path,
            wanted.text.translate(_LOWER), limit,
        )  # fmt: skip
        return [RefusedRequest(*row) for row in rows]

    async def get(self, partner: int, request_id: str) -> RefusedRequest:
        """The newest with this id. Raises NotFound."""
        rows = await self._engine.scan(GET, partner, request_id)
        if not rows:
            raise NotFound
        return RefusedRequest(*rows[0])
