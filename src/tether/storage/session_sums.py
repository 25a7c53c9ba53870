"""Sums of sessions. The database adds them up from columns for this purpose: migrations/0012.

Time is divided into parts. The sessions that began in a part are added up, all together or by
group. Their share after the end of the part is a sum of its own, because it belongs to the next
part. Some sessions cannot be split so, and are returned instead: active sessions, sessions that end
after the next part, also with a charge of no length at its very end, sessions with several charge
periods that end after their part, and sessions with fractions.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from tether.domain.filters import SessionFilter
from tether.storage.engine import (
    Repository,
    batch,
    batch_of,
    columns,
    columns_of,
    json_array,
    json_id,
    json_list,
)
from tether.storage.plugged_in import SessionKey

MAX_PAIRS = 500_000  # of a charger and a vehicle, in each part
MAX_OTHERS = 20_000  # other sessions in each part; one more is returned if there are more


class Part(NamedTuple):
    """A part of time: the starts of its sessions, its end, and the end of the next part."""

    first_ms: int
    before_ms: int
    to_ms: int
    next_ms: int


class Grouping(NamedTuple):
    """The column by which sessions are grouped, if they are.

    Only groups after `after` and up to `last`; None means all. With `pairs` the result also has the
    vehicles of each charger.
    """

    by: Literal["charger_id", "vehicle_id", None] = None
    after: str | None = None
    last: str | None = None
    pairs: bool = False


class GroupSums(NamedTuple):
    """The sums of the sessions of a group that began in a part: the whole sums, and the share after
    the end of the part, if there is any. `added` is the number of sessions in the sums.

    `whole` and `beyond` are arguments of `Sums.add_whole`. The powers are the highest ones.
    """

    sessions: int
    vehicles: int
    chargers: int
    added: int = 0
    whole: Sequence[int] = (0,) * 6
    power: int | None = None
    beyond: Sequence[int] = ()
    power_beyond: int | None = None


class OtherSession(msgspec.Struct, array_like=True, gc=False):
    """A session that the database does not add up: its key, and its columns for sums. `charge_ms`
    is None if they do not tell when it charged.
    """

    charger_id: str
    vehicle_id: str
    start_ms: int
    start_rank: int
    end_ms: int | None
    energy: int | None
    estimated: int | None
    charged: int | None
    unmeasured: int | None
    power: int | None
    charge_ms: int | None
    stop_ms: int | None

    @property
    def key(self) -> SessionKey:
        """The key of the session."""
        return SessionKey(self.charger_id, self.vehicle_id, self.start_ms, self.start_rank)


class PartSums(NamedTuple):
    """The sums of each group in a part. Without groups, all sessions are a group named ""."""

    groups: dict[str, GroupSums]
    others: list[OtherSession]
    pairs: list[tuple[str, str]]
    """Chargers with their vehicles; one more than MAX_PAIRS if there are more."""


_HERE = """
WHERE s.partner = $1 AND s.live + 0 = 1 AND s.start_ms >= w.first_ms AND s.start_ms < w.before_ms
"""
# Without `+ 0` PostgreSQL may read the ended sessions in another index, and then their rows.
_END = "s.end_ms + 0"
_IS_SUM = f"""
s.energy IS NOT NULL AND {_END} <= w.next_ms AND ({_END} <= w.to_ms OR s.charge_ms < w.next_ms)
"""
_SUMMED = ("energy", "estimated", "charged", "measured")


def _sums_of(*sums: str, power: str) -> str:
    """The sums and the highest power as a JSON array. Without values, they are 0, and null."""
    highest = f"coalesce(CAST(max({power}) AS TEXT), 'null')"
    return json_array("count(*)", *(f"coalesce(sum({term}), 0)" for term in sums), highest)


def _beyond(name: str) -> str:
    """The share after the end of the part: the whole without the share up to there."""
    part, whole = "(w.to_ms - s.charge_ms)", "(s.stop_ms - s.charge_ms)"
    return (
        f"s.{name} - CASE WHEN s.charge_ms >= w.to_ms THEN 0 WHEN s.stop_ms <= w.to_ms "
        f"THEN s.{name} ELSE s.{name} * {part} / {whole} END"
    )


_WHOLE = _sums_of(
    "s.end_ms - s.start_ms",
    *(f"s.{name}" for name in _SUMMED),
    "s.unmeasured",
    power="CASE WHEN s.charge_ms >= w.to_ms THEN NULL ELSE s.power END",
)
_BEYOND = _sums_of(
    "s.end_ms - w.to_ms",
    *map(_beyond, _SUMMED),
    "CASE WHEN s.charge_ms >= w.to_ms THEN s.unmeasured ELSE 0 END",
    power="CASE WHEN s.stop_ms > w.to_ms OR s.charge_ms >= w.to_ms THEN s.power END",
)
# Without `|| ''` PostgreSQL may read all sessions of a new table in the order of vehicles.
_COUNTS = json_array(
    "count(*)", "count(DISTINCT s.vehicle_id || '')", "count(DISTINCT s.charger_id || '')"
)
_IS_BEYOND = f"{_END} >= w.to_ms AND ({_END} > w.to_ms OR s.charge_ms >= w.to_ms) AND {_IS_SUM}"


def statement(
    wanted: SessionFilter, grouping: Grouping, *, others: bool
) -> tuple[str, list[object]]:
    """The statement for the sums of each part, and its parameters from $3 on; $2 are the parts.

    Of the filter it applies the ids, and whether and when a session ended.
    With `others` it also selects the sessions that it does not add up, in another pass.
    """
    parameters: list[object] = []

    def add(value: object) -> str:
        parameters.append(value)
        return f"${len(parameters) + 2}"

    # Without `|| ''` both engines may read more than the part, in an index by charger or vehicle.
    key, chosen = None if grouping.by is None else f"s.{grouping.by} || ''", ""
    if grouping.after is not None:
        chosen += f" AND {key} > {add(grouping.after)}"
    if grouping.last is not None:
        chosen += f" AND {key} <= {add(grouping.last)}"
    for name in ("charger_id", "vehicle_id"):
        if ids := getattr(wanted, f"{name}s"):
            given = add(batch_of([id] for id in ids))
            chosen += f" AND s.{name} || '' IN (SELECT value ->> 0 FROM jsonb_each({given}))"
    if wanted.active is False or wanted.ended_to_ms is not None:
        chosen += " AND s.end_ms IS NOT NULL"
    if wanted.ended_to_ms is not None:
        chosen += f" AND {_END} < {add(wanted.ended_to_ms)}"

    sessions = f"FROM sessions s {_HERE} {chosen}"

    def grouped(values: str, condition: str = "true") -> str:
        sums = f"{values} AS sums {sessions} AND {condition}"
        if key is None:
            return json_list(json_array("'\"\"'", "x.sums"), f"SELECT {sums}")
        groups = f"SELECT {key} AS key, {sums} GROUP BY {key}"
        return json_list(json_array(json_id("x.key"), "x.sums"), groups)

    not_added = pairs = "'[]'"
    if others:
        ids, numbers = OtherSession.__struct_fields__[:2], OtherSession.__struct_fields__[2:]
        element = json_array(
            *(json_id(f"x.{name}") for name in ids),
            *(f"coalesce(CAST(x.{name} AS TEXT), 'null')" for name in numbers),
        )
        not_added = json_list(element, f"""
            SELECT {columns("s", OtherSession.__struct_fields__)} {sessions}
            AND NOT coalesce({_IS_SUM}, false) LIMIT {MAX_OTHERS + 1}
        """)  # fmt: skip
    if grouping.pairs:
        element = json_array(json_id("x.charger_id"), json_id("x.vehicle_id"))
        pairs = json_list(element, f"""
            SELECT DISTINCT s.charger_id || '' AS charger_id, s.vehicle_id || '' AS vehicle_id
            {sessions} LIMIT {MAX_PAIRS + 1}
        """)  # fmt: skip
    sql = f"""
WITH {batch("wanted", *columns_of(Part))}
SELECT {grouped(_COUNTS)}, {grouped(_WHOLE, _IS_SUM)}, {grouped(_BEYOND, _IS_BEYOND)},
       {not_added}, {pairs}
FROM wanted w ORDER BY w.place
"""
    return sql, parameters


FIRST = """
SELECT s.start_ms FROM sessions s
WHERE s.partner = $1 AND s.live + 0 = 1 AND s.start_ms >= $2 AND s.start_ms < $3
ORDER BY s.start_ms LIMIT 1
"""

_counts = msgspec.json.Decoder(list[tuple[str, tuple[int, int, int]]])
# A group, its number of sessions, six sums and the highest power.
_Sums = tuple[int, int, int, int, int, int, int, int | None]
_groups = msgspec.json.Decoder(list[tuple[str, _Sums]])
_others = msgspec.json.Decoder(list[OtherSession])
_pairs = msgspec.json.Decoder(list[tuple[str, str]])


class SessionSums(Repository):
    """Sums of sessions, of all partners. Every method raises Unavailable."""

    async def first(self, partner: int, from_ms: int, to_ms: int) -> int | None:
        """The first start of a session in this time."""
        rows = await self._engine.scan(FIRST, partner, from_ms, to_ms)
        return int(rows[0][0]) if rows else None

    async def of_parts(
        self, partner: int, parts: Sequence[Part], wanted: SessionFilter, grouping: Grouping
    ) -> list[PartSums]:
        """The sums of the sessions that began in each of these parts of time."""
        sql, parameters = statement(wanted, grouping, others=False)
        rows = await self._engine.scan(sql, partner, batch_of(parts), *parameters)
        found = [_sums(*row) for row in rows]
        # Parts with other sessions are read again with them: both must be of one moment.
        places = [
            place for place, sums in enumerate(found)
            if any(group.added < group.sessions for group in sums.groups.values())
        ]  # fmt: skip
        if places:
            sql, parameters = statement(wanted, grouping, others=True)
            again = batch_of(parts[place] for place in places)
            rows = await self._engine.scan(sql, partner, again, *parameters)
            for place, row in zip(places, rows, strict=True):
                found[place] = _sums(*row)
        return found


def _sums(counts: str, whole: str, beyond: str, others: str, pairs: str) -> PartSums:
    groups = {key: GroupSums(*three) for key, three in _counts.decode(counts)}
    for key, (added, *sums, power) in _groups.decode(whole):
        groups[key] = groups[key]._replace(added=added, whole=sums, power=power)
    for key, (count, *sums, power) in _groups.decode(beyond):
        if count:
            groups[key] = groups[key]._replace(beyond=sums, power_beyond=power)
    return PartSums(groups, _others.decode(others), _pairs.decode(pairs))
