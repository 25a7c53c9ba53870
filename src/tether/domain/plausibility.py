"""Numbers that are valid, and more likely meant in another unit: 11000 kW, 43000 kWh.

They are stored as they were sent, since the reference allows them. Whoever sent them is told.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from tether.domain.models import Charger, Event, Vehicle
from tether.domain.validation import members_of_entity

MOST_CAPACITY = Decimal(2_000)
"""A battery that stores more, in kWh, is none of a vehicle."""

MOST_POWER = Decimal(5_000)
"""No vehicle charges, or feeds back, with more, in kW."""

MOST_BATTERIES = 5
"""A charge period does not move the energy of more batteries than these."""


def doubted_members(kind: type[Charger | Vehicle], values: Mapping[str, Any]) -> list[str]:
    """The members of a charger or vehicle whose unit is in doubt, of these values by field."""
    return [
        name
        for name, member in members_of_entity(kind).items()
        if any(_is_too_high(member.field, number) for number in _numbers(values.get(member.field)))
    ]


def _numbers(value: Any) -> Iterator[Decimal]:
    if isinstance(value, Decimal):
        yield value
    elif value is not None:
        yield from value


def _is_too_high(field: str, number: Decimal) -> bool:
    if field == "charge_capacity":
        return number > MOST_CAPACITY
    return "power" in field and number > MOST_POWER


def has_doubted_power(event: Event) -> bool:
    """Whether the unit of the event's power is in doubt."""
    return event.charge_power is not None and abs(event.charge_power) > MOST_POWER


def has_doubted_energy(event: Event, capacity: Decimal | None) -> bool:
    """Whether that of its energy is, at a vehicle that stores so much (kWh), if that is known."""
    energy = event.charged_energy
    return energy is not None and capacity is not None and abs(energy) > MOST_BATTERIES * capacity
