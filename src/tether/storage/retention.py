"""For how long what is of a partner is kept, and what goes when followers had time to learn of it.

Events with a timestamp before a partner's horizon are refused: ADD in events.py looks at it. So
none comes any more where events expired, and what was derived behind them stays as it is.
"""

from tether.domain.models import Withdrawal, from_json
from tether.domain.partners import DAY_MS, Ages
from tether.domain.timestamps import parse_instant
from tether.storage.engine import Engine, Statement, batch, batch_of
from tether.storage.log_positions import DERIVED, HEAD
from tether.storage.turns import giving_way

TOLD_MS = 30 * DAY_MS  # so long followers can learn that expired events and sessions are gone
LEASE_MS = 10_000
AT_ONCE = 500  # rows in a transaction, for which others wait

_AGES = "events_ms, requests_ms, attempts_ms, horizon_ms, expired_ms"
GET = f"SELECT {_AGES} FROM retention WHERE partner = $1"
ALL = (
    f"SELECT p.id, {_AGES} FROM partners p LEFT JOIN retention r ON r.partner = p.id ORDER BY p.id"
)
SET = """
INSERT INTO retention (partner, events_ms, requests_ms, attempts_ms, lease_ms)
SELECT $1, $2, $3, $4, 0 WHERE EXISTS (SELECT 1 FROM partners WHERE id = $1)
ON CONFLICT (partner) DO UPDATE SET events_ms = excluded.events_ms,
    requests_ms = excluded.requests_ms, attempts_ms = excluded.attempts_ms
"""
# It only moves on: what was refused once is gone.
MOVE = """
INSERT INTO retention (partner, horizon_ms, lease_ms)
SELECT $1, $2, 0 WHERE EXISTS (SELECT 1 FROM partners WHERE id = $1)
ON CONFLICT (partner) DO UPDATE SET horizon_ms = CASE
    WHEN retention.horizon_ms > excluded.horizon_ms THEN retention.horizon_ms
    ELSE excluded.horizon_ms END
"""
# A lease that ends later than any that is taken now is of a clock that was set back since.
CLAIM = f"""
UPDATE retention SET lease_ms = $2 + {LEASE_MS}
WHERE partner = $1 AND horizon_ms > coalesce(expired_ms, horizon_ms - 1)
  AND lease_ms NOT BETWEEN $2 + 1 AND $2 + {LEASE_MS}
"""
RENEW = f"UPDATE retention SET lease_ms = $2 + {LEASE_MS} WHERE partner = $1"
RELEASE = "UPDATE retention SET lease_ms = 0 WHERE partner = $1"
RELEASE_ALL = "UPDATE retention SET lease_ms = 0 WHERE lease_ms > $1"
EXPIRED = "UPDATE retention SET lease_ms = 0, expired_ms = $2 WHERE partner = $1"

OLDER = "SELECT count(*) FROM events WHERE partner = $1 AND at_ms < $2"

# The last entry of the log stays: its number must not be given again.
TOLD = f"""
SELECT seq, body FROM withdrawals
WHERE partner = $1 AND at_ms < $2 AND seq < {HEAD} AND seq <= {DERIVED}
ORDER BY seq LIMIT {AT_ONCE}
"""
FORGET_TOLD = f"""
WITH {batch("batch", "seq BIGINT")}
DELETE FROM withdrawals WHERE partner = $1 AND seq IN (SELECT b.seq FROM batch b)
"""
GONE = f"""
SELECT s.id FROM sessions s
WHERE s.partner = $1 AND s.start_ms < $2 AND s.live = 0
  AND (SELECT u.updated_ms FROM session_versions u WHERE u.partner = $1 AND u.id = s.id) < $3
ORDER BY s.start_ms, s.id LIMIT {AT_ONCE}
"""
FORGET_GONE = f"""
WITH {batch("batch", "id")}
DELETE FROM sessions WHERE partner = $1 AND live = 0 AND id IN (SELECT b.id FROM batch b)
"""
FORGET_VERSIONS = f"""
WITH {batch("batch", "id")}
DELETE FROM session_versions WHERE partner = $1 AND id IN (SELECT b.id FROM batch b)
AND (SELECT 1 FROM sessions s WHERE s.partner = $1 AND s.id = session_versions.id) IS NULL
"""


class Retention:
    """What is kept of all partners. Every method raises Unavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def get(self, partner: int) -> Ages:
        """What is said of the partner."""
        rows = await self._engine.read(GET, partner)
        return Ages(*rows[0]) if rows else Ages()

    async def all(self) -> list[tuple[int, Ages]]:
        """The same of all partners."""
        return [(partner, Ages(*ages)) for partner, *ages in await self._engine.read(ALL)]

    async def set(self, partner: int, ages: Ages, *also: Statement) -> None:
        """Says for how long what is of the partner is kept; its horizon stays."""
        lengths = (ages.events_ms, ages.requests_ms, ages.attempts_ms)
        await self._engine.write_all(Statement(SET, (partner, *lengths)), *also)

    async def older(self, partner: int, before_ms: int) -> int:
        """How many events the partner has from before an instant."""
        ((count,),) = await self._engine.scan(OLDER, partner, before_ms)
        return int(count)

    async def move(self, partner: int, horizon_ms: int) -> None:
        """Takes no event any more that is older. What was taken before can be read afterwards."""
        before = [Statement(sql, ()) for sql in self._engine.dialect.stops_adding]
        await self._engine.write_all(*before, Statement(MOVE, (partner, horizon_ms)))

    async def claim(self, partner: int, now_ms: int) -> bool:
        """Whether it is for this process, and no other, to let the partner's events expire now."""
        return bool(await self._engine.write(CLAIM, partner, now_ms))

    async def renew(self, partner: int, now_ms: int) -> None:
        """This process is still at it."""
        await self._engine.write(RENEW, partner, now_ms)

    async def release(self, partner: int, expired_ms: int | None = None) -> None:
        """It is not any more; `expired_ms` is the horizon before which all is gone that can go."""
        if expired_ms is None:
            await self._engine.write(RELEASE, partner)
        else:
            await self._engine.write(EXPIRED, partner, expired_ms)

    async def release_all(self) -> None:
        """No process is at anything: for whoever knows that there is no other."""
        await self._engine.write(RELEASE_ALL, 0)

    async def forget_told(self, partner: int, now_ms: int) -> None:
        """Deletes what followers had time to learn, some at a time: withdrawals of expired events,
        and sessions of that time that are no more.
        """
        horizon_ms = (await self.get(partner)).horizon_ms
        if horizon_ms is None:
            return
        left = 1
        while left:
            async with giving_way():
                left = await self._forget_some(partner, horizon_ms, now_ms - TOLD_MS)

    async def _forget_some(self, partner: int, horizon_ms: int, since_ms: int) -> int:
        told = [
            (seq,)
            for seq, body in await self._engine.scan(TOLD, partner, horizon_ms)
            if parse_instant(from_json(Withdrawal, body.encode()).withdrawn_at) < since_ms
        ]
        if told:
            await self._engine.write(FORGET_TOLD, partner, batch_of(told))
        gone = await self._engine.scan(GONE, partner, horizon_ms, since_ms)
        if gone:
            ids = batch_of(gone)
            await self._engine.write_all(
                Statement(FORGET_GONE, (partner, ids)),
                Statement(FORGET_VERSIONS, (partner, ids)),
            )
        return len(told) + len(gone)
