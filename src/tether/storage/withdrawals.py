"""Withdrawals undo events, as if these had never been sent. Clients that follow the log get them.

A withdrawal is an entry of the partner's log, with the next number in the order of commits. The
event is deleted in the same transaction. When the projector comes to the entry, it derives the
sessions again.
"""

from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from tether.domain.models import Event, Withdrawal, WithdrawalReason, from_json, to_json
from tether.domain.timestamps import format_instant
from tether.storage.engine import (
    Engine,
    Repository,
    Statement,
    batch,
    batch_of,
    columns_of,
    delete_batch,
    where_found,
)

AT_ONCE = 500  # events in a transaction; other writes wait for it

FIND = f"""
WITH {batch("batch", "id")}
SELECT b.id, (SELECT e.body FROM events e WHERE e.partner = $1 AND e.id = b.id),
       (SELECT w.id FROM withdrawals w WHERE w.partner = $1 AND w.id = b.id)
FROM batch b ORDER BY b.place
"""


class WithdrawalRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A withdrawal in a batch; `at_ms` is the instant of the event."""

    id: str
    type: str
    charger_id: str
    vehicle_id: str
    at_ms: int
    body: str


_BATCH = batch("batch", *columns_of(WithdrawalRow))

# Only events that still exist. Another request may have withdrawn the others just now.
ADD = f"""
WITH {_BATCH}, ready AS (
    SELECT * FROM (
        SELECT b.*, (SELECT e.seq FROM events e WHERE e.partner = $1 AND e.id = b.id) AS event_seq
        FROM batch b
    ) b
    WHERE b.event_seq IS NOT NULL
), numbers (base) AS ({{event_numbers}})
INSERT INTO withdrawals (partner, seq, id, event_seq, type, charger_id, vehicle_id, at_ms, body)
SELECT $1, n.base + r.place, r.id, r.event_seq, r.type, r.charger_id, r.vehicle_id, r.at_ms, r.body
FROM numbers n CROSS JOIN ready r
WHERE true
ON CONFLICT DO NOTHING
"""
ANY = f"WITH {_BATCH} SELECT 1 FROM events e JOIN batch b ON b.id = e.id WHERE e.partner = $1"
REMOVE = delete_batch("events", "id")


class Withdrawals(Repository):
    """The withdrawals of all partners. Every method raises Unavailable."""

    def __init__(
        self, engine: Engine, now_ms: Callable[[], int], on_withdrawn: Callable[[int], None]
    ) -> None:
        """`on_withdrawn` is called with the partner whose events were withdrawn."""
        super().__init__(engine)
        self._now_ms = now_ms
        self._on_withdrawn = on_withdrawn
        self._add = ADD.format(event_numbers=engine.dialect.event_numbers)

    async def withdraw(
        self,
        partner: int,
        ids: Sequence[str],
        *,
        audited: Callable[[list[str]], Statement] | None = None,
        reason: WithdrawalReason | None = None,
    ) -> AsyncIterator[list[bool]]:
        """Withdraws the events with these ids, some at a time. A reason is given if their sender
        did not ask for it.

        Yields for each event whether it is withdrawn, now or before. False means that the partner
        never had it. `audited` makes the audit entry of each transaction, from the ids of the
        events that it withdraws.
        """
        for start in range(0, len(ids), AT_ONCE):
            portion = batch_of([id] for id in ids[start : start + AT_ONCE])
            found = await self._engine.scan(FIND, partner, portion)
            bodies = {id: body for id, body, _ in found if body is not None}
            if bodies:
                now_ms = self._now_ms()
                rows = batch_of(_row(body, now_ms, reason) for body in bodies.values())
                entries = [] if audited is None else [audited(list(bodies))]
                await self._engine.write_all(
                    Statement(self._add, (partner, rows, len(bodies))),
                    # While they exist: another request may have withdrawn all of them just now.
                    *where_found(entries, ANY, partner, rows),
                    Statement(REMOVE, (partner, rows)),
                )
                self._on_withdrawn(partner)
            yield [body is not None or before is not None for _, body, before in found]


def _row(body: str, now_ms: int, reason: WithdrawalReason | None) -> WithdrawalRow:
    event = from_json(Event, body)
    assert event.id is not None
    assert event.timestamp is not None
    withdrawal = Withdrawal(
        id=event.id,
        type=event.type,
        charger_id=event.charger_id,
        vehicle_id=event.vehicle_id,
        timestamp=event.timestamp,
        withdrawn_at=format_instant(now_ms),
        reason=reason,
    )
    return WithdrawalRow(
        event.id, event.type, event.charger_id, event.vehicle_id, event.at_ms,
        to_json(withdrawal).decode(),
    )  # fmt: skip
