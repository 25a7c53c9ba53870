"""The newest refused requests of each partner, and a sample of its other requests, with answers."""

from collections.abc import Sequence
from typing import NamedTuple

from tether.domain.errors import NotFound
from tether.domain.timestamps import DAY_MS
from tether.storage.engine import (
    Engine,
    Repository,
    Statement,
    batch,
    batch_of,
    columns,
    columns_of,
)
from tether.storage.erasures import names_in_request, unless_erased
from tether.storage.retention import Retention

SAMPLED_PART = 10  # the sample has a tenth of the rows of refused requests
_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}  # as both engines do
_NEWEST_FIRST = "ORDER BY r.at_ms DESC, r.id DESC"


class RequestLogSettings(NamedTuple):
    """How many refused and sampled requests are stored for each partner, and for how long."""

    rows: int = 5_000
    """Refused requests. The sample has a tenth of them."""
    days: int = 7
    """Unless the partner has its own setting."""
    body_bytes: int = 16_384
    """The beginning of each body that is kept."""
    sample: int = 6
    """Requests without an error that each worker samples, a minute."""


DEFAULT_REQUEST_LOG = RequestLogSettings()


class RefusedRequest(NamedTuple):
    """A request. Body, answer and path are shortened, and contain no key.

    If the status is below 400, it is a request of the sample without an error, or a bulk request
    with refused items, which are in the answer.
    """

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
    cut_from: int = 0
    """The length in bytes of a body that was shortened; -1 if it came in chunks."""

    @property
    def is_refused(self) -> bool:
        """Whether the request or some of its items were refused. Otherwise it is in the sample."""
        return self.status >= 400 or self.error != ""


_NAMES = RefusedRequest._fields
_COLUMNS = columns("r", _NAMES)

ADD = f"""
WITH {batch("batch", *columns_of(RefusedRequest))}
INSERT INTO refused_requests (partner, {", ".join(_NAMES)})
SELECT $1, {columns("b", _NAMES)} FROM batch b
WHERE EXISTS (SELECT 1 FROM partners WHERE id = $1) AND {{unless_erased}}
ON CONFLICT (partner, at_ms, id) DO NOTHING
"""
DELETE_OLD = "DELETE FROM refused_requests WHERE partner = $1 AND at_ms < $2"
_DELETE_MORE = """
DELETE FROM refused_requests WHERE partner = $1 AND {of_these} AND at_ms <= coalesce((
    SELECT r.at_ms FROM refused_requests r WHERE r.partner = $1 AND {of_these}
    ORDER BY r.at_ms DESC LIMIT 1 OFFSET $2
), -1)
"""
_REFUSED, _SAMPLED = "(status >= 400 OR error <> '')", "(status < 400 AND error = '')"
DELETE_MORE = _DELETE_MORE.format(of_these=_REFUSED)
DELETE_MORE_SAMPLED = _DELETE_MORE.format(of_these=_SAMPLED)
# $2 and $3 are the position, $4 the first instant, $5 and $6 the statuses, $7 the beginning of the
# path, $8 a text in id, key, path, answer or body, $9 whether the sample is included. LIKE would be
# a hundred times as slow where much of the text nearly matches.
PAGE = f"""
SELECT {_COLUMNS} FROM refused_requests r
WHERE r.partner = $1 AND (r.at_ms, r.id) < ($2, $3) AND r.at_ms >= $4
  AND r.status >= $5 AND r.status <= $6 AND substr(r.path, 1, length($7)) = $7
  AND ($8 = '' OR {{position}}(
      lower(r.id || ' ' || r.key_prefix || ' ' || r.path || ' ' || r.answer || ' ' || r.body), $8
  ) > 0)
  AND ($9 = 1 OR r.status >= 400 OR r.error <> '')
{_NEWEST_FIRST} LIMIT $10
"""
GET = f"""
SELECT {_COLUMNS} FROM refused_requests r WHERE r.partner = $1 AND r.id = $2
{_NEWEST_FIRST} LIMIT 1
"""


class RefusalFilter(NamedTuple):
    """Selects requests."""

    statuses: tuple[int, int] = (100, 599)
    path: str = ""
    """The beginning of the path."""
    text: str = ""
    """A text in the request."""
    sampled: bool = False
    """Also requests that were not refused."""


class RefusedRequests(Repository):
    """The kept requests of all partners. Every method raises Unavailable."""

    def __init__(self, engine: Engine, kept: RequestLogSettings) -> None:
        super().__init__(engine)
        self._retention = Retention(engine)
        self.kept = kept
        self._page = PAGE.format(position=engine.dialect.position)
        self._add = ADD.format(unless_erased=unless_erased(engine.dialect, "$1", names_in_request))

    async def add(self, partner: int, requests: Sequence[RefusedRequest], now_ms: int) -> None:
        """Stores requests, except those that name an erased charger or vehicle. Deletes old ones,
        and the oldest if there are too many.
        """
        statements = [
            Statement(self._add, (partner, batch_of(requests))),
            Statement(DELETE_OLD, (partner, await self._since_ms(partner, now_ms))),
        ]
        most = self.kept.rows
        if any(request.is_refused for request in requests):
            statements.append(Statement(DELETE_MORE, (partner, most)))
        if not all(request.is_refused for request in requests):
            statements.append(Statement(DELETE_MORE_SAMPLED, (partner, most // SAMPLED_PART)))
        await self._engine.write_all(*statements)

    async def delete_old(self, partner: int, now_ms: int) -> None:
        """Deletes requests that are too old."""
        await self._engine.write(DELETE_OLD, partner, await self._since_ms(partner, now_ms))

    async def page(
        self, partner: int, wanted: RefusalFilter, before: tuple[int, str], now_ms: int, limit: int
    ) -> list[RefusedRequest]:
        """The newest requests before a position, which is an instant and an id."""
        since_ms = await self._since_ms(partner, now_ms)
        rows = await self._engine.scan(
            self._page, partner, *before, since_ms, *wanted.statuses, wanted.path,
            wanted.text.translate(_LOWER), int(wanted.sampled), limit,
        )  # fmt: skip
        return [RefusedRequest(*row) for row in rows]

    async def kept_ms(self, partner: int) -> int:
        """How long the partner's requests are kept; 0 means for ever."""
        own_ms = (await self._retention.get(partner)).requests_ms
        return self.kept.days * DAY_MS if own_ms is None else own_ms

    async def _since_ms(self, partner: int, now_ms: int) -> int:
        kept_ms = await self.kept_ms(partner)
        return now_ms - kept_ms if kept_ms else 0

    async def get(self, partner: int, request_id: str) -> RefusedRequest:
        """The newest request with this id. Raises NotFound."""
        rows = await self._engine.scan(GET, partner, request_id)
        if not rows:
            raise NotFound
        return RefusedRequest(*rows[0])
