"""Which events have numbers that are more likely meant in another unit (an addition).

Nothing is refused for that. It is looked up when the events are stored, and only for those that
tell of an energy, as only that needs the vehicle.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import cache
from typing import Any

import msgspec

from tether.domain.errors import NotFound, Unavailable
from tether.domain.models import Charger, Event, Vehicle
from tether.domain.validation import MOST_POWER, has_doubted_power, members_of_entity
from tether.storage.entities import Entities
from tether.storage.turns import Steps, in_steps

MOST_CAPACITY = Decimal(2_000)
"""A battery that stores more, in kWh, is none of a vehicle."""

MOST_BATTERIES = 5
"""A charge period does not move the energy of more batteries than these."""


def doubted_members(kind: type[Charger | Vehicle], values: Mapping[str, Any]) -> list[str]:
    """The members of a charger or vehicle whose unit is in doubt, of these values by field."""
    return [
        name
        for name, field, most in _bounds(kind)
        if (value := values.get(field))
        and (max(value) if isinstance(value, tuple) else value) > most
    ]


@cache
def _bounds(kind: type[Charger | Vehicle]) -> list[tuple[str, str, Decimal]]:
    """The name and the field of each member that has a unit, and what is likely at most."""
    fields = ((name, member.field) for name, member in members_of_entity(kind).items())
    return [
        (name, field, MOST_CAPACITY if field == "charge_capacity" else MOST_POWER)
        for name, field in fields
        if field == "charge_capacity" or "power" in field
    ]


def has_doubted_energy(event: Event, capacity: Decimal | None) -> bool:
    """Whether that of its energy is, at a vehicle that stores so much (kWh), if that is known."""
    energy = event.charged_energy
    return energy is not None and capacity is not None and abs(energy) > MOST_BATTERIES * capacity


class _Vehicle(msgspec.Struct, rename="camel", gc=False):
    charge_capacity: Decimal


_decode = msgspec.json.Decoder(_Vehicle).decode


class UnitDoubts:
    """Knows the vehicles that events name."""

    def __init__(self, entities: Entities) -> None:
        self._entities = entities

    async def of_event(self, partner: int, event: Event) -> list[str]:
        """The members of an event, which is stored, whose unit is in doubt."""
        capacity = None
        if event.charged_energy:
            # It is stored: nobody is to send it again because this fails.
            with suppress(Unavailable, NotFound):
                stored = await self._entities.get(Vehicle, partner, event.vehicle_id)
                capacity = _decode(stored.body).charge_capacity
        return _doubted(event, capacity)

    async def of_events(self, partner: int, events: Sequence[Event]) -> list[list[str]]:
        """The same of each of many."""
        wanted = {event.vehicle_id for event in events if event.charged_energy}
        found: list[tuple[str, str]] = []
        if wanted:
            with suppress(Unavailable):
                found = await self._entities.get_many(Vehicle, partner, wanted)
        capacities = await in_steps(_read(found))
        return await in_steps(_each(events, capacities))


def _doubted(event: Event, capacity: Decimal | None) -> list[str]:
    power, energy = has_doubted_power(event), has_doubted_energy(event, capacity)
    return ["chargePower"] * power + ["chargedEnergy"] * energy


def _each(events: Iterable[Event], capacities: dict[str, Decimal]) -> Steps[list[list[str]]]:
    doubts = []
    for event in events:
        doubts.append(_doubted(event, capacities.get(event.vehicle_id)))
        yield
    return doubts


def _read(rows: Iterable[tuple[str, str]]) -> Steps[dict[str, Decimal]]:
    capacities = {}
    for id, body in rows:
        capacities[id] = _decode(body).charge_capacity
        yield
    return capacities
