"""Webhooks: the endpoints and their positions in the log, parked messages, and attempts.

A process that delivers to an endpoint holds its lease. What it did since it took the lease counts
only if the endpoint's `fence` is still the same: a new lease, and every change by its owner, gives
it another one.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from tether.domain.errors import NotFound
from tether.domain.webhooks import (
    LAST_ID,
    MOST_ENDPOINTS,
    Attempt,
    Endpoint,
    LogPosition,
    MessageType,
    SignatureKind,
    Status,
    status_of,
)
from tether.storage.engine import Engine, Row, Statement, batch, batch_of, columns_of, where_found
from tether.storage.erasures import names_in_attempt, unless_erased
from tether.storage.log_positions import HEAD
from tether.storage.webhook_rows import (
    AGED,
    ATTEMPTS,
    DUE,
    EVENT,
    FORGET,
    FORGET_SOME,
    NOTE,
    PARK,
    PARKED_DUE,
    RETRY_FAILED,
    UNPARK,
    WITHDRAWAL,
    Backlog,
    Claimed,
    Heads,
    Parked,
    is_free,
)

MOST_PARKED = 1_000  # of an endpoint, those that failed for good included
MOST_BEHIND = 1_000  # changes of sessions that are counted
AGED_AT_ONCE = 500  # attempts in a transaction, for which others wait

# Endpoints ----------------------------------------------------------------------------------------

_CONFIGURED = (
    "url", "types", "charger_id", "vehicle_id", "description", "enabled", "max_batch", "rate_mhz",
    "signature", "secret", "old_secret", "old_until_ms",
)  # fmt: skip
_WANTED = ("types", "charger_id", "vehicle_id")
_POSITION = ("seq", "session_ms", "session_id", "passed", "told_ms")
_DELIVERY = ("head", "tries", "due_ms", "failing_since_ms", "stopped", "success_ms")
_COLUMNS = ("partner", "id", *_CONFIGURED, "created_ms", *_POSITION, *_DELIVERY)
_SELECTED = ", ".join(f"w.{name}" for name in _COLUMNS)
_PARKED = """
(SELECT count(*) FROM webhook_parked p WHERE p.partner = w.partner AND p.webhook = w.id)
"""

ADD = f"""
INSERT INTO webhooks ({", ".join(_COLUMNS)}, lease, lease_ms, fence)
SELECT {", ".join(f"${number}" for number in range(1, len(_COLUMNS) + 1))}, '', 0, 0
WHERE EXISTS (SELECT 1 FROM partners p WHERE p.id = $1)
  AND (SELECT count(*) FROM webhooks w WHERE w.partner = $1) < {MOST_ENDPOINTS}
"""
OF_PARTNER = f"""
SELECT {_SELECTED}, {_PARKED} FROM webhooks w WHERE w.partner = $1 ORDER BY w.created_ms, w.id
"""
GET = f"SELECT {_SELECTED}, {_PARKED} FROM webhooks w WHERE w.partner = $1 AND w.id = $2"
COUNTS = """
SELECT w.enabled, w.stopped, w.failing_since_ms IS NULL, count(*) FROM webhooks w
GROUP BY 1, 2, 3
"""
THIS = "SELECT 1 FROM webhooks WHERE partner = $1 AND id = $2"
DELETE = "DELETE FROM webhooks WHERE partner = $1 AND id = $2"
DELETE_PARKED = "DELETE FROM webhook_parked WHERE partner = $1 AND webhook = $2"
DELETE_ATTEMPTS = "DELETE FROM webhook_attempts WHERE partner = $1 AND webhook = $2"
HEADS = f"""
SELECT {HEAD}, coalesce((SELECT d.updated_ms FROM derivations d WHERE d.partner = $1), 0)
"""
# Which received messages must come first: an event's id begins with its time of receipt.
EVENT_AT = (
    "SELECT e.id FROM events e WHERE e.partner = $1 AND e.seq <= $2 ORDER BY e.seq DESC LIMIT 1"
)
BACKLOG = f"""
SELECT {HEAD} - w.seq, (SELECT count(*) FROM (
    SELECT 1 FROM session_versions u
    WHERE u.partner = $1 AND (u.updated_ms, u.id) > (w.session_ms, w.session_id)
    LIMIT {MOST_BEHIND}) x)
FROM webhooks w WHERE w.partner = $1 AND w.id = $2
"""

# Delivering ---------------------------------------------------------------------------------------

CLAIM = f"""
WITH {batch("wanted", "partner BIGINT", "id")}
UPDATE webhooks SET lease = $1, lease_ms = $4, fence = fence + 1
FROM wanted t
WHERE webhooks.partner = t.partner AND webhooks.id = t.id AND {is_free("$3")}
RETURNING {", ".join(f"webhooks.{name}" for name in _COLUMNS)}, (
    SELECT count(*) FROM webhook_parked p
    WHERE p.partner = webhooks.partner AND p.webhook = webhooks.id), webhooks.fence
"""
RELEASE = "UPDATE webhooks SET lease_ms = 0 WHERE lease_ms > $1"
RENEW = f"""
WITH {batch("held", "partner BIGINT", "id")}
UPDATE webhooks SET lease_ms = $3 FROM held h
WHERE webhooks.partner = h.partner AND webhooks.id = h.id
  AND webhooks.lease = $1 AND webhooks.lease_ms > 0
"""


class Progress(msgspec.Struct, array_like=True, frozen=True):
    """How far an endpoint is, under its lease: the columns of its position and of its delivery."""

    partner: int
    id: str
    fence: int
    seq: int
    session_ms: int
    session_id: str
    passed: str
    told_ms: int
    head: str
    tries: int
    due_ms: int
    failing_since_ms: int | None
    stopped: str
    success_ms: int | None
    lease_ms: int
    """0 gives it back."""


_PROGRESS = columns_of(Progress)
SAVE = f"""
WITH {batch("done", *_PROGRESS)}
UPDATE webhooks SET {", ".join(f"{name} = d.{name}" for name in Progress.__struct_fields__[3:])}
FROM done d
WHERE webhooks.partner = d.partner AND webhooks.id = d.id
  AND webhooks.lease = $1 AND webhooks.fence = d.fence
"""


def webhook_of(row: Row) -> Endpoint:
    """The endpoint of a row of _COLUMNS and the number of its parked messages."""
    values = dict(zip((*_COLUMNS, "parked"), row, strict=True))
    seq, session_ms, session_id, sent, caught_up_ms = (values.pop(name) for name in _POSITION)
    values["position"] = LogPosition(seq, session_ms, session_id, tuple(sent.split()), caught_up_ms)
    values["types"] = tuple(map(MessageType, values["types"].split()))
    values["signature"] = SignatureKind(values["signature"])
    values["enabled"] = bool(values["enabled"])
    return Endpoint(**values)


def columns_of_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of these fields of an endpoint."""
    columns = dict(fields)
    if "types" in columns:
        columns["types"] = " ".join(columns["types"])
    if "enabled" in columns:
        columns["enabled"] = int(columns["enabled"])
    if (position := columns.pop("position", None)) is not None:
        values = (*position[:3], " ".join(position.sent), position.caught_up_ms)
        columns |= zip(_POSITION, values, strict=True)
    return columns


def progress_of(endpoint: Endpoint, fence: int, lease_ms: int) -> Progress:
    """How far the endpoint is, under the lease that has this fence."""
    fields = {name: getattr(endpoint, name) for name in ("position", *_DELIVERY)}
    return Progress(
        partner=endpoint.partner, id=endpoint.id, fence=fence, lease_ms=lease_ms,
        **columns_of_fields(fields),
    )  # fmt: skip


class Webhooks:
    """The endpoints of all partners. Every method raises Unavailable.

    What changes one takes statements that belong into the same transaction: of the audit trail.
    Where there is no such endpoint they are not run.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        erased = unless_erased(engine.dialect, "m.partner", names_in_attempt)
        self._note = NOTE.format(unless_erased=erased)

    async def add(self, webhook: Endpoint, *also: Statement) -> bool:
        """Stores a new endpoint; returns whether there was room for it."""
        fields = {name: getattr(webhook, name) for name in Endpoint.__slots__ if name != "parked"}
        columns = columns_of_fields(fields)
        added, *_ = await self._engine.write_all(
            Statement(ADD, tuple(columns[name] for name in _COLUMNS)),
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
        """How many endpoints there are of all partners, by how they are."""
        counted = dict.fromkeys(Status, 0)
        for enabled, stopped, well, number in await self._engine.read(COUNTS):
            status = status_of(stopped, enabled=enabled, failing=not well)
            counted[status] += int(number)
        return counted

    async def change(
        self, partner: int, webhook_id: str, fields: Mapping[str, Any], *also: Statement
    ) -> None:
        """Sets these fields. If the position is among them, or what it wants, what is under way
        counts no more, and whoever delivers goes on from there. Raises NotFound.
        """
        columns = columns_of_fields(fields)
        assigned = [f"{name} = ${number}" for number, name in enumerate(columns, start=3)]
        if columns.keys() & {*_POSITION, *_DELIVERY, *_WANTED}:
            assigned += ["fence = fence + 1", "lease_ms = 0"]
        sql = f"UPDATE webhooks SET {', '.join(assigned)} WHERE partner = $1 AND id = $2"
        changed, *_ = await self._engine.write_all(
            Statement(sql, (partner, webhook_id, *columns.values())),
            *where_found(also, THIS, partner, webhook_id),
        )
        if not changed:
            raise NotFound

    async def delete(self, partner: int, webhook_id: str, *also: Statement) -> bool:
        """Deletes the endpoint with its attempts; returns whether there was one."""
        counts = await self._engine.write_all(
            *where_found(also, THIS, partner, webhook_id),
            Statement(DELETE, (partner, webhook_id)),
            Statement(DELETE_PARKED, (partner, webhook_id)),
            Statement(DELETE_ATTEMPTS, (partner, webhook_id)),
        )
        return bool(counts[len(also)])

    async def heads(self, partner: int) -> Heads:
        """Where the orders of the partner end now."""
        ((seq, session_ms),) = await self._engine.read(HEADS, partner)
        return Heads(seq, session_ms)

    async def backlog(self, endpoint: Endpoint) -> Backlog:
        """What of the orders that it follows the endpoint has not had. Raises NotFound."""
        rows = await self._engine.scan(BACKLOG, endpoint.partner, endpoint.id)
        if not rows:
            raise NotFound
        events, sessions = rows[0]
        return Backlog(
            max(0, events) if endpoint.wants_events else 0,
            sessions if endpoint.wants_sessions else 0,
        )

    async def event_at(self, partner: int, seq: int) -> str | None:
        """The id of the last event up to this number."""
        rows = await self._engine.read(EVENT_AT, partner, seq)
        return rows[0][0] if rows else None

    async def event(self, partner: int, event_id: str) -> tuple[int, str] | None:
        """The number and the JSON of an event, if it is there."""
        row = await self._engine.look_up(EVENT, partner, event_id)
        return None if row is None else (row[0], row[1])

    async def withdrawal(self, partner: int, event_id: str) -> tuple[int, str] | None:
        """The same of the withdrawal of an event."""
        row = await self._engine.look_up(WITHDRAWAL, partner, event_id)
        return None if row is None else (row[0], row[1])

    # Delivering

    async def due(self, now_ms: int, limit: int) -> list[tuple[int, str]]:
        """Endpoints whose turn it is and that nobody delivers to: partner and id."""
        return [(partner, id) for partner, id in await self._engine.scan(DUE, 0, now_ms, limit)]

    async def claim(
        self, lease: str, wanted: Iterable[tuple[int, str]], now_ms: int, until_ms: int
    ) -> list[Claimed]:
        """Takes the lease of those of these endpoints that nobody has."""
        rows = await self._engine.write_returning(CLAIM, lease, batch_of(wanted), now_ms, until_ms)
        return [Claimed(webhook_of(columns), fence) for *columns, fence in rows]

    async def release_all(self) -> None:
        """Gives back all leases: for whoever knows that no other process has any."""
        await self._engine.write(RELEASE, 0)

    async def renew(self, lease: str, held: Iterable[tuple[int, str]], until_ms: int) -> None:
        """Keeps the leases of these endpoints that this process has."""
        await self._engine.write(RENEW, lease, batch_of(held), until_ms)

    async def save(
        self,
        lease: str,
        progress: Sequence[Progress],
        parked: Sequence[Parked],
        unparked: Sequence[tuple[int, str, str]],
        attempts: Sequence[Attempt],
    ) -> None:
        """Stores how far these endpoints are, unless their leases were lost."""
        statements = [
            Statement(SAVE, (lease, batch_of(progress))),
            Statement(PARK, (1, batch_of(parked))),
            Statement(UNPARK, (1, batch_of(unparked))),
            Statement(self._note, (1, batch_of(attempts))),
        ]
        rows = (progress, parked, unparked, attempts)
        await self._engine.write_all(
            *(statement for statement, some in zip(statements, rows, strict=True) if some)
        )

    # Parked messages

    async def park(self, parked: Parked, *also: Statement) -> None:
        """The message is sent apart from the queue."""
        await self._engine.write_all(
            Statement(PARK, (1, batch_of([parked]))),
            *where_found(also, THIS, parked.partner, parked.webhook),
        )

    async def parked_due(
        self, partner: int, webhook_id: str, now_ms: int, limit: int
    ) -> list[Parked]:
        """Parked messages whose turn it is."""
        rows = await self._engine.read(PARKED_DUE, partner, webhook_id, now_ms, limit)
        return [Parked(*row) for row in rows]

    async def retry_failed(
        self, partner: int, webhook_id: str, now_ms: int, since_ms: int, *also: Statement
    ) -> int:
        """Those which failed for good since then are tried again; returns how many they are."""
        retried, *_ = await self._engine.write_all(
            Statement(RETRY_FAILED, (partner, webhook_id, now_ms, since_ms)),
            *where_found(also, THIS, partner, webhook_id),
        )
        return retried

    # Attempts

    async def attempts(
        self, partner: int, webhook_id: str, before: str | None, limit: int, *, failed: bool = False
    ) -> list[Attempt]:
        """The newest attempts, or those before the one of this id."""
        before = before or LAST_ID
        rows = await self._engine.scan(ATTEMPTS, partner, webhook_id, before, int(failed), limit)
        return [Attempt(*row) for row in rows]

    async def forget_attempts(self, partner: int, webhook_id: str) -> None:
        """Deletes all but the newest attempts."""
        await self._engine.write(FORGET, partner, webhook_id)

    async def forget_aged(self, partner: int, before_ms: int) -> None:
        """Deletes attempts that are older, some at a time."""
        while aged := await self._engine.scan(AGED, partner, before_ms, AGED_AT_ONCE):
            await self._engine.write(FORGET_SOME, partner, batch_of(aged))
