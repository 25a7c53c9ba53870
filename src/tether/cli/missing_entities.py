"""Chargers and vehicles that events of a file name and that do not exist."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from tether.cli.concurrency import each_of
from tether.cli.display.output import counted
from tether.domain.models import Charger, Event, Vehicle

if TYPE_CHECKING:
    from tether.client import AsyncClient

USUAL_KW = Decimal(11)  # of a vehicle that is created, unless the power of chargers is given


@dataclass
class MissingEntities:
    """Creates the chargers and vehicles that do not exist, with what was said of all of them."""

    charger_kw: Decimal | None
    vehicle_kwh: Decimal | None
    _created: Counter[type] = field(default_factory=Counter)
    _known: set[tuple[type, str]] = field(default_factory=set)

    async def complete(self, client: "AsyncClient", events: Iterable[Event]) -> None:
        """Sees to it that the chargers and vehicles of these events exist."""
        wanted: dict[tuple[type, str], Charger | Vehicle] = {}
        for event in events:
            if self.charger_kw is not None:
                one = (Charger, event.charger_id)
                wanted[one] = Charger(id=event.charger_id, charge_powers=(self.charger_kw,))
            if self.vehicle_kwh is not None:
                two = (Vehicle, event.vehicle_id)
                power = (self.charger_kw or USUAL_KW,)
                wanted[two] = Vehicle(
                    id=event.vehicle_id, charge_capacity=self.vehicle_kwh, charge_powers=power
                )
        new = [wanted[place] for place in wanted.keys() - self._known]
        await each_of(new, partial(self._create, client))
        self._known |= wanted.keys()

    async def _create(self, client: "AsyncClient", entity: Charger | Vehicle) -> None:
        from tether.client import NotFound

        calls: Any = client.chargers if isinstance(entity, Charger) else client.vehicles
        try:
            await calls.get(entity.id)
        except NotFound:
            created = (
                await calls.put(entity)
            ).created  # before the sum: others add to it meanwhile
            self._created[type(entity)] += created

    @property
    def created(self) -> str:
        """What was created, in words; nothing if nothing was."""
        told = " and ".join(
            counted(number, kind.__name__.lower())
            for kind in (Charger, Vehicle)
            if (number := self._created[kind])
        )
        return f"{told} created that events named" if told else ""
