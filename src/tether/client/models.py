"""Charger, Vehicle and Event: the server's own classes, more easily made.

Whoever makes one may give any kind of number, any iterable of powers, a datetime. A type checker
sees that here; at run time these are the classes of `tether.domain.models`. A model holds what it
was given until it is sent; one that came from the server has Decimals and text.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypedDict

import msgspec

from tether.domain import models
from tether.domain.models import EventType, Withdrawal

__all__ = ["Charger", "Event", "EventType", "Saved", "Vehicle", "Withdrawal"]

Number: TypeAlias = int | float | str | Decimal
Instant: TypeAlias = datetime | str

if TYPE_CHECKING:

    class Charger(models.Charger, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
        """A charger. Powers in kW, coordinates in degrees."""

        def __init__(
            self,
            *,
            id: str,
            charge_powers: Iterable[Number] = (),
            charge_power_min: Number | None = None,
            charge_power_max: Number | None = None,
            discharge_powers: Iterable[Number] = (),
            discharge_power_min: Number | None = None,
            discharge_power_max: Number | None = None,
            latitude: Number | None = None,
            longitude: Number | None = None,
        ) -> None: ...

    class Vehicle(models.Vehicle, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
        """A vehicle. Capacity in kWh, powers in kW."""

        def __init__(
            self,
            *,
            id: str,
            charge_capacity: Number,
            charge_powers: Iterable[Number] = (),
            charge_power_min: Number | None = None,
            charge_power_max: Number | None = None,
            discharge_powers: Iterable[Number] = (),
            discharge_power_min: Number | None = None,
            discharge_power_max: Number | None = None,
        ) -> None: ...

    class Event(models.Event, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
        """An event. State of charge in %, power in kW, energy in kWh, time in seconds."""

        def __init__(
            self,
            *,
            id: str | None = None,
            type: EventType | str,
            charger_id: str,
            vehicle_id: str,
            state_of_charge: Number | None = None,
            charge_power: Number | None = None,
            charged_energy: Number | None = None,
            charged_time: Number | None = None,
            timestamp: Instant | None = None,
        ) -> None: ...

else:
    Charger, Vehicle, Event = models.Charger, models.Vehicle, models.Event


class PowerChanges(TypedDict, total=False):
    """What PATCH can change of chargers and vehicles alike; None removes."""

    charge_powers: Iterable[Number] | None
    charge_power_min: Number | None
    charge_power_max: Number | None
    discharge_powers: Iterable[Number] | None
    discharge_power_min: Number | None
    discharge_power_max: Number | None


class ChargerChanges(PowerChanges, total=False):
    """What PATCH can change of a charger; None removes."""

    latitude: Number | None
    longitude: Number | None


class VehicleChanges(PowerChanges, total=False):
    """What PATCH can change of a vehicle; None removes."""

    charge_capacity: Number


class Saved(NamedTuple):
    """What became of a PUT or PATCH.

    `created` is of the try that was answered: if the answer to an earlier one was lost, that may
    have created what this one replaced. `etag` is the version's, for `if_match`.
    """

    created: bool
    etag: str


class Doubt(msgspec.Struct, frozen=True):
    """A warning of the server: a code, which is `unit`, and the member that it is about."""

    code: str
    parameter: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    """What the answer to many says of each."""

    status: int | None
    message: str | None = None
    code: str | None = None
    parameter: str | None = None
    warnings: tuple[Doubt, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PutResult(_Result):
    """What became of one charger or vehicle of many: its version, or why it is not stored.

    `status` is 201 if it was created, 200 if it was replaced. Of a refusal it is what the PUT would
    have been answered, with its `message`, `code` and `parameter`; in the `results` of an error it
    is None if the entity was not sent or not answered. `warnings` has what the server doubts of an
    entity that it stored.
    """

    entity: models.Charger | models.Vehicle
    etag: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the charger or vehicle is stored."""
        return self.etag is not None

    @property
    def created(self) -> bool:
        """Whether it is new."""
        return self.status == 201


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkResult(_Result):
    """What became of one event: its id, or the status and message of its refusal.

    `code` and `parameter` are those that an error would have. `warnings` has what the server doubts
    of an event that it stored. `event` is the event as it was sent, with its timestamp. In the
    `results` of an error, `status` is None if the event was not sent or not answered.
    """

    event: models.Event
    id: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the event is stored."""
        return self.id is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawResult(_Result):
    """What became of one event of many that were to be taken back; `id` is what was given.

    `status` is 204 if it is taken back, now or before, 404 if you never sent it. In the `results`
    of an error it is None if the id was not sent or not answered.
    """

    id: str

    @property
    def ok(self) -> bool:
        """Whether the event is taken back."""
        return self.status == 204
