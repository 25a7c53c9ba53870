"""The use of keys in each hour: calls, refusals, and the peak of the rate."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tether.domain.timestamps import HOUR_MS
from tether.storage.engine import Repository, batch, batch_of, columns_of

KEPT_HOURS = 8 * 24
DAY_H = 24
HISTORY_H = 7 * 24  # shows the usual activity of a partner
SLOT_MS = 10_000


class Counts(NamedTuple):
    """What a process counted for a key since its last write."""

    partner: int
    hour: int
    key: str
    """The SHA-256 of the key; empty for counts of the whole partner."""
    calls: int = 0
    refused: int = 0
    limited: int = 0
    events: int = 0
    busiest: int = 0
    """The tokens used in the busiest window of the key's rate limit."""


class Use(NamedTuple):
    """The use of a key in the last 24 hours."""

    calls: int
    refused: int
    limited: int
    busiest: int
    """The tokens used in the busiest window of the key's rate limit."""
    busiest_now: int
    """The same in this hour."""


class Activity(NamedTuple):
    """The activity of a partner: since midnight (UTC), and in the last seven days."""

    events_today: int
    refused_today: int
    active_hours: int
    longest_pause_h: int
    """The longest time from one active hour to the next; 1 if all hours were active."""


_NOW_IN_SLOT = """
(CASE WHEN key_hours.slot = excluded.slot THEN key_hours.in_slot ELSE 0 END + excluded.in_slot)
"""
# Every process writes at most once in ten seconds. Counts of the same ten seconds are added up. The
# order prevents deadlocks between these statements.
ADD = f"""
WITH {batch("batch", *columns_of(Counts))}
INSERT INTO key_hours (
    partner, hour, key, calls, refused, limited, events, slot, in_slot, busiest
)
SELECT b.partner, b.hour, b.key, b.calls, b.refused, b.limited, b.events, $1, b.busiest, b.busiest
FROM batch b WHERE EXISTS (SELECT 1 FROM partners p WHERE p.id = b.partner)
ORDER BY b.partner, b.hour, b.key
ON CONFLICT (partner, hour, key) DO UPDATE SET
    calls = key_hours.calls + excluded.calls,
    refused = key_hours.refused + excluded.refused,
    limited = key_hours.limited + excluded.limited,
    events = key_hours.events + excluded.events,
    slot = excluded.slot,
    in_slot = {_NOW_IN_SLOT},
    busiest = CASE WHEN key_hours.busiest > {_NOW_IN_SLOT}
                   THEN key_hours.busiest ELSE {_NOW_IN_SLOT} END
"""
OF_PARTNER = """
SELECT h.key, sum(h.calls), sum(h.refused), sum(h.limited), max(h.busiest),
       max(CASE WHEN h.hour = $3 THEN h.busiest ELSE 0 END)
FROM key_hours h WHERE h.partner = $1 AND h.hour > $2 GROUP BY h.key
"""
# $1 is the first hour of today, $3 the first one of the seven days.
OF_PARTNERS = f"""
WITH {batch("wanted", "partner BIGINT")}, hours AS (
    SELECT h.partner, h.hour, sum(h.refused) AS refused, sum(h.events) AS events
    FROM wanted w JOIN key_hours h ON h.partner = w.partner AND h.hour >= $3
    GROUP BY h.partner, h.hour
), paused AS (
    SELECT partner, hour, refused, events,
           hour - lag(hour) OVER (PARTITION BY partner ORDER BY hour) AS pause
    FROM hours
)
SELECT partner, sum(CASE WHEN hour >= $1 THEN events ELSE 0 END),
       sum(CASE WHEN hour >= $1 THEN refused ELSE 0 END), count(*), coalesce(max(pause), 0)
FROM paused GROUP BY partner
"""
DELETE_OLD = "DELETE FROM key_hours WHERE partner = $1 AND hour < $2"


class KeyHours(Repository):
    """The use of all keys. Every method raises Unavailable."""

    async def add(self, counted: Iterable[Counts], now_ms: int) -> None:
        """Adds what a process counted since its last write."""
        await self._engine.write(ADD, now_ms // SLOT_MS, batch_of(counted))

    async def of_partner(self, partner: int, now_ms: int) -> dict[str, Use]:
        """The use of each key of the partner, by its SHA-256."""
        now_h = now_ms // HOUR_MS
        rows = await self._engine.read(OF_PARTNER, partner, now_h - DAY_H, now_h)
        return {key: Use(*map(int, row)) for key, *row in rows}

    async def of_partners(self, partners: Sequence[int], now_ms: int) -> dict[int, Activity]:
        """The activity of each of these partners. Inactive partners are left out."""
        now_h = now_ms // HOUR_MS
        rows = await self._engine.read(
            OF_PARTNERS, now_h // DAY_H * DAY_H, batch_of((partner,) for partner in partners),
            now_h - HISTORY_H,
        )  # fmt: skip
        return {int(partner): Activity(*map(int, row)) for partner, *row in rows}

    async def delete_old(self, partner: int, now_ms: int) -> None:
        """Deletes counts that are older than eight days."""
        await self._engine.write(DELETE_OLD, partner, now_ms // HOUR_MS - KEPT_HOURS)
