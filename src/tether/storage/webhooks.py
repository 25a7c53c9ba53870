"""Webhooks: endpoints with their positions in the log, parked messages, and attempts.

A process that delivers to an endpoint holds its lease. It stores its progress only if the `fence`
of the endpoint is still the same. Every claim of the lease changes the fence, and so does a change
by the owner. Then the process notices that, releases the lease, and the next one starts anew.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from tether.domain.errors import NotFound
from tether.domain.webhook_views import WebhookBacklog
from tether.domain.webhooks import (
    LAST_ID,
    MAX_ENDPOINTS,
    Attempt,
    Endpoint,
    LogPosition,
    MessageType,
    SignatureKind,
    Status,
    status_of,
)
from tether.storage.engine import (
    Engine,
    Repository,
    Row,
    Statement,
    batch,
    batch_of,
    columns,
    columns_of,
    delete_batch,
    lease_has_expired,
    where_found,
)
from tether.storage.erasures import names_in_attempt, unless_erased
from tether.storage.events import EVENTS
from tether.storage.log_positions import HEAD

MAX_PARKED = 1_000  # of an endpoint, including those that failed for good
MAX_ATTEMPTS = 500  # of an endpoint
MAX_BACKLOG = 1_000  # counted changes of sessions
EXPIRED_AT_ONCE = 500  # attempts in a transaction; other writes wait for it

# Endpoints ----------------------------------------------------------------------------------------

_POSITION = ("seq", "session_ms", "session_id", "passed", "told_ms")
_DELIVERY = ("head", "tries", "due_ms", "failing_since_ms", "stopped", "success_ms")
_COLUMNS = (
    "partner", "id", "url", "types", "charger_id", "vehicle_id", "description", "enabled",
    "max_batch", "rate_mhz", "signature", "secret", "old_secret", "old_until_ms", "created_ms",
    *_POSITION, *_DELIVERY, "lease_ms", "fence",
)  # fmt: skip


def _selected(alias: str) -> str:
    """The columns, and the number of parked messages: a row of `webhook_of`."""
    return f"""
{columns(alias, _COLUMNS)},
(SELECT count(*) FROM webhook_parked p
 WHERE p.partner = {alias}.partner AND p.webhook = {alias}.id)"""


ADD = f"""
INSERT INTO webhooks ({", ".join(_COLUMNS)}, lease)
SELECT {", ".join(f"${number}" for number in range(1, len(_COLUMNS) + 1))}, ''
WHERE EXISTS (SELECT 1 FROM partners p WHERE p.id = $1)
  AND (SELECT count(*) FROM webhooks w WHERE w.partner = $1) < {MAX_ENDPOINTS}
"""
OF_PARTNER = f"""
SELECT {_selected("w")} FROM webhooks w WHERE w.partner = $1 ORDER BY w.created_ms, w.id
"""
GET = f"SELECT {_selected('w')} FROM webhooks w WHERE w.partner = $1 AND w.id = $2"
COUNTS = """
SELECT w.enabled, w.stopped, w.failing_since_ms IS NULL, count(*) FROM webhooks w
GROUP BY 1, 2, 3
"""
SECRETS = "SELECT w.secret FROM webhooks w"
THIS = "SELECT 1 FROM webhooks WHERE partner = $1 AND id = $2"
ROTATE = """
UPDATE webhooks SET secret = $4, old_secret = $5, old_until_ms = $6, fence = fence + 1
WHERE partner = $1 AND id = $2 AND secret = $3
"""
ROTATED = f"{THIS} AND secret = $3"
DELETE = "DELETE FROM webhooks WHERE partner = $1 AND id = $2"
DELETE_PARKED = "DELETE FROM webhook_parked WHERE partner = $1 AND webhook = $2"
DELETE_ATTEMPTS = "DELETE FROM webhook_attempts WHERE partner = $1 AND webhook = $2"
HEADS = f"""
SELECT {HEAD}, coalesce((SELECT d.updated_ms FROM derivations d WHERE d.partner = $1), 0)
"""
# The last event up to a number. An event's id begins with its time of receipt.
EVENT_AT = (
    "SELECT e.id FROM events e WHERE e.partner = $1 AND e.seq <= $2 ORDER BY e.seq DESC LIMIT 1"
)
BACKLOG = f"""
SELECT {HEAD} - w.seq, (SELECT count(*) FROM (
    SELECT 1 FROM session_versions u
    WHERE u.partner = $1 AND (u.updated_ms, u.id) > (w.session_ms, w.session_id)
    LIMIT {MAX_BACKLOG}) x)
FROM webhooks w WHERE w.partner = $1 AND w.id = $2
"""

EVENT = "SELECT e.seq, e.body FROM events e WHERE e.partner = $1 AND e.id = $2"
WITHDRAWAL = "SELECT w.seq, w.body FROM withdrawals w WHERE w.partner = $1 AND w.id = $2"


# Delivering ---------------------------------------------------------------------------------------

# A later instant than these bounds allow was stored before the clock was set back. It is ignored.
LONGEST_LEASE_MS = 60_000
LONGEST_PACE_MS = 2_000_000
LONGEST_PAUSE_MS = 100_000_000


def is_free(now: str) -> str:
    """SQL that is true if the endpoint is due and no process delivers to it."""
    at = f"CAST({now} AS BIGINT)"
    return f"""(
    enabled = 1 AND stopped = ''
    AND {lease_has_expired(at, LONGEST_LEASE_MS)}
    AND due_ms NOT BETWEEN {at} + 1 AND {at}
        + CASE head WHEN '' THEN {LONGEST_PACE_MS} ELSE {LONGEST_PAUSE_MS} END)"""


# The free endpoints that have something to send: a log entry after their position, or a parked
# message that is due at $2.
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
CLAIM = f"""
WITH {batch("wanted", "partner BIGINT", "id")}
UPDATE webhooks SET lease = $1, lease_ms = $4, fence = fence + 1
FROM wanted t
WHERE webhooks.partner = t.partner AND webhooks.id = t.id AND {is_free("$3")}
RETURNING {_selected("webhooks")}
"""
RELEASE = "UPDATE webhooks SET lease_ms = 0 WHERE lease_ms > $1"
RENEW = f"""
WITH {batch("held", "partner BIGINT", "id")}
UPDATE webhooks SET lease_ms = $3 FROM held h
WHERE webhooks.partner = h.partner AND webhooks.id = h.id
  AND webhooks.lease = $1 AND webhooks.lease_ms > 0
"""

FENCES = f"""
WITH {batch("held", "partner BIGINT", "id")}
SELECT w.partner, w.id, w.fence FROM webhooks w
JOIN held h ON h.partner = w.partner AND h.id = w.id
WHERE w.partner > $1 AND w.lease = $3
"""

_SAVED = ("lease_ms", *_POSITION, *_DELIVERY)
_TEXTS = {"session_id", "passed", "head", "stopped"}
_SAVED_COLUMNS = [name if name in _TEXTS else f"{name} BIGINT" for name in _SAVED]
SAVE = f"""
WITH {batch("done", "partner BIGINT", "id", "fence BIGINT", *_SAVED_COLUMNS)}
UPDATE webhooks SET {", ".join(f"{name} = d.{name}" for name in _SAVED)}
FROM done d
WHERE webhooks.partner = d.partner AND webhooks.id = d.id
  AND webhooks.lease = $1 AND webhooks.fence = d.fence
"""
RELEASE_CHANGED = f"""
WITH {batch("ended", "partner BIGINT", "id", "fence BIGINT")}
UPDATE webhooks SET lease_ms = 0 FROM ended e
WHERE webhooks.partner = e.partner AND webhooks.id = e.id
  AND webhooks.lease = $1 AND webhooks.fence <> e.fence
"""


def webhook_of(row: Row) -> Endpoint:
    """The endpoint of a row of `_selected`."""
    values = dict(zip((*_COLUMNS, "parked"), row, strict=True))
    seq, session_ms, session_id, sent, caught_up_ms = (values.pop(name) for name in _POSITION)
    values["position"] = LogPosition(seq, session_ms, session_id, tuple(sent.split()), caught_up_ms)
    values["types"] = tuple(map(MessageType, values["types"].split()))
    values["signature"] = SignatureKind(values["signature"])
    values["enabled"] = bool(values["enabled"])
    return Endpoint(**values)


def row_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of these fields of an endpoint, with their values."""
    row = dict(fields)
    if "types" in row:
        row["types"] = " ".join(row["types"])
    if "enabled" in row:
        row["enabled"] = int(row["enabled"])
    if (position := row.pop("position", None)) is not None:
        values = (*position[:3], " ".join(position.sent), position.caught_up_ms)
        row |= zip(_POSITION, values, strict=True)
    return row


def _saved_row(endpoint: Endpoint) -> tuple[object, ...]:
    row = row_of({name: getattr(endpoint, name) for name in ("lease_ms", "position", *_DELIVERY)})
    return (endpoint.partner, endpoint.id, endpoint.fence, *(row[name] for name in _SAVED))


# Parked messages ----------------------------------------------------------------------------------


class Parked(msgspec.Struct, array_like=True, frozen=True):
    """A message that is sent apart from the queue. Without `due_ms` it failed for good."""

    partner: int
    webhook: str
    id: str
    tries: int
    due_ms: int | None
    since_ms: int


_PARKED = Parked.__struct_fields__
PARK = f"""
WITH {batch("parked", *columns_of(Parked), parameter="$1")}
INSERT INTO webhook_parked ({", ".join(_PARKED)}) SELECT {columns("p", _PARKED)} FROM parked p
WHERE (SELECT 1 FROM webhooks w WHERE w.partner = p.partner AND w.id = p.webhook) IS NOT NULL
ON CONFLICT (partner, webhook, id) DO UPDATE
SET tries = excluded.tries, due_ms = excluded.due_ms
"""
UNPARK = f"""
WITH {batch("sent", "partner BIGINT", "webhook", "id", parameter="$1")}
DELETE FROM webhook_parked WHERE (partner, webhook, id) IN (
    SELECT s.partner, s.webhook, s.id FROM sent s)
"""
PARKED_DUE = f"""
SELECT {", ".join(_PARKED)} FROM webhook_parked
WHERE partner = $1 AND webhook = $2 AND due_ms <= $3 ORDER BY due_ms, id LIMIT $4
"""
RETRY_FAILED = """
UPDATE webhook_parked SET due_ms = $3, tries = 0
WHERE partner = $1 AND webhook = $2 AND due_ms IS NULL AND since_ms >= $4
"""

# Attempts -----------------------------------------------------------------------------------------

_ATTEMPT = Attempt.__struct_fields__
ADD_ATTEMPTS = f"""
WITH {batch("made", *columns_of(Attempt), parameter="$1")}
INSERT INTO webhook_attempts ({", ".join(_ATTEMPT)}) SELECT {columns("m", _ATTEMPT)} FROM made m
WHERE (SELECT 1 FROM webhooks w WHERE w.partner = m.partner AND w.id = m.webhook) IS NOT NULL
  AND {{unless_erased}}
ON CONFLICT (partner, webhook, id) DO NOTHING
"""
DELETE_OLDEST = f"""
DELETE FROM webhook_attempts WHERE partner = $1 AND webhook = $2 AND id <= (
    SELECT a.id FROM webhook_attempts a WHERE a.partner = $1 AND a.webhook = $2
    ORDER BY a.id DESC LIMIT 1 OFFSET {MAX_ATTEMPTS})
"""
EXPIRED = """
SELECT webhook, id FROM webhook_attempts WHERE partner = $1 AND at_ms < $2 LIMIT $3
"""
DELETE_EXPIRED = delete_batch("webhook_attempts", "webhook", "id")
ATTEMPTS = f"""
SELECT {", ".join(_ATTEMPT)} FROM webhook_attempts
WHERE partner = $1 AND webhook = $2 AND id < $3 AND ($4 = 0 OR error <> '')
ORDER BY id DESC LIMIT $5
"""


class Webhooks(Repository):
    """The endpoints of all partners. Every method raises Unavailable.

    Methods that change an endpoint take statements of the audit trail, `also`, for the same
    transaction. They have no effect if there is no such endpoint.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        erased = unless_erased(engine.dialect, "m.partner", names_in_attempt)
        self._add_attempts = ADD_ATTEMPTS.format(unless_erased=erased)

    async def add(self, webhook: Endpoint, *also: Statement) -> bool:
        """Stores a new endpoint; False if the partner has too many."""
        fields = {name: getattr(webhook, name) for name in Endpoint.__slots__ if name != "parked"}
        row = row_of(fields)
        added, *_ = await self._engine.write_all(
            Statement(ADD, tuple(row[name] for name in _COLUMNS)),
            *where_found(also, THIS, webhook.partner, webhook.id),
        )
        return bool(added)

    async def of_partner(self, partner: int) -> list[Endpoint]:
        """The partner's endpoints, by age."""
        return [webhook_of(row) for row in await self._engine.scan(OF_PARTNER, partner)]

    async def get(self, partner: int, webhook_id: str) -> Endpoint:
        """The endpoint. Raises NotFound."""
        rows = await self._engine.read(GET, partner, webhook_id)
        if not rows:
            raise NotFound
        return webhook_of(rows[0])

    async def counts(self) -> dict[Status, int]:
        """The number of endpoints of all partners, by status."""
        counted = dict.fromkeys(Status, 0)
        for enabled, stopped, well, number in await self._engine.read(COUNTS):
            status = status_of(stopped, enabled=enabled, failing=not well)
            counted[status] += int(number)
        return counted

    async def secrets(self) -> list[str]:
        """The encrypted secrets of all endpoints of all partners."""
        return [str(secret) for (secret,) in await self._engine.read(SECRETS)]

    async def change(
        self, partner: int, webhook_id: str, fields: Mapping[str, Any], *also: Statement
    ) -> None:
        """Sets these fields. A process that delivers stops soon, and the next one starts from the
        stored fields. Raises NotFound.
        """
        row = row_of(fields)
        assigned = [f"{name} = ${number}" for number, name in enumerate(row, start=3)]
        sql = f"""
UPDATE webhooks SET {", ".join(assigned)}, fence = fence + 1 WHERE partner = $1 AND id = $2
"""
        changed, *_ = await self._engine.write_all(
            Statement(sql, (partner, webhook_id, *row.values())),
            *where_found(also, THIS, partner, webhook_id),
        )
        if not changed:
            raise NotFound

    async def rotate(self, webhook: Endpoint, rotated: Endpoint, *also: Statement) -> bool:
        """Stores the secrets of `rotated`, unless `webhook` has another secret by now."""
        secrets = rotated.secret, rotated.old_secret, rotated.old_until_ms
        done, *_ = await self._engine.write_all(
            Statement(ROTATE, (webhook.partner, webhook.id, webhook.secret, *secrets)),
            *where_found(also, ROTATED, webhook.partner, webhook.id, rotated.secret),
        )
        return bool(done)

    async def delete(self, partner: int, webhook_id: str, *also: Statement) -> None:
        """Deletes the endpoint, if it exists, with its parked messages and attempts."""
        await self._engine.write_all(
            *where_found(also, THIS, partner, webhook_id),
            Statement(DELETE, (partner, webhook_id)),
            Statement(DELETE_PARKED, (partner, webhook_id)),
            Statement(DELETE_ATTEMPTS, (partner, webhook_id)),
        )

    async def end_of_log(self, partner: int) -> LogPosition:
        """The position after all that is in the partner's log now."""
        ((seq, session_ms),) = await self._engine.read(HEADS, partner)
        return LogPosition(seq, session_ms, LAST_ID, caught_up_ms=session_ms)

    async def backlog(self, endpoint: Endpoint) -> WebhookBacklog:
        """What the endpoint has not received yet: events, and changes of sessions up to
        MAX_BACKLOG. Raises NotFound.
        """
        rows = await self._engine.scan(BACKLOG, endpoint.partner, endpoint.id)
        if not rows:
            raise NotFound
        events, sessions = rows[0]
        return WebhookBacklog(
            events=max(0, events) if endpoint.wants_events else 0,
            sessions=sessions if endpoint.wants_sessions else 0,
        )

    async def event_at(self, partner: int, seq: int) -> str | None:
        """The id of the last event up to this number."""
        rows = await self._engine.read(EVENT_AT, partner, seq)
        return rows[0][0] if rows else None

    async def log_entry(self, partner: int, event_id: str, table: str) -> tuple[int, str] | None:
        """The number and the JSON of an event, or of its withdrawal, if it exists."""
        sql = EVENT if table == EVENTS else WITHDRAWAL
        row = await self._engine.look_up(sql, partner, event_id)
        return None if row is None else (row[0], row[1])

    # Delivering

    async def due(self, now_ms: int, limit: int) -> list[tuple[int, str]]:
        """Endpoints that are due and to which no process delivers: partner and id."""
        return [(partner, id) for partner, id in await self._engine.scan(DUE, 0, now_ms, limit)]

    async def claim(
        self, lease: str, wanted: Iterable[tuple[int, str]], now_ms: int, until_ms: int
    ) -> list[Endpoint]:
        """Claims the leases of these endpoints that are free."""
        rows = await self._engine.write_returning(CLAIM, lease, batch_of(wanted), now_ms, until_ms)
        return [webhook_of(row) for row in rows]

    async def release_all(self) -> None:
        """Releases all leases. Only for a process that knows that it is alone."""
        await self._engine.write(RELEASE, 0)

    async def renew(self, lease: str, held: Iterable[tuple[int, str]], until_ms: int) -> None:
        """Extends the leases of these endpoints that the process still holds."""
        await self._engine.write(RENEW, lease, batch_of(held), until_ms)

    async def fences(
        self, lease: str, held: Iterable[tuple[int, str]]
    ) -> dict[tuple[int, str], int]:
        """The fences of these endpoints, of those that exist and have this lease."""
        rows = await self._engine.scan(FENCES, 0, batch_of(held), lease)
        return {(partner, id): fence for partner, id, fence in rows}

    async def save(
        self,
        lease: str,
        reached: Sequence[Endpoint],
        parked: Sequence[Parked],
        unparked: Sequence[tuple[int, str, str]],
        attempts: Sequence[Attempt],
    ) -> None:
        """Stores position, delivery and lease of endpoints that were not changed meanwhile, and the
        other rows.
        """
        ended = [
            (endpoint.partner, endpoint.id, endpoint.fence)
            for endpoint in reached if not endpoint.lease_ms
        ]  # fmt: skip
        batches: list[tuple[str, tuple[object, ...], Sequence[object]]] = [
            (SAVE, (lease,), [_saved_row(endpoint) for endpoint in reached]),
            (RELEASE_CHANGED, (lease,), ended),
            (PARK, (), parked),
            (UNPARK, (), unparked),
            (self._add_attempts, (), attempts),
        ]
        await self._engine.write_all(
            *(Statement(sql, (*first, batch_of(rows))) for sql, first, rows in batches if rows)
        )

    # Parked messages

    async def park(self, parked: Parked, *also: Statement) -> None:
        """Parks the message: it will be sent apart from the queue."""
        await self._engine.write_all(
            Statement(PARK, (batch_of([parked]),)),
            *where_found(also, THIS, parked.partner, parked.webhook),
        )

    async def parked_due(
        self, partner: int, webhook_id: str, now_ms: int, limit: int
    ) -> list[Parked]:
        """Parked messages that are due."""
        rows = await self._engine.read(PARKED_DUE, partner, webhook_id, now_ms, limit)
        return [Parked(*row) for row in rows]

    async def retry_failed(
        self, partner: int, webhook_id: str, now_ms: int, since_ms: int, *also: Statement
    ) -> int:
        """Tries messages again that failed for good since an instant; returns how many."""
        retried, *_ = await self._engine.write_all(
            Statement(RETRY_FAILED, (partner, webhook_id, now_ms, since_ms)),
            *where_found(also, THIS, partner, webhook_id),
        )
        return retried

    # Attempts

    async def attempts(
        self, partner: int, webhook_id: str, before: str | None, limit: int, *, failed: bool = False
    ) -> list[Attempt]:
        """The newest attempts, or the newest ones before this id."""
        before = before or LAST_ID
        rows = await self._engine.scan(ATTEMPTS, partner, webhook_id, before, int(failed), limit)
        return [Attempt(*row) for row in rows]

    async def add_attempt(self, attempt: Attempt) -> None:
        """Stores the attempt, and deletes the oldest ones if there are too many."""
        await self._engine.write_all(
            Statement(self._add_attempts, (batch_of([attempt]),)),
            Statement(DELETE_OLDEST, (attempt.partner, attempt.webhook)),
        )

    async def delete_oldest_attempts(self, partner: int, webhook_id: str) -> None:
        """Deletes all but the newest attempts."""
        await self._engine.write(DELETE_OLDEST, partner, webhook_id)

    async def delete_attempts_before(self, partner: int, before_ms: int) -> None:
        """Deletes attempts from before an instant, some at a time."""
        while expired := await self._engine.scan(EXPIRED, partner, before_ms, EXPIRED_AT_ONCE):
            await self._engine.write(DELETE_EXPIRED, partner, batch_of(expired))
