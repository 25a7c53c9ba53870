"""How much power and energy plugged-in vehicles could move: the rules of docs/capacity.md.

Powers are in kW, energies in kWh, states of charge in %.
"""

from collections.abc import Generator, Sequence
from decimal import Decimal, localcontext
from functools import lru_cache
from itertools import groupby
from operator import add, itemgetter, sub
from typing import Any, NamedTuple

from tether.domain.models import EXACT, Charger, Entity, Vehicle
from tether.domain.session_views import highest_charge, highest_discharge, plain
from tether.domain.timeline import Condition, Timeline
from tether.domain.timestamps import format_instant
from tether.domain.views import Capacity, UnknownCapacity

CACHED = 4096  # figures of a vehicle, and of a charger: some megabytes

_ZERO = Decimal(0)
_FULL = Decimal(100)
_first = itemgetter(0)


# Powers -------------------------------------------------------------------------------------------


class Powers(NamedTuple):
    """The powers of a charger or vehicle in one direction: discrete, or a range, or none."""

    discrete: tuple[Decimal, ...] = ()
    lowest: Decimal | None = None
    highest: Decimal | None = None


def charge_powers(entity: Entity) -> Powers:
    """The powers for charging."""
    return Powers(entity.charge_powers, entity.charge_power_min, entity.charge_power_max)


def discharge_powers(entity: Entity) -> Powers:
    """The powers for discharging."""
    return Powers(entity.discharge_powers, entity.discharge_power_min, entity.discharge_power_max)


def common_power(one: Powers, other: Powers) -> Decimal | None:
    """The highest power that both support: 0 if one supports none, None if they share none."""
    if one.discrete:
        if other.discrete:
            return max(set(one.discrete).intersection(other.discrete), default=None)
        one, other = other, one
    if one.lowest is None or one.highest is None:
        return _ZERO
    if other.discrete:
        inside = (power for power in other.discrete if one.lowest <= power <= one.highest)
        return max(inside, default=None)
    if other.lowest is None or other.highest is None:
        return _ZERO
    highest = min(one.highest, other.highest)
    return highest if highest >= max(one.lowest, other.lowest) else None


# At one charger -----------------------------------------------------------------------------------


class Pair(NamedTuple):
    """What a vehicle and its charger can do together: the capacity, and the highest powers.

    `charge` and `discharge` are None if the two have no power in common.
    """

    capacity: Decimal
    charge: Decimal | None
    discharge: Decimal | None
    charger_charge: Decimal
    charger_discharge: Decimal


def pair_of(charger: Charger, vehicle: Vehicle) -> Pair:
    """What this vehicle and this charger can do together."""
    into, out_of = charge_powers(charger), discharge_powers(charger)
    return Pair(
        vehicle.charge_capacity,
        common_power(into, charge_powers(vehicle)),
        common_power(out_of, discharge_powers(vehicle)),
        highest_charge(charger),
        highest_discharge(charger),
    )


class Figures(NamedTuple):
    """The numbers of a `Capacity`, of one vehicle or of many, in a form that can be added up.

    `charge_reserved` and `discharge_reserved` are the powers that may flow where no power is known.
    Partners do not see them, but they reduce the power that the charger can still offer.
    """

    chargers: int = 0
    vehicles: int = 0
    charging: int = 0
    no_soc: int = 0
    no_power: int = 0
    no_common_charge: int = 0
    no_common_discharge: int = 0
    stale: int = 0
    overloaded: int = 0
    charge_power: Decimal = _ZERO
    charge_available: Decimal = _ZERO
    charge_reserved: Decimal = _ZERO
    discharge_power: Decimal = _ZERO
    discharge_available: Decimal = _ZERO
    discharge_reserved: Decimal = _ZERO
    energy_stored: Decimal = _ZERO
    energy_room: Decimal = _ZERO


_NOTHING = Figures()
_Sums = tuple[Any, ...]
"""The same as a plain tuple: named tuples take longer to make."""


def share_of(pair: Pair, condition: Condition) -> Figures:
    """The figures of this vehicle alone: the limit of the charger comes later."""
    is_charging, power, soc, stale = condition
    if stale:
        return Figures(stale=1)
    stored = room = _ZERO
    if soc is not None:
        stored = pair.capacity * soc / _FULL
        room = pair.capacity - stored
    charge: Decimal | None = _ZERO
    discharge: Decimal | None = _ZERO
    if is_charging:
        charge = None if power is None else max(power, _ZERO)
        discharge = None if power is None else max(-power, _ZERO)
    can_charge, can_discharge = soc is not None and soc < _FULL, bool(soc)
    return Figures(
        0, 1, is_charging, soc is None, is_charging and power is None,
        pair.charge is None, pair.discharge is None, 0, 0,
        *_flow(charge, pair.charge, pair.charger_charge, can_more=can_charge),
        *_flow(discharge, pair.discharge, pair.charger_discharge, can_more=can_discharge),
        stored, room,
    )  # fmt: skip


# Fleets are many of few kinds. Used only with exact numbers: the results depend on the context.
_share = lru_cache(CACHED)(share_of)


def _flow(
    power: Decimal | None, highest: Decimal | None, charger: Decimal, *, can_more: bool
) -> tuple[Decimal, Decimal, Decimal]:
    """For one direction: the power that flows, the power that could be added, and the power that
    may flow if it is not known.

    `highest` is the highest power of the vehicle and the charger in common.
    """
    if power is None:
        return _ZERO, _ZERO, charger if highest is None else highest
    more = highest - power if can_more and highest is not None and highest > power else _ZERO
    return power, more, _ZERO


@lru_cache(CACHED)
def _at_charger(vehicles: _Sums, charge: Decimal, discharge: Decimal) -> _Sums:
    """The figures of one charger, from the sum over its vehicles and its highest powers."""
    sums = Figures._make(vehicles)
    # Never more than the charger has left.
    charge_left = max(_ZERO, charge - sums.charge_power - sums.charge_reserved)
    discharge_left = max(_ZERO, discharge - sums.discharge_power - sums.discharge_reserved)
    return sums._replace(
        chargers=1 if sums.vehicles else 0,
        overloaded=int(sums.charge_power > charge or sums.discharge_power > discharge),
        charge_available=min(sums.charge_available, charge_left),
        discharge_available=min(sums.discharge_available, discharge_left),
    )


# Over time ----------------------------------------------------------------------------------------


class Totals:
    """The sums over chargers at each moment.

    They are kept as differences between consecutive moments, so that the work grows with the number
    of changes and not with the number of moments.
    """

    def __init__(self, moments: range) -> None:
        self._changes: list[_Sums] = [_NOTHING] * len(moments)

    def adding(self, vehicles: Sequence[tuple[Pair, Timeline]]) -> Generator[None, None, None]:
        """Adds a charger: every vehicle that was plugged in there, with its timeline.

        The work happens during the iteration, one change per step: there may be very many.
        """
        changes = [
            (moment, number, condition)
            for number, (_, timeline) in enumerate(vehicles)
            for moment, condition in timeline
        ]
        changes.sort(key=_first)
        shares: dict[int, Figures] = {}
        now: _Sums = _NOTHING
        before: _Sums = _NOTHING
        with localcontext(EXACT):
            for moment, changed in groupby(changes, key=_first):
                for _, number, condition in changed:
                    pair, old = vehicles[number][0], shares.pop(number, _NOTHING)
                    if condition is not None:
                        shares[number] = _share(pair, condition)
                    if len(shares) > 1:
                        now = tuple(map(add, map(sub, now, old), shares.get(number, _NOTHING)))
                    else:
                        now = next(iter(shares.values()), _NOTHING)
                    yield
                after = _at_charger(now, pair.charger_charge, pair.charger_discharge)
                sums = self._changes[moment]
                if before is not _NOTHING:
                    sums = tuple(map(sub, sums, before))
                self._changes[moment] = tuple(map(add, sums, after))
                before = after

    def summing(self) -> Generator[None, None, list[Figures]]:
        """The sums at each moment. The work happens during the iteration: there may be many."""
        sums, now = list[Figures](), _NOTHING
        with localcontext(EXACT):
            for change in self._changes:
                if change is not _NOTHING:
                    now = Figures._make(map(add, now, change))
                    yield
                sums.append(now)
        return sums


# Views --------------------------------------------------------------------------------------------


class Box(NamedTuple):
    """A box in degrees, with its edges. If west is greater than east, it crosses the antimeridian
    (RFC 7946, 5.2).
    """

    west: Decimal
    south: Decimal
    east: Decimal
    north: Decimal

    def has(self, charger: Charger) -> bool:
        """Whether the charger is in the box; False without a position."""
        if charger.latitude is None or charger.longitude is None:
            return False
        if not self.south <= charger.latitude <= self.north:
            return False
        if self.west <= self.east:
            return self.west <= charger.longitude <= self.east
        return charger.longitude >= self.west or charger.longitude <= self.east


def capacity_of(
    figures: Figures, at_ms: int, *, charger_id: str | None = None, area: str | None = None
) -> Capacity:
    """The figures as partners are shown them."""
    return Capacity(
        as_of=format_instant(at_ms),
        charger_id=charger_id,
        area=area,
        chargers_occupied=figures.chargers,
        vehicles_plugged_in=figures.vehicles,
        vehicles_charging=figures.charging,
        charge_power=plain(figures.charge_power),
        charge_power_available=plain(figures.charge_available),
        discharge_power=plain(figures.discharge_power),
        discharge_power_available=plain(figures.discharge_available),
        energy_stored=plain(figures.energy_stored),
        energy_room=plain(figures.energy_room),
        unknown=UnknownCapacity(
            state_of_charge=figures.no_soc,
            charge_power=figures.no_power,
            common_charge_power=figures.no_common_charge,
            common_discharge_power=figures.no_common_discharge,
            stale=figures.stale,
            power_above_charger=figures.overloaded,
        ),
    )
