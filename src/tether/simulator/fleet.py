"""A simulated fleet: chargers at real stations, vehicles like those of real sessions.

Positions and kinds of charge points are from Shenzhen's public stations. Capacities, maximum powers
and states of charge on arrival and departure are from the charging sessions of `replay`. The data
have no powers of stations: fast points get 60 kW, slow ones 7 kW.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files
from random import Random

from tether.domain.errors import SetupError
from tether.domain.models import Charger, Vehicle
from tether.simulator.replay import RecordedSession, sessions_of

FAST_KW, SLOW_KW = 60, 7
LOWEST_KW = Decimal(1)
# The capacities in the data are estimates, and wrong for some short sessions.
SMALLEST_KWH, LARGEST_KWH = 15, 130
_PER_KILO = Decimal(1000)
_TENTH = Decimal("0.1")


@dataclass(frozen=True, slots=True)
class Station:
    """A station with its fast and slow charge points. Degrees as in the data."""

    number: str
    latitude: Decimal
    longitude: Decimal
    fast: int
    slow: int


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


def stations_of(rows: Iterable[Mapping[str, str]]) -> list[Station]:
    """The stations of the data set."""
    return [
        Station(
            row["station_id"],
            Decimal(row["latitude"]),
            Decimal(row["longitude"]),
            int(row["fast"]),
            int(row["slow"]),
        )
        for row in rows
    ]


def new_fleet(
    chargers: int,
    vehicles: int,
    stations: Sequence[Station],
    sessions: Sequence[RecordedSession],
    seed: int,
) -> Fleet:
    """A fleet of this size; the same for the same seed. Raises SetupError."""
    points = [
        _charger(station, kind, number)
        for station in stations
        for kind, count in (("F", station.fast), ("S", station.slow))
        for number in range(1, count + 1)
    ]
    if chargers > len(points):
        raise SetupError(f"There are only {len(points):,} charge points in the data.")
    dice = Random(seed)  # noqa: S311 - no secret
    alike = [s for s in sessions if SMALLEST_KWH <= s.capacity_wh / _PER_KILO <= LARGEST_KWH]
    return Fleet(
        sorted(dice.sample(points, chargers), key=lambda charger: charger.id),
        [_vehicle(number, dice.choice(alike)) for number in range(1, vehicles + 1)],
        _habits(sessions),
    )


def packaged_fleet(chargers: int, vehicles: int, seed: int) -> Fleet:
    """A fleet of this size from the data that come with Tether."""
    stations, sessions = _rows("shenzhen-stations.csv"), _rows("level3-sessions.csv")
    return new_fleet(chargers, vehicles, stations_of(stations), sessions_of(sessions), seed)


def _rows(name: str) -> list[dict[str, str]]:
    text = files("tether.simulator").joinpath("data", name).read_text(encoding="utf-8-sig")
    return list(csv.DictReader(text.splitlines()))


def power_kw(entity: Charger | Vehicle) -> float:
    """The maximum charging power."""
    return float(entity.charge_power_max or max(entity.charge_powers))


def _charger(station: Station, kind: str, number: int) -> Charger:
    return Charger(
        id=f"SZ{station.number}-{kind}{number}",
        charge_powers=(Decimal(FAST_KW if kind == "F" else SLOW_KW),),
        latitude=station.latitude,
        longitude=station.longitude,
    )


def _vehicle(number: int, like: RecordedSession) -> Vehicle:
    return Vehicle(
        id=f"EV{number:05}",
        charge_capacity=(like.capacity_wh / _PER_KILO).quantize(_TENTH),
        charge_power_min=LOWEST_KW,
        charge_power_max=(like.power_max_w / _PER_KILO).quantize(_TENTH),
    )


def _habits(sessions: Sequence[RecordedSession]) -> Habits:
    hours = [session.arrival_ms // 3_600_000 % 24 for session in sessions]
    return Habits(
        [float(session.soc_arrival) for session in sessions],
        [float(session.soc_departure) for session in sessions],
        [hours.count(hour) for hour in range(24)],
    )
