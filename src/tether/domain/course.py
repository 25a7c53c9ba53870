"""How a vehicle was while it was plugged in: whether a charge ran, at which power, how full it was.

Instants are in ms since 1970, powers in kW, states of charge in %.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from decimal import Decimal
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec

from tether.domain.charge_period import PeriodRecord
from tether.domain.session_record import SessionRecord, with_reports


class Condition(NamedTuple):
    """A plugged-in vehicle at a moment: whether a charge runs, its newest power, how full it is.

    `stale`: it was not heard of for so long that it is left out.
    """

    charging: bool = False
    power: Decimal | None = None
    soc: Decimal | None = None
    stale: bool = False


STALE = Condition(stale=True)

Course = list[tuple[int, Condition | None]]
"""From which of some moments on, by place, a vehicle was how; None: it was not plugged in."""


def condition_of(session: SessionRecord) -> Condition:
    """How the vehicle of a session that lasts is by the newest that is known."""
    period = session.charging
    return Condition(period is not None, None if period is None else period.power, session.soc)


# What was read ------------------------------------------------------------------------------------


class Reading(NamedTuple):
    """What an event of a session says, if it does: how full, and the power if of this charger."""

    at_ms: int
    soc: Decimal | None = None
    power: Decimal | None = None


Told = tuple[int, Decimal | None, Decimal | None]
"""The same where there are many: tuples without names are made much quicker."""


def readings_beside(session: SessionRecord) -> list[Told] | None:
    """What its events said, if that is stored beside the session."""
    if session.seen is None:
        return None
    start_ms = session.start_ms
    return [(start_ms + one.after_ms, one.soc, one.power) for one in session.seen]


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


# Step by step -------------------------------------------------------------------------------------

HEARD, CHARGING = 1, 2


class Step(msgspec.Struct, array_like=True, omit_defaults=True, frozen=True, gc=False):
    """How the vehicle was from so many ms after the start of its session on.

    `kind` is HEARD if an event came then, plus CHARGING if a charge ran.
    """

    after_ms: int
    kind: int = 0
    power: Decimal | None = None
    soc: Decimal | None = None


def steps_of(session: SessionRecord, readings: Iterable[Told]) -> list[Step]:
    """How the vehicle was from its plug-in to its unplug, by all that is known of the session.

    Of `readings` those of one kind and instant are in the order of their events. The session and
    its periods include the instant of their start and not that of their end.
    """
    session = with_reports(session)
    found: list[Step] = []
    charge: PeriodRecord | None = None
    power = soc = None
    start_ms, end_ms = session.start_ms, session.end_ms
    now_ms, heard = start_ms, HEARD
    for at_ms, kind, one, told in _happened(session, readings):
        if at_ms > now_ms:
            runs = CHARGING if charge is not None else 0
            found.append(Step(now_ms - start_ms, heard + runs, power, soc))
            if end_ms is not None and at_ms >= end_ms:
                return found
            now_ms, heard = at_ms, 0
        if kind != _READING:
            charge, power = one, None
            continue
        heard = HEARD
        soc = soc if one is None else one
        if told is not None and charge is not None and _has_read(charge, at_ms):
            power = told
    runs = CHARGING if charge is not None else 0
    return [*found, Step(now_ms - start_ms, heard + runs, power, soc)]


_STOP, _START, _READING = range(3)
_in_time = itemgetter(0, 1)


def _happened(
    session: SessionRecord, readings: Iterable[Told]
) -> list[tuple[int, int, Any, Decimal | None]]:
    """What happened in the session, in order: of one instant the end of a period, its start, the
    readings. Behind the instant and the kind comes the period, or the state of charge and the
    power.
    """
    found: list[tuple[int, int, Any, Decimal | None]] = [
        (at_ms, _READING, soc, power) for at_ms, soc, power in readings
    ]
    for period in session.periods:
        if period.stop_ms != period.start_ms:  # else it ran at no moment
            found.append((period.start_ms, _START, period, None))
            if period.stop_ms is not None:
                found.append((period.stop_ms, _STOP, None, None))
    found.sort(key=_in_time)
    return found


def _has_read(period: PeriodRecord, at_ms: int) -> bool:
    """Whether a power that was told then is one of the charge.

    It is not if a charge that had started before was known of only later, by what came after it.
    """
    return period.power is not None and period.power_first_ms <= at_ms <= period.power_ms


def course_at(start_ms: int, end_ms: int | None, steps: Sequence[Step], moments: range) -> Course:
    """How the vehicle of a session was at these moments; `end_ms` is None if it lasts."""
    place = _place(moments, start_ms)
    end = len(moments) if end_ms is None else _place(moments, end_ms)
    if place >= end:
        return []
    found: Course = []
    last, after_ms = steps[0], moments[place] - start_ms
    for step in steps:
        if step.after_ms > after_ms:
            found.append((place, Condition(last.kind >= CHARGING, last.power, last.soc)))
            place = _place(moments, start_ms + step.after_ms)
            if place >= end:
                break
            after_ms = moments[place] - start_ms
        last = step
    else:
        found.append((place, Condition(last.kind >= CHARGING, last.power, last.soc)))
    if end < len(moments):
        found.append((end, None))
    return found


def left_out(
    course: Course, start_ms: int, steps: Sequence[Step], moments: range, max_age_ms: int
) -> Course:
    """The course, but stale where the vehicle was not heard of for longer than `max_age_ms`."""
    heard = [start_ms + step.after_ms for step in steps if step.kind & HEARD]
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


def _place(moments: range, at_ms: int) -> int:
    """The place of the first moment that is not before the instant; their number if all are."""
    return min(max(0, -((moments.start - at_ms) // moments.step)), len(moments))
