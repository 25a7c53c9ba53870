"""Finds valid numbers that are probably in another unit (an addition to the reference).

They are stored, with a warning. Events are checked after they are stored. Only an energy is
compared with the vehicle, so other events need no look-up.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import cache, partial
from typing import Any

from tether.domain.errors import NotFound, Unavailable
from tether.domain.models import Charger, Event, Vehicle, from_json
from tether.domain.validation import ENTITY_MEMBERS, MAX_LIKELY_POWER, has_unlikely_power
from tether.storage.entities import Entities
from tether.storage.turns import map_in_steps

MAX_LIKELY_CAPACITY = Decimal(2_000)
"""The capacity of the largest battery of a vehicle, in kWh."""

MAX_CAPACITIES = 5
"""The energy of a charge period is at most this multiple of the capacity."""


def unlikely_members(kind: type[Charger | Vehicle], values: Mapping[str, Any]) -> list[str]:
    """The members of a charger or vehicle whose unit is unlikely; `values` are by field."""
    return [
        name
        for name, field, most in _bounds(kind)
        if (value := values.get(field))
        and (max(value) if isinstance(value, tuple) else value) > most
    ]


@cache
def _bounds(kind: type[Charger | Vehicle]) -> list[tuple[str, str, Decimal]]:
    """For each member with a unit: its name, its field and its highest likely value."""
    fields = ((name, member.field) for name, member in ENTITY_MEMBERS[kind].items())
    return [
        (name, field, MAX_LIKELY_CAPACITY if field == "charge_capacity" else MAX_LIKELY_POWER)
        for name, field in fields
        if field == "charge_capacity" or "power" in field
    ]


def has_unlikely_energy(event: Event, capacity: Decimal | None) -> bool:
    """Whether its energy is too much for a vehicle of this capacity (kWh), if that is known."""
    energy = event.charged_energy
    return energy is not None and capacity is not None and abs(energy) > MAX_CAPACITIES * capacity


class UnitWarnings:
    """Compares events with their vehicles."""

    def __init__(self, entities: Entities) -> None:
        self._entities = entities

    async def of_event(self, partner: int, event: Event) -> list[str]:
        """The members of a stored event whose unit is unlikely."""
        capacity = None
        if event.charged_energy:
            # The event is stored. With an error the client would send it again.
            with suppress(Unavailable, NotFound):
                stored = await self._entities.get(Vehicle, partner, event.vehicle_id)
                capacity = from_json(Vehicle, stored.body).charge_capacity
        return _unlikely(event, capacity)

    async def of_events(self, partner: int, events: Sequence[Event]) -> list[list[str]]:
        """The same for each of many events."""
        wanted = {event.vehicle_id for event in events if event.charged_energy}
        found: list[tuple[str, str]] = []
        if wanted:
            with suppress(Unavailable):
                found = await self._entities.get_many(Vehicle, partner, wanted)
        vehicles = await map_in_steps(partial(from_json, Vehicle), (body for _, body in found))
        capacities = {vehicle.id: vehicle.charge_capacity for vehicle in vehicles}

        def unlikely(event: Event) -> list[str]:
            return _unlikely(event, capacities.get(event.vehicle_id))

        return await map_in_steps(unlikely, events)


def _unlikely(event: Event, capacity: Decimal | None) -> list[str]:
    power, energy = has_unlikely_power(event), has_unlikely_energy(event, capacity)
    return ["chargePower"] * power + ["chargedEnergy"] * energy
