"""Sessions added up where they are, by the columns that they have for that: see migrations/0012.

Of each part of time those that began in it are read, in one index. What one has beyond its end is
told apart, for the part that follows. Sessions of which that cannot be told are named instead:
those that go on, that reach beyond the part that follows, that have several charge periods and
reach beyond their part, or numbers that are not whole.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from tether.storage.engine import Engine, batch, batch_of, columns_of
from tether.storage.plugged_in import SessionKey

MOST_OTHERS = 5_000  # that are named of each part; one more tells that there are more


class Part(NamedTuple):
    """A part of time: which sessions begin in it, where it ends, and where the next one does."""

    first_ms: int
    before_ms: int
    to_ms: int
    next_ms: int


class PartSums(NamedTuple):
    """What those that began in a part have: all of it, and of that what is in the next one. Of how
    many it is `added` says.

    Both are what `Sums.add_whole` takes, and the highest power in either. Nothing may lie beyond.
    """

    sessions: int
    vehicles: int
    chargers: int
    added: int
    whole: Sequence[int]
    power: int | None
    beyond: Sequence[int]
    power_beyond: int | None
    others: list[SessionKey]


_HERE = """
FROM sessions s WHERE s.partner = $1 AND s.live + 0 = 1
AND s.start_ms >= w.first_ms AND s.start_ms < w.before_ms
"""
# `+ 0`: else PostgreSQL may read those that have ended in another index, and then their rows.
_END = "s.end_ms + 0"
_IS_SUM = f"""
s.energy IS NOT NULL AND {_END} <= w.next_ms AND ({_END} <= w.to_ms OR s.stop_ms IS NOT NULL)
"""
_SUMMED = ("energy", "estimated", "charged", "measured")


def _list(*values: str) -> str:
    """The values as a JSON array."""
    joined = " || ',' || ".join(f"coalesce({value}, 0)" for value in values)
    return f"'[' || {joined} || ']'"


def _beyond(name: str) -> str:
    """What lies beyond the end of the part: what is left when its own is cut off."""
    part, whole = "(w.to_ms - s.charge_ms)", "(s.stop_ms - s.charge_ms)"
    return (
        f"sum(s.{name} - CASE WHEN s.charge_ms >= w.to_ms THEN 0 WHEN s.stop_ms <= w.to_ms "
        f"THEN s.{name} ELSE s.{name} * {part} / {whole} END)"
    )


def _highest(power: str) -> tuple[str, str]:
    """The highest of these, and how many there are: none is not 0."""
    return f"max({power})", f"count({power})"


_WHOLE = _list(
    "count(*)",
    "sum(s.end_ms - s.start_ms)",
    *(f"sum(s.{name})" for name in _SUMMED),
    "sum(s.unmeasured)",
    *_highest("CASE WHEN s.charge_ms >= w.to_ms THEN NULL ELSE s.power END"),
)
_BEYOND = _list(
    "count(*)",
    "sum(s.end_ms - w.to_ms)",
    *map(_beyond, _SUMMED),
    "sum(CASE WHEN s.charge_ms >= w.to_ms THEN s.unmeasured ELSE 0 END)",
    *_highest("CASE WHEN s.stop_ms > w.to_ms OR s.charge_ms >= w.to_ms THEN s.power END"),
)


def _statement(condition: str = "", others: str = "NULL") -> str:
    """The sums of each part; of sessions with this condition."""
    return f"""
WITH {batch("wanted", *columns_of(Part))}
SELECT (
    SELECT {_list("count(*)", "count(DISTINCT s.vehicle_id)", "count(DISTINCT s.charger_id)")}
    {_HERE} {condition}
), (
    SELECT {_WHOLE} {_HERE} AND {_IS_SUM}
), (
    SELECT {_BEYOND} {_HERE} AND {_END} >= w.to_ms
    AND ({_END} > w.to_ms OR s.charge_ms >= w.to_ms) AND {_IS_SUM}
), {others}
FROM wanted w ORDER BY w.place
"""


def _statement_with_others(condition: str = "") -> str:
    """The same, with the others, for which once more all are read."""
    return _statement(condition, f"""(
    SELECT string_agg(x.key, ',') FROM (
        SELECT '["' || s.charger_id || '","' || s.vehicle_id || '",' || s.start_ms || ','
               || s.start_rank || ']' AS key
        {_HERE} {condition} AND NOT coalesce({_IS_SUM}, false) LIMIT {MOST_OTHERS + 1}
    ) x
)""")  # fmt: skip


_ENDED = "AND s.end_ms IS NOT NULL"
SUMS = _statement()
SUMS_OF_ENDED = _statement(_ENDED)
SUMS_WITH_OTHERS = _statement_with_others()
SUMS_OF_ENDED_WITH_OTHERS = _statement_with_others(_ENDED)

FIRST = """
SELECT s.start_ms FROM sessions s
WHERE s.partner = $1 AND s.live + 0 = 1 AND s.start_ms >= $2 AND s.start_ms < $3
ORDER BY s.start_ms LIMIT 1
"""

_numbers = msgspec.json.Decoder(list[int])
_keys = msgspec.json.Decoder(list[SessionKey])


class SessionSums:
    """Sums of all partners' sessions. Every method raises Unavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def first(self, partner: int, from_ms: int, to_ms: int) -> int | None:
        """When the first session began that began in this time."""
        rows = await self._engine.scan(FIRST, partner, from_ms, to_ms)
        return int(rows[0][0]) if rows else None

    async def of_parts(self, partner: int, parts: Sequence[Part], *, ended: bool) -> list[PartSums]:
        """What began in each of these parts of time; `ended`: of sessions that have ended."""
        sql = SUMS_OF_ENDED if ended else SUMS
        found = [_sums(*row) for row in await self._engine.scan(sql, partner, batch_of(parts))]
        # Those with others are read again with them, as both must be of one moment.
        places = [place for place, one in enumerate(found) if one.added < one.sessions]
        sql = SUMS_OF_ENDED_WITH_OTHERS if ended else SUMS_WITH_OTHERS
        if places:
            wanted = batch_of(parts[place] for place in places)
            rows = await self._engine.scan(sql, partner, wanted)
            for place, row in zip(places, rows, strict=True):
                found[place] = _sums(*row)
        return found


def _sums(counts: str, whole: str, beyond: str, others: str | None) -> PartSums:
    added, *all_of_it, power, powers = _numbers.decode(whole)
    reach, *rest, power_beyond, powers_beyond = _numbers.decode(beyond)
    sessions, vehicles, chargers = _numbers.decode(counts)
    return PartSums(
        sessions,
        vehicles,
        chargers,
        added,
        all_of_it,
        power if powers else None,
        rest if reach else (),
        power_beyond if powers_beyond else None,
        _keys.decode(f"[{others or ''}]"),
    )
