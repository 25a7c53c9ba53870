"""How long the data of each partner is kept, and the tombstones of expired data.

Expired events leave withdrawals, and expired sessions leave rows that say that they are removed.
From these tombstones clients learn of the deletion. They are deleted later.

ADD in events.py refuses events with a timestamp before the partner's horizon. So no new event can
change the sessions around expired ones.
"""

from collections.abc import Mapping

from tether.domain.models import Withdrawal, from_json
from tether.domain.partners import RetentionPeriods
from tether.domain.timestamps import DAY_MS, parse_instant
from tether.storage.engine import Repository, Statement, batch_of, delete_batch, lease_has_expired
from tether.storage.log_positions import DERIVED, HEAD
from tether.storage.turns import throttled

TOMBSTONE_MS = 30 * DAY_MS
LEASE_MS = 10_000
AT_ONCE = 500  # rows in a transaction; other writes wait for it

_AGES = "events_ms, requests_ms, attempts_ms, horizon_ms, expired_ms"
GET = f"SELECT {_AGES} FROM retention WHERE partner = $1"
ALL = (
    f"SELECT p.id, {_AGES} FROM partners p LEFT JOIN retention r ON r.partner = p.id ORDER BY p.id"
)
SET = """
INSERT INTO retention (partner, lease_ms, {columns})
SELECT $1, 0, {values} WHERE EXISTS (SELECT 1 FROM partners WHERE id = $1)
ON CONFLICT (partner) DO UPDATE SET {changes}
"""
# The horizon only moves forward. So an event that was refused stays refused.
MOVE_HORIZON = """
INSERT INTO retention (partner, horizon_ms, lease_ms)
SELECT $1, $2, 0 WHERE EXISTS (SELECT 1 FROM partners WHERE id = $1)
ON CONFLICT (partner) DO UPDATE SET horizon_ms = CASE
    WHEN retention.horizon_ms > excluded.horizon_ms THEN retention.horizon_ms
    ELSE excluded.horizon_ms END
"""
CLAIM = f"""
UPDATE retention SET lease_ms = $2 + {LEASE_MS}
WHERE partner = $1 AND horizon_ms > coalesce(expired_ms, horizon_ms - 1)
  AND {lease_has_expired("$2", LEASE_MS)}
"""
RENEW = f"UPDATE retention SET lease_ms = $2 + {LEASE_MS} WHERE partner = $1"
RELEASE = """
UPDATE retention SET lease_ms = 0, expired_ms = coalesce($2, expired_ms) WHERE partner = $1
"""
RELEASE_ALL = "UPDATE retention SET lease_ms = 0 WHERE lease_ms > $1"

COUNT_EVENTS = "SELECT count(*) FROM events WHERE partner = $1 AND at_ms < $2"

# The last entry of the log stays, because its number must not be used again.
EXPIRED_WITHDRAWALS = f"""
SELECT seq, body FROM withdrawals
WHERE partner = $1 AND at_ms < $2 AND seq < {HEAD} AND seq <= {DERIVED}
ORDER BY seq LIMIT {AT_ONCE}
"""
DELETE_WITHDRAWALS = delete_batch("withdrawals", "seq BIGINT")
REMOVED_SESSIONS = f"""
SELECT s.id FROM sessions s
WHERE s.partner = $1 AND s.start_ms < $2 AND s.live = 0
  AND (SELECT u.updated_ms FROM session_versions u WHERE u.partner = $1 AND u.id = s.id) < $3
ORDER BY s.start_ms, s.id LIMIT {AT_ONCE}
"""
DELETE_SESSIONS = f"{delete_batch('sessions', 'id')} AND live = 0"
DELETE_VERSIONS = f"""
{delete_batch("session_versions", "id")}
AND (SELECT 1 FROM sessions s WHERE s.partner = $1 AND s.id = session_versions.id) IS NULL
"""


class Retention(Repository):
    """The retention of all partners. Every method raises Unavailable."""

    async def get(self, partner: int) -> RetentionPeriods:
        """The settings of the partner."""
        rows = await self._engine.read(GET, partner)
        return RetentionPeriods(*rows[0]) if rows else RetentionPeriods()

    async def all(self) -> list[tuple[int, RetentionPeriods]]:
        """The settings of all partners."""
        return [
            (partner, RetentionPeriods(*ages)) for partner, *ages in await self._engine.read(ALL)
        ]

    async def set(self, partner: int, periods: Mapping[str, int | None], *also: Statement) -> None:
        """Sets these periods of RetentionPeriods; the others stay."""
        sql = SET.format(
            columns=", ".join(periods),
            values=", ".join(f"${number}" for number, _ in enumerate(periods, start=2)),
            changes=", ".join(f"{name} = excluded.{name}" for name in periods),
        )
        await self._engine.write_all(Statement(sql, (partner, *periods.values())), *also)

    async def count_events_before(self, partner: int, before_ms: int) -> int:
        """The number of the partner's events before an instant."""
        ((count,),) = await self._engine.scan(COUNT_EVENTS, partner, before_ms)
        return int(count)

    async def move_horizon(self, partner: int, horizon_ms: int) -> None:
        """Moves the horizon: from now on older events are refused. When it returns, all events that
        were accepted before are visible.
        """
        before = [Statement(sql, ()) for sql in self._engine.dialect.stops_adding]
        await self._engine.write_all(*before, Statement(MOVE_HORIZON, (partner, horizon_ms)))

    async def claim(self, partner: int, now_ms: int) -> bool:
        """Claims the lease to expire the partner's events. False if another process holds it, or
        nothing can expire.
        """
        return bool(await self._engine.write(CLAIM, partner, now_ms))

    async def renew(self, partner: int, now_ms: int) -> None:
        """Extends the lease."""
        await self._engine.write(RENEW, partner, now_ms)

    async def release(self, partner: int, expired_ms: int | None = None) -> None:
        """Releases the lease; `expired_ms` is the horizon if all events before it have expired."""
        await self._engine.write(RELEASE, partner, expired_ms)

    async def release_all(self) -> None:
        """Releases all leases. Only for a process that knows that it is alone."""
        await self._engine.write(RELEASE_ALL, 0)

    async def delete_tombstones(self, partner: int, now_ms: int) -> None:
        """Deletes the tombstones that are old enough, some at a time."""
        horizon_ms = (await self.get(partner)).horizon_ms
        if horizon_ms is None:
            return
        deleted = True
        while deleted:
            async with throttled():
                deleted = await self._delete_some(partner, horizon_ms, now_ms - TOMBSTONE_MS)

    async def _delete_some(self, partner: int, horizon_ms: int, before_ms: int) -> bool:
        withdrawals = [
            (seq,)
            for seq, body in await self._engine.scan(EXPIRED_WITHDRAWALS, partner, horizon_ms)
            if parse_instant(from_json(Withdrawal, body.encode()).withdrawn_at) < before_ms
        ]
        if withdrawals:
            await self._engine.write(DELETE_WITHDRAWALS, partner, batch_of(withdrawals))
        sessions = await self._engine.scan(REMOVED_SESSIONS, partner, horizon_ms, before_ms)
        if sessions:
            ids = batch_of(sessions)
            await self._engine.write_all(
                Statement(DELETE_SESSIONS, (partner, ids)),
                Statement(DELETE_VERSIONS, (partner, ids)),
            )
        return bool(withdrawals or sessions)
