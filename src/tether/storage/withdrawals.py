"""Events that are taken back: as if they had never been sent, but that followers are told.

A withdrawal is an entry of the partner's log, with the next number in the order of commits. The
event goes in the same transaction; what was derived from it is derived again when the projector
comes to that entry.
"""

from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from tether.domain.models import Event, Withdrawal, WithdrawalReason, from_json, to_json
from tether.domain.timestamps import format_instant
from tether.storage.engine import Engine, Statement, batch, batch_of, columns_of

AT_ONCE = 500  # events in a transaction, for which others wait

FIND = f"""
WITH {batch("batch", "id")}
SELECT b.id, (SELECT e.body FROM events e WHERE e.partner = $1 AND e.id = b.id),
       (SELECT w.id FROM withdrawals w WHERE w.partner = $1 AND w.id = b.id)
FROM batch b ORDER BY b.place
"""


class WithdrawalRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A withdrawal as a batch has it; `at_ms` is when the event happened."""

    id: str
    type: str
    charger_id: str
    vehicle_id: str
    at_ms: int
    body: str


_BATCH = batch("batch", *columns_of(WithdrawalRow))

# Only what is still there is taken back: another may just have done it.
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
REMOVE = f"""
WITH {_BATCH} DELETE FROM events WHERE partner = $1 AND id IN (SELECT b.id FROM batch b)
"""


class Withdrawals:
    """The withdrawals of all partners. Every method raises Unavailable."""

    def __init__(
        self, engine: Engine, now_ms: Callable[[], int], on_withdrawn: Callable[[int], None]
    ) -> None:
        """`on_withdrawn` is told whose events were taken back."""
        self._engine = engine
        self._now_ms = now_ms
        self._on_withdrawn = on_withdrawn
        self._add = ADD.format(event_numbers=engine.dialect.event_numbers)

    async def withdraw(
        self,
        partner: int,
        ids: Sequence[str],
        *also: Statement,
        reason: WithdrawalReason | None = None,
    ) -> AsyncIterator[list[bool]]:
        """Takes back the events of these ids, some at a time. The reason is told if it was not
        their sender who wants that.

        Of each tells whether it is taken back, now or before; else the partner never had it. With
        the first that are taken back now go the statements `also`: of the audit trail.
        """
        for start in range(0, len(ids), AT_ONCE):
            some = ids[start : start + AT_ONCE]
            found, took = await self._withdraw(partner, some, also, reason)
            also = () if took else also
            yield found

    async def _withdraw(
        self,
        partner: int,
        ids: Sequence[str],
        also: Sequence[Statement],
        reason: WithdrawalReason | None,
    ) -> tuple[list[bool], bool]:
        """The same of some, and whether any were taken back now."""
        found = await self._engine.scan(FIND, partner, batch_of([id] for id in ids))
        bodies = {id: body for id, body, _ in found if body is not None}
        if bodies:
            now_ms = self._now_ms()
            rows = batch_of(_row(body, now_ms, reason) for body in bodies.values())
            await self._engine.write_all(
                Statement(self._add, (partner, rows, len(bodies))),
                Statement(REMOVE, (partner, rows)),
                *also,
            )
            self._on_withdrawn(partner)
        return [body is not None or before is not None for _, body, before in found], bool(bodies)


def _row(body: str, now_ms: int, reason: WithdrawalReason | None) -> WithdrawalRow:
    event = from_json(Event, body)
    assert event.id is not None
    assert event.timestamp is not None
    shown = Withdrawal(
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
        to_json(shown).decode(),
    )  # fmt: skip
