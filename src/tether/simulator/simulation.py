"""Simulates a fleet: arrivals, charging and departures.

The clock is virtual and random numbers are seeded: the same fleet, start and seed give the same
events in the same order, at any speed. A heap holds the next step of each vehicle.

- Vehicles arrive by the time of day at their chargers, most in the afternoon, few at night.
- A charger has one vehicle at a time. A vehicle that finds no free charger comes back later.
- Below 80 % a vehicle charges with the lower of both maximum powers. Above, the power falls in a
  straight line over the state of charge, to a fifth at 100 %. So the state of charge rises in a
  straight line at first, then exponentially slower. Every state and every energy is computed
  from the start of the session, so that rounding errors do not add up.
- Energy is the energy in the battery: capacity times the rise of the state of charge.
- At a fast charger a vehicle stays until it has the wanted state of charge, at a slow one for
  hours.
- On the road a vehicle uses at most 15 kW on average.
"""

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Any, TypeAlias

from tether.domain.models import Charger, Event, EventType, Vehicle
from tether.domain.timestamps import HOUR_MS, format_instant
from tether.simulator.fleet import FAST_KW, Fleet, power_kw

KNEE_PCT = 80.0  # state of charge above which the power falls
LAST_PART = 0.2  # of the full power, at 100 %
VISITS_PER_DAY = 0.9  # of a vehicle that is on the road
TIME_ZONE_MS = 8 * HOUR_MS  # Shenzhen's local time
DRIVING_KW = 15.0
UPDATE_S = {True: 300, False: 900}  # for a fast and a slow charger

_FALL = (1 - LAST_PART) / (100 - KNEE_PCT)  # part of the full power that each percent takes away
_SECONDS_PER_HOUR = 3600
_DAY_S = 86_400
_HUNDREDTH, _THOUSANDTH = Decimal("0.01"), Decimal("0.001")


@dataclass(frozen=True, slots=True)
class Charging:
    """How a battery fills: capacity in kWh, power in kW, states of charge in %, times in s."""

    capacity_kwh: float
    full_power_kw: float
    soc_start: float

    @property
    def _rate(self) -> float:
        """Percent per second at full power."""
        return 100 * self.full_power_kw / (self.capacity_kwh * _SECONDS_PER_HOUR)

    @property
    def _knee_s(self) -> float:
        """The seconds until the power begins to fall."""
        return max(0.0, (KNEE_PCT - self.soc_start) / self._rate)

    def soc_after(self, seconds: float) -> float:
        """The state of charge; dsoc/dt is the rate times the power's part of the full power."""
        knee_s = self._knee_s
        if seconds <= knee_s:
            return self.soc_start + self._rate * seconds
        above = max(0.0, self.soc_start - KNEE_PCT)
        left = (1 - _FALL * above) * math.exp(-_FALL * self._rate * (seconds - knee_s))
        return min(100.0, KNEE_PCT + (1 - left) / _FALL)

    def seconds_to(self, soc: float) -> float:
        """The seconds until this state of charge."""
        if soc <= KNEE_PCT:
            return max(0.0, (soc - self.soc_start) / self._rate)
        above = max(0.0, self.soc_start - KNEE_PCT)
        left = (1 - _FALL * (soc - KNEE_PCT)) / (1 - _FALL * above)
        return self._knee_s - math.log(left) / (_FALL * self._rate)

    def power_at(self, soc: float) -> float:
        """The power at this state of charge, kW."""
        return self.full_power_kw * (1 - _FALL * max(0.0, soc - KNEE_PCT))

    def energy_to(self, soc: float) -> float:
        """The energy up to this state of charge, kWh."""
        return self.capacity_kwh * (soc - self.soc_start) / 100


@dataclass(slots=True)
class _Car:
    """A vehicle on the road or at a charger. Instants in ms, states of charge in %."""

    vehicle: Vehicle
    soc: float
    since_ms: int  # on the road, or charging
    charger: Charger | None = None
    charging: Charging | None = None
    stop_ms: int = 0
    leave_ms: int = 0

    @property
    def fast(self) -> bool:
        """Whether it stands at a fast charger."""
        assert self.charger is not None
        return power_kw(self.charger) >= FAST_KW


_Step: TypeAlias = Callable[[_Car, int], Event | None]
"""A step of a vehicle at an instant (ms); returns the event that reports it."""


class Simulation:
    """The endless events of a fleet from an instant on."""

    def __init__(self, fleet: Fleet, start_ms: int, seed: int) -> None:
        self._habits = fleet.habits
        self._random = Random(seed)  # noqa: S311 - no secret
        self._free = list(fleet.chargers)
        self._heap: list[tuple[int, int, _Step, _Car]] = []
        self._number = 0  # of the step: orders the steps of one instant
        self._busiest = max(fleet.habits.by_hour)
        for vehicle in fleet.vehicles:
            car = _Car(vehicle, self._random.uniform(25, 95), start_ms)
            self._plan(self._arrive, car, self._next_arrival_ms(start_ms))

    def events(self) -> Iterator[Event]:
        """All events, in the order in which they happen."""
        while self._heap:
            at_ms, _, step, car = heapq.heappop(self._heap)
            event = step(car, at_ms)
            if event is not None:
                yield event

    def _plan(self, step: _Step, car: _Car, at_ms: int) -> None:
        self._number += 1
        heapq.heappush(self._heap, (at_ms, self._number, step, car))

    # Steps ----------------------------------------------------------------------------------------

    def _arrive(self, car: _Car, at_ms: int) -> Event | None:
        arrival_soc = self._soc_on_arrival(car, at_ms)
        if not self._free or arrival_soc > 92:
            self._plan(self._arrive, car, self._next_arrival_ms(at_ms))
            return None
        index = self._random.randrange(len(self._free))
        self._free[index], self._free[-1] = self._free[-1], self._free[index]
        car.charger, car.soc = self._free.pop(), arrival_soc
        self._plan(self._start, car, at_ms + 1000 * self._random.randint(5, 60))
        return self._event(car, EventType.VEHICLE_CONNECTED, at_ms)

    def _start(self, car: _Car, at_ms: int) -> Event:
        assert car.charger is not None
        power = min(power_kw(car.charger), power_kw(car.vehicle))
        car.charging = Charging(float(car.vehicle.charge_capacity), power, car.soc)
        car.since_ms = at_ms
        wanted = min(100.0, max(self._random.choice(self._habits.on_departure), car.soc + 5))
        stay_h = math.inf if car.fast else self._random.triangular(0.75, 13, 5)
        stay_s = stay_h * _SECONDS_PER_HOUR
        full_s = car.charging.seconds_to(wanted if car.fast else max(wanted, 80.0))
        car.stop_ms = at_ms + 1000 * math.ceil(min(full_s, stay_s))
        idle_s = self._random.randint(20, 600)
        after_ms = car.stop_ms + 1000 * idle_s
        car.leave_ms = after_ms if car.fast else max(after_ms, at_ms + 1000 * int(stay_s))
        self._plan_charging(car, at_ms)
        power_now = _rounded(car.charging.power_at(car.soc))
        return self._event(car, EventType.VEHICLE_CHARGE_STARTED, at_ms, charge_power=power_now)

    def _plan_charging(self, car: _Car, at_ms: int) -> None:
        """Plans the next report, or the end of charging."""
        following_ms = at_ms + 1000 * UPDATE_S[car.fast]
        if following_ms < car.stop_ms:
            self._plan(self._update, car, following_ms)
        else:
            self._plan(self._stop, car, car.stop_ms)

    def _update(self, car: _Car, at_ms: int) -> Event:
        energy, seconds = self._charged(car, at_ms)
        assert car.charging is not None
        self._plan_charging(car, at_ms)
        return self._event(
            car,
            EventType.VEHICLE_CHARGE_UPDATED,
            at_ms,
            charge_power=_rounded(car.charging.power_at(car.soc)),
            charged_energy=energy,
            charged_time=seconds,
        )

    def _stop(self, car: _Car, at_ms: int) -> Event:
        energy, seconds = self._charged(car, at_ms)
        self._plan(self._leave, car, car.leave_ms)
        return self._event(
            car,
            EventType.VEHICLE_CHARGE_STOPPED,
            at_ms,
            charged_energy=energy,
            charged_time=seconds,
        )

    def _charged(self, car: _Car, at_ms: int) -> tuple[Decimal, Decimal]:
        """Charges up to this instant; energy (kWh) and time (s) since the start."""
        assert car.charging is not None
        seconds = (at_ms - car.since_ms) // 1000
        car.soc = car.charging.soc_after(seconds)
        return _rounded(car.charging.energy_to(car.soc)), Decimal(seconds)

    def _leave(self, car: _Car, at_ms: int) -> Event:
        event = self._event(car, EventType.VEHICLE_DISCONNECTED, at_ms)
        assert car.charger is not None
        self._free.append(car.charger)
        car.charger = car.charging = None
        car.since_ms = at_ms
        self._plan(self._arrive, car, self._next_arrival_ms(at_ms))
        return event

    # Drivers --------------------------------------------------------------------------------------

    def _next_arrival_ms(self, after_ms: int) -> int:
        """The next time that a vehicle wants to charge: more often in busy hours.

        Draws arrivals at the rate of the busiest hour, and drops some arrivals in other hours.
        """
        hours = self._habits.by_hour
        most_per_s = VISITS_PER_DAY * self._busiest * len(hours) / sum(hours) / _DAY_S
        at_ms = after_ms + 20 * 60_000  # the earliest return
        while True:
            at_ms += 1000 * (1 + int(self._random.expovariate(most_per_s)))
            hour = (at_ms + TIME_ZONE_MS) // HOUR_MS % 24
            if self._random.random() * self._busiest < hours[hour]:
                return at_ms

    def _soc_on_arrival(self, car: _Car, at_ms: int) -> float:
        """The state of charge on arrival: from the data, but above what driving can have left."""
        used_kwh = DRIVING_KW * (at_ms - car.since_ms) / 1000 / _SECONDS_PER_HOUR
        lowest = car.soc - 100 * used_kwh / float(car.vehicle.charge_capacity)
        usual = self._random.choice(self._habits.on_arrival)
        return min(car.soc, max(usual, lowest, 2.0))

    def _event(self, car: _Car, kind: EventType, at_ms: int, **measured: Any) -> Event:
        assert car.charger is not None
        return Event(
            type=kind,
            charger_id=car.charger.id,
            vehicle_id=car.vehicle.id,
            state_of_charge=_rounded(car.soc, _HUNDREDTH),
            timestamp=format_instant(at_ms),
            **measured,
        )


def _rounded(number: float, unit: Decimal = _THOUSANDTH) -> Decimal:
    return Decimal(number).quantize(unit)
