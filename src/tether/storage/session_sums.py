"""Sessions added up where they are, by the columns that they have for that: see migrations/0012.

Of each part of time those that began in it are read, in one index, together or by groups. What one
has beyond its end is told apart, for the part that follows. Sessions of which that cannot be told
are named instead: those that go on, that reach beyond the part that follows, that have several
charge periods and reach beyond their part, or numbers that are not whole.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from tether.storage.engine import Engine, batch, batch_of, columns_of
from tether.storage.plugged_in import SessionKey

MOST_PAIRS = 500_000  # of a charger and a vehicle, of each part
MOST_OTHERS = 20_000  # that are named of each part; one more tells that there are more


class Part(NamedTuple):
    """A part of time: which sessions begin in it, where it ends, and where the next one does."""

    first_ms: int
    before_ms: int
    to_ms: int
    next_ms: int


class Selection(NamedTuple):
    """Which sessions are added up, and by which column.

    Of groups those behind `after`, up to `last`. Nothing and None mean all. `pairs`: which vehicles
    each charger had is told, too.
    """

    by: Literal["charger_id", "vehicle_id", None] = None
    after: str | None = None
    last: str | None = None
    charger_ids: Sequence[str] = ()
    vehicle_ids: Sequence[str] = ()
    ended: bool = False
    ended_to_ms: int | None = None
    pairs: bool = False


class GroupSums(NamedTuple):
    """What those of a group that began in a part have: all of it, and of that what is in the next
    one. Of how many it is `added` says.

    Both are what `Sums.add_whole` takes, and the highest power in either. Nothing may lie beyond.
    """

    sessions: int
    vehicles: int
    chargers: int
    added: int = 0
    whole: Sequence[int] = (0,) * 6
    power: int | None = None
    beyond: Sequence[int] = ()
    power_beyond: int | None = None


class PartSums(NamedTuple):
    """The sums of each group in a part; all together are a group without a name."""

    groups: dict[str, GroupSums]
    others: list[SessionKey]
    pairs: list[tuple[str, str]]
    """Chargers with the vehicles that they had; one more than MOST_PAIRS tells that it is more."""


_HERE = """
WHERE s.partner = $1 AND s.live + 0 = 1 AND s.start_ms >= w.first_ms AND s.start_ms < w.before_ms
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


# `|| ''`: else PostgreSQL may read all sessions of a young table in the order of vehicles.
_COUNTS = _list(
    "count(*)", "count(DISTINCT s.vehicle_id || '')", "count(DISTINCT s.charger_id || '')"
)
_IS_BEYOND = f"{_END} >= w.to_ms AND ({_END} > w.to_ms OR s.charge_ms >= w.to_ms) AND {_IS_SUM}"


def statement(wanted: Selection, *, others: bool) -> tuple[str, list[object]]:
    """The statement for the sums of each part, and its parameters from $3 on; $2 are the parts.

    With `others` those are named that it does not add up, for which once more all are read.
    """
    parameters: list[object] = []

    def add(value: object) -> str:
        parameters.append(value)
        return f"${len(parameters) + 2}"

    # `|| ''`: else both engines may read more than the part, in an index by charger or vehicle.
    key, chosen = None if wanted.by is None else f"s.{wanted.by} || ''", ""
    if wanted.after is not None:
        chosen += f" AND {key} > {add(wanted.after)}"
    if wanted.last is not None:
        chosen += f" AND {key} <= {add(wanted.last)}"
    for name in ("charger_id", "vehicle_id"):
        if ids := getattr(wanted, f"{name}s"):
            given = add(batch_of([id] for id in ids))
            chosen += f" AND s.{name} || '' IN (SELECT value ->> 0 FROM jsonb_each({given}))"
    if wanted.ended or wanted.ended_to_ms is not None:
        chosen += " AND s.end_ms IS NOT NULL"
    if wanted.ended_to_ms is not None:
        chosen += f" AND {_END} < {add(wanted.ended_to_ms)}"

    def grouped(values: str, condition: str = "true") -> str:
        if key is None:
            sums = f"SELECT {values} AS sums FROM sessions s {_HERE} {chosen} AND {condition}"
            return f"""(SELECT '["",' || x.sums || ']' FROM ({sums}) x)"""
        sums = f"""
            SELECT {key} AS key, {values} AS sums FROM sessions s {_HERE} {chosen} AND {condition}
            GROUP BY {key}
        """
        return f"""(
            SELECT string_agg('["' || x.key || '",' || x.sums || ']', ',') FROM ({sums}) x
        )"""

    named = "NULL"
    if others:
        named = f"""(
    SELECT string_agg(x.key, ',') FROM (
        SELECT '["' || s.charger_id || '","' || s.vehicle_id || '",' || s.start_ms || ','
               || s.start_rank || ']' AS key
        FROM sessions s {_HERE} {chosen} AND NOT coalesce({_IS_SUM}, false) LIMIT {MOST_OTHERS + 1}
    ) x
)"""
    pairs = "NULL"
    if wanted.pairs:
        pairs = f"""(
    SELECT string_agg('["' || x.charger_id || '","' || x.vehicle_id || '"]', ',') FROM (
        SELECT DISTINCT s.charger_id || '' AS charger_id, s.vehicle_id || '' AS vehicle_id
        FROM sessions s {_HERE} {chosen} LIMIT {MOST_PAIRS + 1}
    ) x
)"""
    sql = f"""
WITH {batch("wanted", *columns_of(Part))}
SELECT {grouped(_COUNTS)}, {grouped(_WHOLE, _IS_SUM)}, {grouped(_BEYOND, _IS_BEYOND)}, {named},
       {pairs}
FROM wanted w ORDER BY w.place
"""
    return sql, parameters


FIRST = """
SELECT s.start_ms FROM sessions s
WHERE s.partner = $1 AND s.live + 0 = 1 AND s.start_ms >= $2 AND s.start_ms < $3
ORDER BY s.start_ms LIMIT 1
"""

_counts = msgspec.json.Decoder(list[tuple[str, tuple[int, int, int]]])
_groups = msgspec.json.Decoder(list[tuple[str, list[int]]])
_keys = msgspec.json.Decoder(list[SessionKey])
_pairs = msgspec.json.Decoder(list[tuple[str, str]])


class SessionSums:
    """Sums of all partners' sessions. Every method raises Unavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def first(self, partner: int, from_ms: int, to_ms: int) -> int | None:
        """When the first session began that began in this time."""
        rows = await self._engine.scan(FIRST, partner, from_ms, to_ms)
        return int(rows[0][0]) if rows else None

    async def of_parts(
        self, partner: int, parts: Sequence[Part], wanted: Selection
    ) -> list[PartSums]:
        """What began in each of these parts of time."""
        sql, parameters = statement(wanted, others=False)
        rows = await self._engine.scan(sql, partner, batch_of(parts), *parameters)
        found = [_sums(*row) for row in rows]
        # Those with others are read again with them, as both must be of one moment.
        places = [
            place for place, one in enumerate(found)
            if any(group.added < group.sessions for group in one.groups.values())
        ]  # fmt: skip
        if places:
            sql, parameters = statement(wanted, others=True)
            again = batch_of(parts[place] for place in places)
            rows = await self._engine.scan(sql, partner, again, *parameters)
            for place, row in zip(places, rows, strict=True):
                found[place] = _sums(*row)
        return found


def _sums(
    counts: str | None, whole: str | None, beyond: str | None, others: str | None, pairs: str | None
) -> PartSums:
    groups = {key: GroupSums(*three) for key, three in _counts.decode(f"[{counts or ''}]")}
    for key, (added, *sums, power, powers) in _groups.decode(f"[{whole or ''}]"):
        groups[key] = groups[key]._replace(added=added, whole=sums, power=power if powers else None)
    for key, (reach, *sums, power, powers) in _groups.decode(f"[{beyond or ''}]"):
        if reach:
            groups[key] = groups[key]._replace(beyond=sums, power_beyond=power if powers else None)
    others_of_it = _keys.decode(f"[{others or ''}]")
    return PartSums(groups, others_of_it, _pairs.decode(f"[{pairs or ''}]"))
