"""Creates the chargers and vehicles that imported events name and that do not exist."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tether.cli.display.output import counted
from tether.domain.models import Charger, Event, Vehicle

if TYPE_CHECKING:
    from tether.client import AsyncClient

DEFAULT_KW = Decimal(11)  # of a vehicle that is created, if no power of chargers is given
MOST_REQUESTS = 16  # at the same time


@dataclass
class MissingEntities:
    """Creates the chargers and vehicles that do not exist, all with the same power and capacity."""

    charger_kw: Decimal | None
    vehicle_kwh: Decimal | None
    _created: Counter[type] = field(default_factory=Counter)
    _known: set[tuple[type, str]] = field(default_factory=set)
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_REQUESTS))

    async def complete(self, client: "AsyncClient", events: Iterable[Event]) -> None:
        """Creates the chargers and vehicles of these events that do not exist."""
        wanted: dict[tuple[type, str], Charger | Vehicle] = {}
        for event in events:
            if self.charger_kw is not None:
                one = (Charger, event.charger_id)
                wanted[one] = Charger(id=event.charger_id, charge_powers=(self.charger_kw,))
            if self.vehicle_kwh is not None:
                two = (Vehicle, event.vehicle_id)
                power = (self.charger_kw or DEFAULT_KW,)
                wanted[two] = Vehicle(
                    id=event.vehicle_id, charge_capacity=self.vehicle_kwh, charge_powers=power
                )
        new = [wanted[name] for name in wanted.keys() - self._known]
        await asyncio.gather(*(self._create(client, entity) for entity in new))
        self._known |= wanted.keys()

    async def _create(self, client: "AsyncClient", entity: Charger | Vehicle) -> None:
        from tether.client import NotFound

        calls: Any = client.chargers if isinstance(entity, Charger) else client.vehicles
        async with self._slots:
            try:
                await calls.get(entity.id)
            except NotFound:
                saved = await calls.put(entity)
                self._created[type(entity)] += saved.created

    @property
    def created(self) -> str:
        """What was created, as a text; empty if nothing was."""
        text = " and ".join(
            counted(number, kind.__name__.lower())
            for kind in (Charger, Vehicle)
            if (number := self._created[kind])
        )
        return f"{text} created that events named" if text else ""
