"""How much power and energy plugged-in vehicles could move: the rules of docs/capacity.md.

Pure: it is given who was plugged in where and what was reported, and adds up. Instants are in ms
since 1970, powers in kW, energies in kWh, states of charge in %.
"""

from bisect import bisect_right
from collections.abc import Generator, Iterable, Sequence
from decimal import Decimal, localcontext
from itertools import groupby
from operator import add, itemgetter, sub
from typing import NamedTuple

from tether.domain.charge_period import EXACT, PeriodRecord
from tether.domain.models import (
    Charger,
    Vehicle,
    charge_powers,
    common_power,
    discharge_powers,
    highest_charge,
    highest_discharge,
)
from tether.domain.session_record import SessionRecord
from tether.domain.session_views import plain
from tether.domain.timestamps import format_instant
from tether.domain.views import Capacity, UnknownCapacity

_ZERO = Decimal(0)
_FULL = Decimal(100)
_first = itemgetter(0)


# At one charger -----------------------------------------------------------------------------------


class Pair(NamedTuple):
    """A vehicle and the charger at which it is plugged in: what they can do, whatever they do.

    The highest powers of both are None where they have none in common.
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


class Condition(NamedTuple):
    """A plugged-in vehicle at a moment: whether a charge runs, its newest power, how full it is.

    `stale`: it was not heard of for so long that it is left out.
    """

    charging: bool = False
    power: Decimal | None = None
    soc: Decimal | None = None
    stale: bool = False


STALE = Condition(stale=True)


class Figures(NamedTuple):
    """What `Capacity` shows, as numbers that can be added up, of one vehicle or of many.

    What may be flowing, where that is not known, is not shown, but must not be promised either.
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
    taken: Decimal = _ZERO
    takeable: Decimal = _ZERO
    may_take: Decimal = _ZERO
    given: Decimal = _ZERO
    giveable: Decimal = _ZERO
    may_give: Decimal = _ZERO
    stored: Decimal = _ZERO
    room: Decimal = _ZERO


_NOTHING = Figures()


def share_of(pair: Pair, condition: Condition) -> Figures:
    """What this vehicle adds; what it could take or give is by itself."""
    runs, power, soc, stale = condition
    if stale:
        return Figures(stale=1)
    stored = room = _ZERO
    if soc is not None:
        stored = pair.capacity * soc / _FULL
        room = pair.capacity - stored
    taken: Decimal | None = _ZERO
    given: Decimal | None = _ZERO
    if runs:
        taken = None if power is None else max(power, _ZERO)
        given = None if power is None else max(-power, _ZERO)
    can_take, can_give = soc is not None and soc < _FULL, bool(soc)
    return Figures(
        0, 1, runs, soc is None, runs and power is None,
        pair.charge is None, pair.discharge is None, 0, 0,
        *_flow(taken, pair.charge, pair.charger_charge, can_more=can_take),
        *_flow(given, pair.discharge, pair.charger_discharge, can_more=can_give),
        stored, room,
    )  # fmt: skip


def _flow(
    flow: Decimal | None, most: Decimal | None, charger: Decimal, *, can_more: bool
) -> tuple[Decimal, Decimal, Decimal]:
    """In one direction what flows, what more could, and what may flow if that is not known."""
    if flow is None:
        return _ZERO, _ZERO, charger if most is None else most
    could = most - flow if can_more and most is not None and most > flow else _ZERO
    return flow, could, _ZERO


def _at_charger(there: Figures, charge: Decimal, discharge: Decimal) -> Figures:
    """The figures of one charger, of its highest powers, from the sum over the vehicles at it."""
    # Never more than the charger has left.
    takeable = min(there.takeable, max(_ZERO, charge - there.taken - there.may_take))
    giveable = min(there.giveable, max(_ZERO, discharge - there.given - there.may_give))
    return there._replace(
        chargers=1 if there.vehicles else 0,
        overloaded=int(there.taken > charge or there.given > discharge),
        takeable=takeable,
        giveable=giveable,
    )


# Over time ----------------------------------------------------------------------------------------


class Reading(NamedTuple):
    """What an event of a session says, if it does: how full, and the power if of this charger."""

    at_ms: int
    soc: Decimal | None = None
    power: Decimal | None = None


Course = list[tuple[int, Condition | None]]
"""From which of some moments on, by place, a vehicle was how; None: it was not plugged in."""


def condition_of(session: SessionRecord) -> Condition:
    """How the vehicle of a session that lasts is by the newest that is known."""
    period = session.charging
    return Condition(period is not None, None if period is None else period.power, session.soc)


class Newest(NamedTuple):
    """What a session itself tells of the newest readings up to a moment.

    Where it has only newer ones, `soc_since` and `power_since` say from which instant on there are
    older ones among its events.
    """

    readings: list[Reading]
    soc_since: int | None
    power_since: int | None


def newest_at(session: SessionRecord, at_ms: int) -> Newest:
    """The newest readings up to this moment, at which the session lasted."""
    readings, soc_since, power_since = [], None, None
    if session.soc is not None:
        if session.soc_ms <= at_ms:
            readings.append(Reading(session.soc_ms, soc=session.soc))
        else:
            soc_since = session.start_ms
    for period in session.periods:
        runs = period.start_ms <= at_ms and (period.stop_ms is None or at_ms < period.stop_ms)
        if runs and period.power is not None and period.power_first_ms <= at_ms:
            if period.power_ms <= at_ms:
                readings.append(Reading(period.power_ms, power=period.power))
            else:
                power_since = period.power_first_ms
    return Newest(readings, soc_since, power_since)


def thinned(readings: Iterable[Reading], moments: range, *, heard: bool = False) -> list[Reading]:
    """Of these, which are in order, the last of each kind up to each moment: no other counts.

    With `heard` also the last of any kind.
    """
    last: dict[tuple[int, str], Reading] = {}
    for reading in readings:
        place = _place(moments, reading.at_ms)
        if reading.soc is not None:
            last[place, "soc"] = Reading(reading.at_ms, soc=reading.soc)
        if reading.power is not None:
            last[place, "power"] = Reading(reading.at_ms, power=reading.power)
        if heard:
            last[place, "heard"] = Reading(reading.at_ms)
    return list(last.values())


def course_of(session: SessionRecord, readings: Iterable[Reading], moments: range) -> Course:
    """How the vehicle of the session was at these moments.

    Of `readings` those of one kind and instant are in the order of their events. The session and
    its periods include the instant of their start and not that of their end.
    """
    first = _place(moments, session.start_ms)
    end = len(moments) if session.end_ms is None else _place(moments, session.end_ms)
    if first >= end:
        return []
    found: dict[int, Condition | None] = {first: Condition()}
    charge: PeriodRecord | None = None
    power = soc = None
    for at_ms, _, step in _steps(session, readings):
        if isinstance(step, Reading):
            soc = soc if step.soc is None else step.soc
            if step.power is not None and charge is not None and _has_read(charge, at_ms):
                power = step.power
        else:
            charge, power = step, None
        place = _place(moments, at_ms)
        if place >= end:
            break
        found[place] = Condition(charge is not None, power, soc)
    if end < len(moments):
        found[end] = None
    return list(found.items())


def left_out(course: Course, heard: Sequence[int], moments: range, max_age_ms: int) -> Course:
    """The course, but stale where the vehicle was not heard of for longer than `max_age_ms`.

    `heard` are the instants of its events, in order.
    """
    conditions = dict(course)
    silent = (_place(moments, at_ms + max_age_ms + 1) for at_ms in heard)
    places = sorted({*conditions, *silent, *(_place(moments, at_ms) for at_ms in heard)})
    found: Course = []
    condition = None
    for place in places:
        condition = conditions.get(place, condition)
        if place < len(moments) and (condition or found):
            known = heard[bisect_right(heard, moments[place]) - 1]
            late = moments[place] - known > max_age_ms
            found.append((place, STALE if condition and late else condition))
    return found


def _has_read(period: PeriodRecord, at_ms: int) -> bool:
    """Whether a power that was told then is one of the charge.

    It is not if a charge that had started before was known of only later, by what came after it.
    """
    return period.power is not None and period.power_first_ms <= at_ms <= period.power_ms


def _steps(
    session: SessionRecord, readings: Iterable[Reading]
) -> list[tuple[int, int, PeriodRecord | Reading | None]]:
    """What happened in the session, in order: of one instant the end of a period, its start, the
    readings.
    """
    steps: list[tuple[int, int, PeriodRecord | Reading | None]] = []
    for period in session.periods:
        if period.stop_ms != period.start_ms:  # else it ran at no moment
            steps.append((period.start_ms, 1, period))
            if period.stop_ms is not None:
                steps.append((period.stop_ms, 0, None))
    steps += ((reading.at_ms, 2, reading) for reading in readings)
    return sorted(steps, key=itemgetter(0, 1))


def _place(moments: range, at_ms: int) -> int:
    """The place of the first moment that is not before the instant; their number if all are."""
    return min(max(0, -((moments.start - at_ms) // moments.step)), len(moments))


class Totals:
    """The sums over chargers at each of some moments.

    What is kept is by how much they change from one moment to the next, so that the work grows
    with what happened and not with the number of moments.
    """

    def __init__(self, moments: range) -> None:
        self._changes: list[Figures] = [_NOTHING] * len(moments)

    def adding(self, there: Sequence[tuple[Pair, Course]]) -> Generator[None, None, None]:
        """Adds a charger: every vehicle that was plugged in at it, with its course.

        It does so as it is iterated over, and stops after each change, as there may be very many.
        """
        changes = [
            (place, number, condition)
            for number, (_, course) in enumerate(there)
            for place, condition in course
        ]
        shares: dict[int, Figures] = {}
        now = before = _NOTHING
        with localcontext(EXACT):
            for place, changed in groupby(sorted(changes, key=_first), key=_first):
                for _, number, condition in changed:
                    pair, old = there[number][0], shares.get(number, _NOTHING)
                    new = _NOTHING if condition is None else share_of(pair, condition)
                    now = Figures._make(map(add, map(sub, now, old), new))
                    shares[number] = new
                    yield
                after = _at_charger(now, pair.charger_charge, pair.charger_discharge)
                change = after if before is _NOTHING else map(sub, after, before)
                self._changes[place] = Figures._make(map(add, self._changes[place], change))
                before = after

    def summing(self) -> Generator[None, None, list[Figures]]:
        """The sums at each moment; as it is iterated over, as there may be many moments."""
        sums, now = list[Figures](), _NOTHING
        with localcontext(EXACT):
            for change in self._changes:
                if change is not _NOTHING:
                    now = Figures._make(map(add, now, change))
                    yield
                sums.append(now)
        return sums


# What is shown ------------------------------------------------------------------------------------


class Box(NamedTuple):
    """An area in degrees, its edges included; one whose west is beyond its east crosses the
    antimeridian (RFC 7946, 5.2).
    """

    west: Decimal
    south: Decimal
    east: Decimal
    north: Decimal

    def has(self, charger: Charger) -> bool:
        """Whether the charger stands there; one without a position stands nowhere."""
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
        charge_power=plain(figures.taken),
        charge_power_available=plain(figures.takeable),
        discharge_power=plain(figures.given),
        discharge_power_available=plain(figures.giveable),
        energy_stored=plain(figures.stored),
        energy_room=plain(figures.room),
        unknown=UnknownCapacity(
            state_of_charge=figures.no_soc,
            charge_power=figures.no_power,
            common_charge_power=figures.no_common_charge,
            common_discharge_power=figures.no_common_discharge,
            stale=figures.stale,
            power_above_charger=figures.overloaded,
        ),
    )
