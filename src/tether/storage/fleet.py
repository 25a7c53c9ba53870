"""What a whole fleet does now, for people who look at it: sums, and which come first by a value.

Looks at what is plugged in only, and at so much of it at most.
"""

from typing import NamedTuple

from tether.storage.engine import Engine

MOST_COUNTED = 250_000  # chargers, vehicles
MOST_OF_EACH = 10_000  # of each, where many partners are shown at once
MOST_PLUGGED_IN = 20_000  # sessions that are looked at: the newest

# Of each session that lasts: whether it is charging, with which power, and the state of charge.
_LASTING = f"""
SELECT s.charger_id, s.vehicle_id, s.start_ms,
       CASE WHEN {{session_json}} -> 'periods' -> -1 IS NOT NULL
             AND {{session_json}} -> 'periods' -> -1 ->> 'stop_ms' IS NULL THEN 1 END AS charging,
       CAST({{session_json}} -> 'periods' -> -1 ->> 'power' AS NUMERIC) AS last_power,
       CAST({{session_json}} ->> 'soc' AS NUMERIC) AS soc
FROM sessions s WHERE s.partner = $1 AND s.end_ms IS NULL AND s.live = 1
ORDER BY s.start_ms DESC, s.id DESC LIMIT {MOST_PLUGGED_IN}
"""

HAS = f"""
SELECT (SELECT count(*) FROM (SELECT 1 FROM chargers WHERE partner = $1 LIMIT {MOST_OF_EACH}) c),
       (SELECT count(*) FROM (SELECT 1 FROM vehicles WHERE partner = $1 LIMIT {MOST_OF_EACH}) v)
"""
SUMS = f"""
SELECT (SELECT count(*) FROM (SELECT 1 FROM chargers WHERE partner = $1 LIMIT {MOST_COUNTED}) c),
       (SELECT count(*) FROM (SELECT 1 FROM vehicles WHERE partner = $1 LIMIT {MOST_COUNTED}) v),
       count(*), count(charging), sum(CASE WHEN charging = 1 THEN last_power END)
FROM ({_LASTING}) lasting
"""

# $2 is how the id begins, $3 whether only those are wanted that charge, $4 and $5 the page.
_WANTED = """
FROM (SELECT *, CASE WHEN charging = 1 THEN last_power END AS power FROM ({lasting}) x) lasting
WHERE substr({id}, 1, length($2)) = $2 AND (charging = 1 OR $3 = 0)
"""
VEHICLES = f"""
SELECT vehicle_id {_WANTED.format(lasting=_LASTING, id="vehicle_id")}
ORDER BY {{order}}, vehicle_id LIMIT $4 OFFSET $5
"""
CHARGERS = f"""
SELECT charger_id {_WANTED.format(lasting=_LASTING, id="charger_id")}
GROUP BY charger_id ORDER BY {{order}}, charger_id LIMIT $4 OFFSET $5
"""
OCCUPIED = f"SELECT charger_id, max(charging) FROM ({_LASTING}) lasting GROUP BY charger_id"
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
    """How many there are, as far as is counted; of what charges the powers together in kW."""

    chargers: int
    vehicles: int
    plugged_in: int
    charging: int
    power: float | None


class Fleet:
    """What the fleets of all partners do now. Every method raises Unavailable and RateLimited."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._json = engine.dialect.session_json

    async def sums(self, partner: int) -> FleetSums:
        """What all of it does."""
        sql = SUMS.format(session_json=self._json)
        ((*counts, power),) = await self._engine.scan(sql, partner)
        return FleetSums._make([*counts, None if power is None else float(power)])

    async def sizes(self, partner: int) -> tuple[int, int]:
        """How many chargers and vehicles it has, MOST_OF_EACH at most."""
        ((chargers, vehicles),) = await self._engine.read(HAS, partner)
        return int(chargers), int(vehicles)

    async def occupied(self, partner: int) -> list[tuple[str, bool]]:
        """The ids of the chargers at which vehicles are plugged in, and whether any charges."""
        rows = await self._engine.scan(OCCUPIED.format(session_json=self._json), partner)
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
        """The ids of the vehicles that are plugged in, or of the chargers at which any is."""
        sql, orders = (CHARGERS, _CHARGER_ORDER) if of_chargers else (VEHICLES, _VEHICLE_ORDER)
        text = sql.format(session_json=self._json, order=orders[order])
        rows = await self._engine.scan(text, partner, begins, int(charging), limit, offset)
        return [str(entity_id) for (entity_id,) in rows]
