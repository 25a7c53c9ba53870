"""Parked messages of webhooks, attempts, and what waits: their rows and statements."""

from typing import NamedTuple

import msgspec

from tether.storage.engine import batch, columns_of

MOST_ATTEMPTS = 500  # of an endpoint that are kept

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
FAILED = """
SELECT partner, webhook, id, tries, due_ms, since_ms FROM webhook_parked
WHERE partner = $1 AND webhook = $2 ORDER BY since_ms DESC, id DESC LIMIT $3
"""

WITHDRAWAL = "SELECT w.seq, w.body FROM withdrawals w WHERE w.partner = $1 AND w.id = $2"
EVENT = "SELECT e.seq, e.body FROM events e WHERE e.partner = $1 AND e.id = $2"

# Attempts -----------------------------------------------------------------------------------------


class Attempt(msgspec.Struct, array_like=True, frozen=True):
    """One request to an endpoint, and what came of it. `error` is empty if it succeeded."""

    partner: int
    webhook: str
    id: str
    at_ms: int
    message_id: str
    type: str
    messages: int
    status: int | None
    taken_ms: int
    error: str
    answer: str


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
