"""The powers that chargers and vehicles support, in kW: discrete ones, or a range."""

from decimal import Decimal
from typing import NamedTuple

from tether.domain.models import Entity

_ZERO = Decimal(0)


class Powers(NamedTuple):
    """What one side supports in one direction: discrete powers, or a range, or nothing."""

    discrete: tuple[Decimal, ...] = ()
    lowest: Decimal | None = None
    highest: Decimal | None = None


def charge_powers(entity: Entity) -> Powers:
    """What it supports when the vehicle takes power."""
    return Powers(entity.charge_powers, entity.charge_power_min, entity.charge_power_max)


def discharge_powers(entity: Entity) -> Powers:
    """What it supports when the vehicle gives power."""
    return Powers(entity.discharge_powers, entity.discharge_power_min, entity.discharge_power_max)


def common_power(one: Powers, other: Powers) -> Decimal | None:
    """The highest power that both support: 0 if one supports none at all, None if no common one."""
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


def highest_charge(entity: Entity) -> Decimal:
    """The highest power in kW at which it can charge."""
    return max(entity.charge_powers, default=entity.charge_power_max) or Decimal(0)


def highest_discharge(entity: Entity) -> Decimal:
    """The highest power in kW at which it can give back; 0 if it cannot."""
    return max(entity.discharge_powers, default=entity.discharge_power_max) or Decimal(0)
