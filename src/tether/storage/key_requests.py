"""Requests for an API key, by the SHA-256 of the token in the address of the requester's page."""

from tether.domain.key_requests import (
    CLIENT_WINDOW_MS,
    KEPT_MS,
    MAX_OF_CLIENT,
    MAX_WAITING,
    KeyRequest,
    Limits,
    RequestForm,
)
from tether.domain.keys import Rate
from tether.storage.engine import Repository, Row, Statement, where_found

KEY_NAME = "requested"
MAX_LISTED = 500  # waiting requests first

_COLUMNS = """
r.digest, r.created_ms, r.expires_ms, r.client, r.organisation, r.email, r.purpose, r.fleet,
r.decided_ms, r.partner, p.name, r.claimed_ms,
r.rate_requests, r.rate_window_s, r.burst, r.lasts_ms, r.is_test
"""
_SELECT = f"SELECT {_COLUMNS} FROM key_requests r LEFT JOIN partners p ON p.id = r.partner"
FIND = f"{_SELECT} WHERE r.digest = $1 AND r.expires_ms > $2"
LIST = f"""
{_SELECT} WHERE r.expires_ms > $1
ORDER BY CASE WHEN r.decided_ms IS NULL THEN 0 ELSE 1 END, r.created_ms DESC, r.digest LIMIT $2
"""
ADD = """
INSERT INTO key_requests (
    digest, created_ms, expires_ms, client, organisation, email, purpose, fleet
)
SELECT $1, $2, $3, $4, $5, $6, $7, $8
WHERE (SELECT count(*) FROM key_requests WHERE client = $4 AND created_ms > $9) < $10
  AND (SELECT count(*) FROM key_requests WHERE decided_ms IS NULL) < $11
"""
DELETE_EXPIRED = "DELETE FROM key_requests WHERE expires_ms <= $1"
DECIDE = """
UPDATE key_requests SET decided_ms = $2, expires_ms = $3, partner = $4, rate_requests = $5,
    rate_window_s = $6, burst = $7, lasts_ms = $8, is_test = $9
WHERE digest = $1 AND decided_ms IS NULL AND expires_ms > $2
"""
# When two operators decide at once, this finds only the first decision.
DECIDED = """
SELECT 1 FROM key_requests WHERE digest = $1 AND decided_ms = $2 AND coalesce(partner, 0) = $3
"""
CLAIM = """
UPDATE key_requests SET claimed_ms = $2, claimed_key = $3
WHERE digest = $1 AND claimed_key IS NULL AND expires_ms > $2
  AND EXISTS (SELECT 1 FROM partners p WHERE p.id = key_requests.partner)
"""
# When two clients claim at once, the request gets the key of the first one, and the other one
# stores no key.
CLAIMED = "SELECT 1 FROM key_requests WHERE digest = $1 AND claimed_key = $2"
ADD_CLAIMED = """
INSERT INTO keys (digest, prefix, partner, name, rate_requests, rate_window_s, burst, read_only,
                  created_ms, expires_ms)
SELECT $2, $3, r.partner, $4, r.rate_requests, r.rate_window_s, r.burst, 0, r.claimed_ms,
       r.claimed_ms + r.lasts_ms
FROM key_requests r WHERE r.digest = $1 AND r.claimed_key = $2
"""


def _request_of(row: Row) -> KeyRequest:
    requests, window_s, burst, lasts_ms, is_test = row[12:]
    limits = Limits(Rate(requests, window_s), burst, lasts_ms, bool(is_test)) if requests else None
    return KeyRequest._make((*row[:4], RequestForm(*row[4:8]), *row[8:12], limits))


class KeyRequests(Repository):
    """All requests for a key that have not expired. Every method raises Unavailable."""

    async def add(
        self, digest: str, form: RequestForm, client: str, now_ms: int, ends_ms: int
    ) -> bool:
        """Stores a new request, unless too many wait, or too many came from the same client."""
        _, added = await self._engine.write_all(
            Statement(DELETE_EXPIRED, (now_ms,)),
            Statement(
                ADD,
                (digest, now_ms, ends_ms, client, *form, now_ms - CLIENT_WINDOW_MS, MAX_OF_CLIENT,
                 MAX_WAITING),
            ),
        )  # fmt: skip
        return bool(added)

    async def find(self, digest: str, now_ms: int) -> KeyRequest | None:
        """The request whose token has this SHA-256."""
        rows = await self._engine.read(FIND, digest, now_ms)
        return _request_of(rows[0]) if rows else None

    async def all(self, now_ms: int) -> list[KeyRequest]:
        """The waiting requests, then the decided ones, each the newest first."""
        return [_request_of(row) for row in await self._engine.read(LIST, now_ms, MAX_LISTED)]

    async def decide(
        self,
        digest: str,
        now_ms: int,
        *also: Statement,
        partner: int | None = None,
        limits: Limits | None = None,
    ) -> bool:
        """Approves a waiting request for this partner, or declines it without one; returns whether
        it was waiting.

        The statements `also`, of the audit trail, run in the same transaction.
        """
        granted: tuple[int | None, ...] = (None,) * 5
        if limits is not None:
            rate, burst, lasts_ms, is_test = limits
            granted = rate.requests, rate.window_s, burst, lasts_ms, int(is_test)
        done, *_ = await self._engine.write_all(
            Statement(DECIDE, (digest, now_ms, now_ms + KEPT_MS, partner, *granted)),
            *where_found(also, DECIDED, digest, now_ms, partner or 0),
        )
        return bool(done)

    async def claim(
        self, digest: str, key_digest: str, key_prefix: str, now_ms: int, *also: Statement
    ) -> bool:
        """Stores this key for the approved request, unless it has a key. The statements `also` run
        in the same transaction.
        """
        claimed, *_ = await self._engine.write_all(
            Statement(CLAIM, (digest, now_ms, key_digest)),
            Statement(ADD_CLAIMED, (digest, key_digest, key_prefix, KEY_NAME)),
            *where_found(also, CLAIMED, digest, key_digest),
        )
        return bool(claimed)

    async def delete_expired(self, now_ms: int) -> None:
        """Deletes expired requests."""
        await self._engine.write(DELETE_EXPIRED, now_ms)
