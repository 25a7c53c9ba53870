"""Divides sessions over time and adds them up: the rules of docs/summaries.md.

Instants are in ms since 1970, powers in kW, energies in kWh, times in s unless their name says ms.
"""

from collections.abc import Callable, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Generic, NamedTuple, Protocol, TypeVar

from tether.domain.calendar import WHOLE, Bucket
from tether.domain.charge_reports import with_reports
from tether.domain.models import EXACT, Charger, area_of
from tether.domain.session_views import (
    StoredSession,
    average_power,
    plain,
    rounded,
    seconds,
    session_of,
)
from tether.domain.timestamps import format_instant
from tether.domain.views import EnergySource, SessionSummary

ENERGY_PLACES, TIME_PLACES = 6, 3  # to the milliwatt hour, and to the millisecond
_ZERO, _MILLIONTH = Decimal(0), Decimal("0.000001")


class Group(StrEnum):
    """The groups of sessions."""

    CHARGER = "charger"
    VEHICLE = "vehicle"
    FLAG = "flag"
    AREA = "area"


# Dividing -----------------------------------------------------------------------------------------


Curve = Callable[[int], Decimal]
"""How much of a charge's energy had come by an instant within the charge."""


class Charge(NamedTuple):
    """A charge period, within its session: its time, energy and power.

    Without a curve the energy spreads evenly over the time.
    """

    start_ms: int
    end_ms: int
    energy: Decimal | None
    time: Decimal
    estimated: bool
    power: Decimal | None
    """The highest power of an event."""
    curve: Curve | None = None

    def touches(self, bucket: Bucket) -> bool:
        """Whether a part of it is in the bucket. A period of no length is where it begins."""
        if self.start_ms == self.end_ms:
            return bucket.from_ms <= self.start_ms < bucket.to_ms
        return self.start_ms < bucket.to_ms and self.end_ms > bucket.from_ms

    def energy_in(self, bucket: Bucket) -> Decimal:
        """Its energy in the bucket."""
        assert self.energy is not None
        return self._in(bucket, self.energy, ENERGY_PLACES, self.curve)

    def time_in(self, bucket: Bucket) -> Decimal:
        """Its time in the bucket."""
        return self._in(bucket, self.time, TIME_PLACES, None)

    def _in(self, bucket: Bucket, total: Decimal, places: int, curve: Curve | None) -> Decimal:
        """The total up to the end of the bucket, less the total up to its start: so all parts add
        up, however finely time is divided.
        """
        if self.start_ms >= bucket.from_ms and self.end_ms <= bucket.to_ms:
            return total
        done = self._until(bucket.to_ms, total, places, curve)
        before = self._until(bucket.from_ms, total, places, curve)
        return EXACT.subtract(done, before)

    def _until(self, at_ms: int, total: Decimal, places: int, curve: Curve | None) -> Decimal:
        if at_ms >= self.end_ms:
            return total
        if at_ms <= self.start_ms:
            return _ZERO
        if curve is not None:
            return curve(at_ms)
        return share(total, places, at_ms - self.start_ms, self.end_ms - self.start_ms)


def share(total: Decimal, places: int, part: int, whole: int) -> Decimal:
    """This part of the total, rounded towards zero to so many decimal places."""
    numerator, denominator = abs(total).as_integer_ratio()
    units = numerator * 10**places * part // (denominator * whole)
    return Decimal(-units if total < 0 else units).scaleb(-places)


class MeasuredSession(NamedTuple):
    """A session in numbers. An active session ends with its newest event."""

    vehicle_id: str
    charger_id: str
    charger: Charger
    flags: tuple[str, ...]
    start_ms: int
    end_ms: int
    charges: Sequence[Charge]

    @property
    def last_ms(self) -> int:
        """The last instant that counts."""
        at_end = any(charge.start_ms == charge.end_ms == self.end_ms for charge in self.charges)
        return self.end_ms if at_end else max(self.start_ms, self.end_ms - 1)


def measured_of(known: StoredSession) -> MeasuredSession:
    """The session in numbers: the same numbers as in its view."""
    shown, record = session_of(known), with_reports(known.record)
    charges = [
        Charge(
            *span,
            charge.charged_energy,
            charge.charged_time,
            charge.energy_source is not EnergySource.REPORTED,
            period.power_max,
        )
        for span, period, charge in zip(
            record.charge_spans(), record.periods, shown.periods, strict=True
        )
    ]
    return MeasuredSession(
        record.vehicle_id,
        record.charger_id,
        known.charger,
        tuple(flag.name for flag in shown.flags),
        record.start_ms,
        record.lasts_to_ms,
        charges,
    )


Keys = Callable[[MeasuredSession], Sequence[str]]


def keys_of(group: Group | None) -> Keys:
    """A function that returns the groups of a session; "" is the group without a value."""
    match group:
        case Group.CHARGER:
            return lambda session: (session.charger_id,)
        case Group.VEHICLE:
            return lambda session: (session.vehicle_id,)
        case Group.FLAG:
            return lambda session: session.flags or ("",)
        case Group.AREA:
            return lambda session: (area_of(session.charger) or "",)
    return lambda _: ("",)


# Adding up ----------------------------------------------------------------------------------------


class Sums:
    """The sums of a group's sessions in a bucket."""

    def __init__(self) -> None:
        self.sessions = self.plugged_ms = self.without_energy = 0
        self._vehicles: set[str] = set()
        self._chargers: set[str] = set()
        self._counted = (0, 0)
        self.energy = self.estimated = self.time = self.time_of_energy = _ZERO
        self.power: Decimal | None = None

    def add(self, session: MeasuredSession, bucket: Bucket) -> None:
        """Adds the part of the session that lies in the bucket."""
        if bucket.from_ms <= session.start_ms < bucket.to_ms:
            self.sessions += 1
            self._vehicles.add(session.vehicle_id)
            self._chargers.add(session.charger_id)
        self.add_measures(session, bucket)

    def add_measures(self, session: MeasuredSession, bucket: Bucket) -> None:
        """Adds the measures of the session in the bucket, without counting the session."""
        plugged_ms = min(session.end_ms, bucket.to_ms) - max(session.start_ms, bucket.from_ms)
        self.plugged_ms += max(0, plugged_ms)
        for charge in session.charges:
            if charge.touches(bucket):
                self._add(charge, bucket)

    def _add(self, charge: Charge, bucket: Bucket) -> None:
        time = charge.time_in(bucket)
        self.time = EXACT.add(self.time, time)
        if charge.power is not None and (self.power is None or charge.power > self.power):
            self.power = charge.power
        if charge.energy is None:
            self.without_energy += charge.start_ms >= bucket.from_ms
            return
        energy = charge.energy_in(bucket)
        self.energy = EXACT.add(self.energy, energy)
        self.time_of_energy = EXACT.add(self.time_of_energy, time)
        if charge.estimated:
            self.estimated = EXACT.add(self.estimated, energy)

    @property
    def vehicle_count(self) -> int:
        """The number of different vehicles of the sessions that began in the bucket."""
        return len(self._vehicles) + self._counted[0]

    @property
    def charger_count(self) -> int:
        """The number of different chargers of these sessions."""
        return len(self._chargers) + self._counted[1]

    def count(self, sessions: int, vehicles: int, chargers: int) -> None:
        """Counts sessions that began in the bucket, with their other vehicles and chargers."""
        self.sessions += sessions
        self._counted = self._counted[0] + vehicles, self._counted[1] + chargers

    def count_vehicle(self, vehicle_id: str) -> None:
        """Counts a vehicle, unless it is already counted by its id."""
        self._vehicles.add(vehicle_id)

    def add_whole(self, parts: Sequence[int], power: int | None) -> None:
        """Adds the totals of many sessions in the bucket, in mWh, ms and mW.

        `parts` are the plugged time, the energy, its estimated part, the charged time, the charged
        time of periods whose energy is known, and the number of other periods. `power` is the
        highest power.
        """
        plugged_ms, energy, estimated, charged, measured, unmeasured = parts
        self.plugged_ms += plugged_ms
        self.without_energy += unmeasured
        self.energy = EXACT.add(self.energy, Decimal(energy).scaleb(-ENERGY_PLACES))
        self.estimated = EXACT.add(self.estimated, Decimal(estimated).scaleb(-ENERGY_PLACES))
        self.time = EXACT.add(self.time, Decimal(charged).scaleb(-TIME_PLACES))
        self.time_of_energy = EXACT.add(self.time_of_energy, Decimal(measured).scaleb(-TIME_PLACES))
        if power is not None:
            highest = Decimal(power).scaleb(-ENERGY_PLACES)
            self.power = highest if self.power is None else max(self.power, highest)


# Rows ---------------------------------------------------------------------------------------------

# Stands for a group in a position: all groups of that bucket are done. No id and no area has it.
ALL_GROUPS = "!"


class RowPosition(NamedTuple):
    """The position of a row: the start of its bucket, and its group."""

    from_ms: int
    key: str


class Total(Protocol):
    """Adds up measures of sessions."""

    def add(self, session: MeasuredSession, bucket: Bucket) -> None:
        """Adds the part of the session that lies in the bucket."""


T = TypeVar("T", bound=Total)


class Row(NamedTuple, Generic[T]):
    """The sums of a group in a bucket."""

    bucket: Bucket
    key: str
    total: T

    @property
    def position(self) -> RowPosition:
        """The position of the row."""
        return RowPosition(self.bucket.from_ms, self.key)


class Page(NamedTuple, Generic[T]):
    """Rows; `stop` is the position after them if more may follow."""

    rows: list[Row[T]]
    stop: RowPosition | None


# Showing ------------------------------------------------------------------------------------------


def summary_of(
    sums: Sums, bucket: Bucket, group: Group | None, key: str, chargers: int
) -> SessionSummary:
    """The view of the sums; `chargers` is the number of chargers of the group."""
    divided = bucket != WHOLE
    return SessionSummary(
        from_=format_instant(bucket.from_ms) if divided else None,
        to=format_instant(bucket.to_ms) if divided else None,
        **group_member(group, key),
        sessions=sums.sessions,
        vehicles=sums.vehicle_count,
        chargers=sums.charger_count,
        plugged_time=seconds(sums.plugged_ms),
        charged_time=plain(sums.time),
        charged_energy=plain(sums.energy),
        estimated_energy=plain(sums.estimated),
        periods_without_energy=sums.without_energy,
        average_power=average_power(sums.energy, sums.time_of_energy),
        maximum_power=None if sums.power is None else plain(sums.power),
        utilisation=_utilisation(sums, bucket, chargers) if divided and chargers else None,
    )


def group_member(group: Group | None, key: str) -> dict[str, str]:
    """The member of a view that names the group."""
    names = {Group.CHARGER: "charger_id", Group.VEHICLE: "vehicle_id"}
    return {} if group is None or not key else {names.get(group, group.value): key}


def _utilisation(sums: Sums, bucket: Bucket, chargers: int) -> Decimal:
    there_ms = chargers * (bucket.to_ms - bucket.from_ms)
    return rounded(EXACT.divide(Decimal(sums.plugged_ms), Decimal(there_ms)), _MILLIONTH)
