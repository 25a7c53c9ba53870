"""Of a webhook: what is parked, attempts, what waits and whose turn it is, as rows and SQL."""

from typing import NamedTuple

import msgspec

from tether.domain.webhooks import LAST_ID, Attempt, Endpoint
from tether.storage.engine import batch, columns_of

MOST_ATTEMPTS = 500  # of an endpoint that are kept


class Claimed(NamedTuple):
    """An endpoint whose lease was taken."""

    webhook: Endpoint
    fence: int


# Parked messages ----------------------------------------------------------------------------------


class Parked(msgspec.Struct, array_like=True, frozen=True):
    """A message that is sent apart from the queue. Without `due_ms` all its tries failed."""

    partner: int
    webhook: str
    id: str
    tries: int
    due_ms: int | None
    since_ms: int


PARK = f"""
WITH {batch("parked", *columns_of(Parked))}
INSERT INTO webhook_parked (partner, webhook, id, tries, due_ms, since_ms)
SELECT p.partner, p.webhook, p.id, p.tries, p.due_ms, p.since_ms FROM parked p
WHERE (SELECT 1 FROM webhooks w WHERE w.partner = p.partner AND w.id = p.webhook) = $1
ON CONFLICT (partner, webhook, id) DO UPDATE
SET tries = excluded.tries, due_ms = excluded.due_ms
"""
UNPARK = f"""
WITH {batch("sent", "partner BIGINT", "webhook", "id")}
DELETE FROM webhook_parked WHERE $1 = 1 AND (partner, webhook, id) IN (
    SELECT s.partner, s.webhook, s.id FROM sent s)
"""
PARKED_DUE = """
SELECT partner, webhook, id, tries, due_ms, since_ms FROM webhook_parked
WHERE partner = $1 AND webhook = $2 AND due_ms <= $3 ORDER BY due_ms, id LIMIT $4
"""
RETRY_FAILED = """
UPDATE webhook_parked SET due_ms = $3, tries = 0
WHERE partner = $1 AND webhook = $2 AND due_ms IS NULL AND since_ms >= $4
"""

WITHDRAWAL = "SELECT w.seq, w.body FROM withdrawals w WHERE w.partner = $1 AND w.id = $2"
EVENT = "SELECT e.seq, e.body FROM events e WHERE e.partner = $1 AND e.id = $2"

# Attempts -----------------------------------------------------------------------------------------

_ATTEMPT = Attempt.__struct_fields__
NOTE = f"""
WITH {batch("made", *columns_of(Attempt))}
INSERT INTO webhook_attempts ({", ".join(_ATTEMPT)})
SELECT {", ".join(f"m.{name}" for name in _ATTEMPT)} FROM made m
WHERE (SELECT 1 FROM webhooks w WHERE w.partner = m.partner AND w.id = m.webhook) = $1
  AND {{unless_erased}}
ON CONFLICT (partner, webhook, id) DO NOTHING
"""
FORGET = f"""
DELETE FROM webhook_attempts WHERE partner = $1 AND webhook = $2 AND id <= (
    SELECT a.id FROM webhook_attempts a WHERE a.partner = $1 AND a.webhook = $2
    ORDER BY a.id DESC LIMIT 1 OFFSET {MOST_ATTEMPTS})
"""
AGED = """
SELECT webhook, id FROM webhook_attempts WHERE partner = $1 AND at_ms < $2 LIMIT $3
"""
FORGET_SOME = f"""
WITH {batch("batch", "webhook", "id")}
DELETE FROM webhook_attempts WHERE partner = $1
AND (webhook, id) IN (SELECT b.webhook, b.id FROM batch b)
"""
ATTEMPTS = f"""
SELECT {", ".join(_ATTEMPT)} FROM webhook_attempts
WHERE partner = $1 AND webhook = $2 AND id < $3 AND ($4 = 0 OR error <> '')
ORDER BY id DESC LIMIT $5
"""

# What waits ---------------------------------------------------------------------------------------


class Backlog(NamedTuple):
    """What an endpoint has not had: events of the partner at most, and changes of sessions, counted
    up to a thousand, before its filters.
    """

    events: int
    sessions: int


class Heads(NamedTuple):
    """The ends of both orders: the number of the last event, and when a session changed last."""

    seq: int
    session_ms: int


# Whose turn it is ---------------------------------------------------------------------------------

# An instant that is further ahead than there is reason for was written by a clock that has been set
# back since: nobody waits for that.
LONGEST_LEASE_MS = 60_000
LONGEST_PACE_MS = 2_000_000
LONGEST_PAUSE_MS = 100_000_000


def is_free(now: str) -> str:
    """Whether nobody delivers to an endpoint, and its turn has come."""
    at = f"CAST({now} AS BIGINT)"
    return f"""(
    enabled = 1 AND stopped = ''
    AND lease_ms NOT BETWEEN {at} + 1 AND {at} + {LONGEST_LEASE_MS}
    AND due_ms NOT BETWEEN {at} + 1 AND {at}
        + CASE head WHEN '' THEN {LONGEST_PACE_MS} ELSE {LONGEST_PAUSE_MS} END)"""


# Whose turn it is at $2: something is behind the position, or a parked message is due.
DUE = f"""
SELECT w.partner, w.id FROM webhooks w LEFT JOIN derivations d ON d.partner = w.partner
WHERE w.partner > $1 AND {is_free("$2")}
  AND ((w.types LIKE '%event.%' AND (
            w.seq < (SELECT e.seq FROM events e
                     WHERE e.partner = w.partner ORDER BY e.seq DESC LIMIT 1)
            OR w.seq < (SELECT x.seq FROM withdrawals x
                        WHERE x.partner = w.partner ORDER BY x.seq DESC LIMIT 1)))
    OR ((w.types LIKE '%session.%' OR w.types LIKE '%state.%')
        AND (d.updated_ms > w.session_ms
             OR (d.updated_ms = w.session_ms AND w.session_id <> '{LAST_ID}')))
    OR (SELECT 1 FROM webhook_parked p
        WHERE p.partner = w.partner AND p.webhook = w.id AND p.due_ms <= $2 LIMIT 1) IS NOT NULL)
ORDER BY w.due_ms, w.partner, w.id LIMIT $3
"""
