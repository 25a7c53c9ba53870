"""The state of a whole fleet now, for the console: sums, and lists that are sorted by a value.

Only plugged-in vehicles are read, up to a limit.
"""

from typing import NamedTuple

from tether.storage.engine import Repository

MAX_COUNTED = 250_000  # chargers, vehicles
MAX_OF_EACH = 10_000  # chargers, vehicles, for a page with many partners
MAX_PLUGGED_IN = 20_000  # sessions that are read: the newest

# For each active session: whether it is charging, its last power, and its state of charge.
_ACTIVE = f"""
SELECT s.charger_id, s.vehicle_id, s.start_ms,
       CASE WHEN {{session_json}} -> 'periods' -> -1 IS NOT NULL
             AND {{session_json}} -> 'periods' -> -1 ->> 'stop_ms' IS NULL THEN 1 END AS charging,
       CAST({{session_json}} -> 'periods' -> -1 ->> 'power' AS NUMERIC) AS last_power,
       CAST({{session_json}} ->> 'soc' AS NUMERIC) AS soc
FROM sessions s WHERE s.partner = $1 AND s.end_ms IS NULL AND s.live = 1
ORDER BY s.start_ms DESC, s.id DESC LIMIT {MAX_PLUGGED_IN}
"""


def _sizes(most: int) -> str:
    return f"""
(SELECT count(*) FROM (SELECT 1 FROM chargers WHERE partner = $1 LIMIT {most}) c),
(SELECT count(*) FROM (SELECT 1 FROM vehicles WHERE partner = $1 LIMIT {most}) v)
"""


SIZES = f"SELECT {_sizes(MAX_OF_EACH)}"
SUMS = f"""
SELECT {_sizes(MAX_COUNTED)},
       count(*), count(charging), sum(CASE WHEN charging = 1 THEN last_power END)
FROM ({_ACTIVE}) active
"""

# $2 is the beginning of the id, $3 is 1 for charging vehicles only, $4 and $5 are the page.
_WITH_POWER = f"""
FROM (SELECT *, CASE WHEN charging = 1 THEN last_power END AS power FROM ({_ACTIVE}) x) active
WHERE (charging = 1 OR $3 = 0)
"""
VEHICLES = f"""
SELECT vehicle_id {_WITH_POWER} AND substr(vehicle_id, 1, length($2)) = $2
ORDER BY {{order}}, vehicle_id LIMIT $4 OFFSET $5
"""
CHARGERS = f"""
SELECT charger_id {_WITH_POWER} AND substr(charger_id, 1, length($2)) = $2
GROUP BY charger_id ORDER BY {{order}}, charger_id LIMIT $4 OFFSET $5
"""
OCCUPIED = f"SELECT charger_id, max(charging) FROM ({_ACTIVE}) active GROUP BY charger_id"
_VEHICLE_ORDER = {
    "id": "vehicle_id",
    "since": "start_ms DESC",
    "power": "coalesce(power, -1000000000) DESC",
    "soc": "coalesce(soc, 1000)",
}
_CHARGER_ORDER = {
    "id": "charger_id",
    "since": "max(start_ms) DESC",
    "power": "coalesce(sum(power), -1000000000) DESC",
    "soc": "coalesce(min(soc), 1000)",
}
ORDERS = tuple(_VEHICLE_ORDER)


class FleetSums(NamedTuple):
    """Counts, up to their limits, and the total power of the charging vehicles in kW."""

    chargers: int
    vehicles: int
    plugged_in: int
    charging: int
    power: float | None


class FleetOverview(Repository):
    """The fleets of all partners now. Every method raises Unavailable and RateLimited."""

    async def sums(self, partner: int) -> FleetSums:
        """The sums of the partner's fleet."""
        ((*counts, power),) = await self._engine.scan(self._sql(SUMS), partner)
        return FleetSums._make([*counts, None if power is None else float(power)])

    async def sizes(self, partner: int) -> tuple[int, int]:
        """The numbers of the partner's chargers and vehicles, up to MAX_OF_EACH."""
        ((chargers, vehicles),) = await self._engine.read(SIZES, partner)
        return int(chargers), int(vehicles)

    async def occupied(self, partner: int) -> list[tuple[str, bool]]:
        """The ids of the chargers with vehicles plugged in, and whether any of them is charging."""
        rows = await self._engine.scan(self._sql(OCCUPIED), partner)
        return [(charger_id, bool(charging)) for charger_id, charging in rows]

    async def plugged_in(
        self,
        partner: int,
        *,
        of_chargers: bool,
        order: str,
        begins: str,
        charging: bool,
        limit: int,
        offset: int,
    ) -> list[str]:
        """The ids of the plugged-in vehicles, or of their chargers."""
        sql, orders = (CHARGERS, _CHARGER_ORDER) if of_chargers else (VEHICLES, _VEHICLE_ORDER)
        text = self._sql(sql, order=orders[order])
        rows = await self._engine.scan(text, partner, begins, int(charging), limit, offset)
        return [str(entity_id) for (entity_id,) in rows]

    def _sql(self, text: str, **parts: str) -> str:
        return text.format(session_json=self._engine.dialect.session_json, **parts)
