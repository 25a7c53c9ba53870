"""Charger, Vehicle and Event with convenient constructors; changes, filters, results of calls.

The constructors accept any kind of number, any iterable of powers, and datetimes. Only type
checkers see these classes: at run time they are the classes of `tether.domain.models`. A model
keeps the values as they were given until it is sent. A model from the server has Decimals and text.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, TypedDict

import msgspec

from tether.domain import models
from tether.domain.models import EventType, Withdrawal

__all__ = ["Charger", "Event", "EventType", "Saved", "Vehicle", "Withdrawal"]

Number: TypeAlias = int | float | str | Decimal
Instant: TypeAlias = datetime | str
CalendarUnit: TypeAlias = Literal["hour", "day", "week", "month"]
By: TypeAlias = Literal["charger", "area"]
Ids: TypeAlias = str | Iterable[str] | None

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
    """Changes of a charger or vehicle with PATCH; None removes a member."""

    charge_powers: Iterable[Number] | None
    charge_power_min: Number | None
    charge_power_max: Number | None
    discharge_powers: Iterable[Number] | None
    discharge_power_min: Number | None
    discharge_power_max: Number | None


class ChargerChanges(PowerChanges, total=False):
    """Changes of a charger with PATCH; None removes a member."""

    latitude: Number | None
    longitude: Number | None


class VehicleChanges(PowerChanges, total=False):
    """Changes of a vehicle with PATCH; None removes a member."""

    charge_capacity: Number


class SessionSelection(TypedDict, total=False):
    """Filters of sessions. A session must match all of them. None is no filter.

    `charger_id` and `vehicle_id` may be lists of up to 50 ids. Sessions began from `from_` to
    before `to`, ended from `ended_from` to before `ended_to`, or were plugged in at some time from
    `overlapping_from` to before `overlapping_to`. `flag` is the name of a flag of the session.
    `estimated` says whether some of its energy is estimated. `updated_from` selects the sessions
    that changed at that instant or later, with removed ones. It can only be combined with
    `charger_id`, `vehicle_id`, `from_` and `to`.
    """

    charger_id: Ids
    vehicle_id: Ids
    from_: Instant | None
    to: Instant | None
    ended_from: Instant | None
    ended_to: Instant | None
    overlapping_from: Instant | None
    overlapping_to: Instant | None
    status: Literal["active", "ended"] | None
    flag: str | None
    estimated: bool | None
    updated_from: Instant | None


class CurveSelection(TypedDict, total=False):
    """Filters of a load curve: up to 50 chargers, up to 50 vehicles. With `by` there is a curve for
    each charger or area. `time_zone` is for steps of a calendar; the default is UTC.
    """

    by: By | None
    time_zone: str | None
    charger_id: Ids
    vehicle_id: Ids


class AuditSelection(TypedDict, total=False):
    """Filters of the audit trail: an action such as `key.revoke`, from `from_` to before `to`."""

    action: str | None
    from_: Instant | None
    to: Instant | None


class CapacitySelection(TypedDict, total=False):
    """Filters of capacity: one charger, or the chargers in a box. `max_age` is the age in seconds
    up to which the last event of a vehicle counts. `stale_allowed`: the answer may be stale.
    """

    charger_id: str | None
    bbox: tuple[Number, Number, Number, Number] | None
    max_age: int | None
    stale_allowed: bool


class Saved(NamedTuple):
    """The result of a PUT or PATCH.

    `created` is about the try that got an answer. If the answer to an earlier try was lost, that
    try may have created the entity. `etag` is the version, for `if_match`.
    """

    created: bool
    etag: str


class Doubt(msgspec.Struct, frozen=True):
    """A warning of the server: its code, which is `unit`, and the member with the value."""

    code: str
    parameter: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    """The fields that all results have."""

    status: int | None
    message: str | None = None
    code: str | None = None
    parameter: str | None = None
    warnings: tuple[Doubt, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PutResult(_Result):
    """The result of one charger or vehicle in bulk: its version, or why it is not stored.

    `status` is 201 if it was created, 200 if it was replaced. If it was refused, `status`,
    `message`, `code` and `parameter` are as for a PUT. In the `results` of an error, `status` is
    None if the entity was not sent or not answered. `warnings` are about values that were stored.
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
    """The result of one event in bulk: its id, or the status and message of its refusal.

    `code` and `parameter` are as in an error. `warnings` are about values that were stored. `event`
    is the event as it was sent, with its timestamp. In the `results` of an error, `status` is None
    if the event was not sent or not answered.
    """

    event: models.Event
    id: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the event is stored."""
        return self.id is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class WithdrawResult(_Result):
    """The result of one withdrawal in bulk. `id` is the id of the event.

    `status` is 204 if the event is withdrawn, now or earlier, 404 if you never sent it. In the
    `results` of an error it is None if the id was not sent or not answered.
    """

    id: str

    @property
    def ok(self) -> bool:
        """Whether the event is withdrawn."""
        return self.status == 204
