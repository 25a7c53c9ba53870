"""A simulated fleet: chargers at real stations, vehicles like those of real sessions.

Positions and kinds of charge points are from Shenzhen's public stations. Capacities, maximum powers
and states of charge on arrival and departure are from the charging sessions of `replay`. The data
have no powers of stations: fast points get 60 kW, slow ones 7 kW.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from random import Random

from tether.domain.errors import SetupError
from tether.domain.models import Charger, Vehicle
from tether.domain.timestamps import HOUR_MS
from tether.simulator.replay import RecordedSession, packaged_data, read_rows, sessions_of

FAST_KW, SLOW_KW = 60, 7
LOWEST_KW = Decimal(1)
# The capacities in the data are estimates, and wrong for some short sessions.
SMALLEST_KWH, LARGEST_KWH = 15, 130
_PER_KILO = Decimal(1000)
_TENTH = Decimal("0.1")


@dataclass(frozen=True, slots=True)
class Habits:
    """Habits of drivers: states of charge (%) on arrival and departure, arrivals by hour."""

    on_arrival: Sequence[float]
    on_departure: Sequence[float]
    by_hour: Sequence[int]


@dataclass(frozen=True, slots=True)
class Fleet:
    """Chargers, vehicles, and the habits of their drivers."""

    chargers: Sequence[Charger]
    vehicles: Sequence[Vehicle]
    habits: Habits


def packaged_fleet(chargers: int, vehicles: int, seed: int) -> Fleet:
    """A fleet of this size from the data that come with Tether; the same for the same seed.

    Raises SetupError if the data have fewer charge points.
    """
    stations = read_rows(packaged_data("shenzhen-stations.csv"))
    sessions = sessions_of(read_rows(packaged_data("level3-sessions.csv")))
    points = [
        Charger(
            id=f"SZ{station['station_id']}-{kind[0].upper()}{number}",
            charge_powers=(Decimal(kw),),
            latitude=Decimal(station["latitude"]),
            longitude=Decimal(station["longitude"]),
        )
        for station in stations
        for kind, kw in (("fast", FAST_KW), ("slow", SLOW_KW))
        for number in range(1, int(station[kind]) + 1)
    ]
    if chargers > len(points):
        raise SetupError(f"There are only {len(points):,} charge points in the data.")
    random = Random(seed)  # noqa: S311 - no secret
    plausible = [s for s in sessions if SMALLEST_KWH <= s.capacity_wh / _PER_KILO <= LARGEST_KWH]
    return Fleet(
        sorted(random.sample(points, chargers), key=lambda charger: charger.id),
        [_vehicle(number, random.choice(plausible)) for number in range(1, vehicles + 1)],
        _habits(sessions),
    )


def power_kw(entity: Charger | Vehicle) -> float:
    """The maximum charging power."""
    return float(entity.charge_power_max or max(entity.charge_powers))


def _vehicle(number: int, model: RecordedSession) -> Vehicle:
    return Vehicle(
        id=f"EV{number:05}",
        charge_capacity=(model.capacity_wh / _PER_KILO).quantize(_TENTH),
        charge_power_min=LOWEST_KW,
        charge_power_max=(model.power_max_w / _PER_KILO).quantize(_TENTH),
    )


def _habits(sessions: Sequence[RecordedSession]) -> Habits:
    hours = [session.arrival_ms // HOUR_MS % 24 for session in sessions]
    return Habits(
        [float(session.soc_arrival) for session in sessions],
        [float(session.soc_departure) for session in sessions],
        [hours.count(hour) for hour in range(24)],
    )
