"""The timeline of a plugged-in vehicle: whether it charged, its power and its state of charge.

Instants are in ms since 1970, powers in kW, states of charge in %.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from decimal import Decimal
from operator import itemgetter
from typing import Any, Literal, NamedTuple

import msgspec

from tether.domain.charge_reports import with_reports
from tether.domain.session_record import PeriodRecord, SessionRecord


class Condition(NamedTuple):
    """A plugged-in vehicle at a moment: its newest power, and its state of charge.

    `stale`: its newest event is too old, so sums leave the vehicle out.
    """

    charging: bool = False
    power: Decimal | None = None
    soc: Decimal | None = None
    stale: bool = False


STALE = Condition(stale=True)

Timeline = list[tuple[int, Condition | None]]
"""The condition of a vehicle from a moment on, by the index of the moment; None: not plugged in."""


def condition_of(session: SessionRecord) -> Condition:
    """The newest known condition of the vehicle of an active session."""
    period = session.charging
    return Condition(period is not None, None if period is None else period.power, session.soc)


# Readings -----------------------------------------------------------------------------------------

Reading = tuple[int, Decimal | None, Decimal | None]
"""What an event of a session reports: its instant, the state of charge, and the power at this
charger. There are many of them, and named tuples take much longer to make.
"""


def stored_readings(session: SessionRecord) -> list[Reading] | None:
    """The readings of all events of the session, if they are stored beside it."""
    if session.readings is None:
        return None
    start_ms = session.start_ms
    return [
        (start_ms + reading.after_ms, reading.soc, reading.power) for reading in session.readings
    ]


ReadingKind = Literal["soc", "power", "event"]


def newest_at(
    session: SessionRecord, at_ms: int, *, heard: bool
) -> tuple[list[Reading], dict[ReadingKind, int]]:
    """The newest readings up to this moment, at which the session was active.

    With `heard` also the newest event of any kind. If the session has only newer readings of a
    kind, the second value has the instant since when its events may have an older one.
    """
    readings, since = list[Reading](), dict[ReadingKind, int]()
    if session.soc is not None:
        if session.soc_ms <= at_ms:
            readings.append((session.soc_ms, session.soc, None))
        else:
            since["soc"] = session.start_ms
    for period in session.periods:
        runs = period.start_ms <= at_ms and (period.stop_ms is None or at_ms < period.stop_ms)
        if runs and period.power is not None and period.power_first_ms <= at_ms:
            if period.power_ms <= at_ms:
                readings.append((period.power_ms, None, period.power))
            else:
                since["power"] = period.power_first_ms
    if heard and session.last.at_ms <= at_ms:
        readings.append((session.last.at_ms, None, None))
    elif heard:
        since["event"] = session.start_ms
    return readings, since


def relevant_readings(readings: Iterable[Reading], moments: range, *, heard: bool) -> list[Reading]:
    """The last state of charge and the last power before each moment: no other reading counts.

    The readings are in order. With `heard` also the last event of any kind before each moment.
    """
    last: dict[tuple[int, str], Reading] = {}
    for at_ms, soc, power in readings:
        moment = _index(moments, at_ms)
        if soc is not None:
            last[moment, "soc"] = (at_ms, soc, None)
        if power is not None:
            last[moment, "power"] = (at_ms, None, power)
        if heard:
            last[moment, "heard"] = (at_ms, None, None)
    return list(last.values())


# Steps --------------------------------------------------------------------------------------------

HEARD, CHARGING = 1, 2


class Step(msgspec.Struct, array_like=True, omit_defaults=True, frozen=True, gc=False):
    """The condition of the vehicle from `after_ms` after the start of its session on.

    `kind` is HEARD if an event came at that instant, plus CHARGING if a charge ran.
    """

    after_ms: int
    kind: int = 0
    power: Decimal | None = None
    soc: Decimal | None = None


def steps_of(session: SessionRecord, readings: Iterable[Reading]) -> list[Step]:
    """The condition of the vehicle from plug-in to unplug.

    Readings of one kind and one instant are in the order of their events. The session and its
    periods include the instant of their start, and exclude the instant of their end.
    """
    session = with_reports(session)
    found: list[Step] = []
    charge: PeriodRecord | None = None
    power = soc = None
    start_ms, end_ms = session.start_ms, _NEVER if session.end_ms is None else session.end_ms
    now_ms, heard = start_ms, HEARD
    for at_ms, kind, one, read in [*_happened(session, readings), (_NEVER, _READING, None, None)]:
        if at_ms > now_ms:
            runs = CHARGING if charge is not None else 0
            found.append(Step(now_ms - start_ms, heard + runs, power, soc))
            if at_ms >= end_ms:
                break
            now_ms, heard = at_ms, 0
        if kind != _READING:
            charge, power = one, None
            continue
        heard = HEARD
        soc = soc if one is None else one
        if read is not None and charge is not None and _has_read(charge, at_ms):
            power = read
    return found


_STOP, _START, _READING = range(3)
_NEVER = 2**62  # an instant after all others
_in_time = itemgetter(0, 1)


def _happened(
    session: SessionRecord, readings: Iterable[Reading]
) -> list[tuple[int, int, Any, Decimal | None]]:
    """What happened in the session, in order. At one instant a period ends first, then one starts,
    then come the readings.

    Each item has the instant, the kind, and the period, or the state of charge and the power.
    """
    found: list[tuple[int, int, Any, Decimal | None]] = [
        (at_ms, _READING, soc, power) for at_ms, soc, power in readings
    ]
    for period in session.periods:
        if period.stop_ms != period.start_ms:  # otherwise it ran at no moment
            found.append((period.start_ms, _START, period, None))
            if period.stop_ms is not None:
                found.append((period.stop_ms, _STOP, None, None))
    found.sort(key=_in_time)
    return found


def _has_read(period: PeriodRecord, at_ms: int) -> bool:
    """Whether the charge has taken in the power of this instant.

    It has not if only a later event showed that the charge had started.
    """
    return period.power is not None and period.power_first_ms <= at_ms <= period.power_ms


def timeline_at(
    start_ms: int,
    end_ms: int | None,
    steps: Sequence[Step],
    moments: range,
    max_age_ms: int | None,
) -> Timeline:
    """The timeline of a session's vehicle at these moments; `end_ms` is None for an active one.

    The condition is stale where the newest event is older than `max_age_ms`.
    """
    moment = _index(moments, start_ms)
    end = len(moments) if end_ms is None else _index(moments, end_ms)
    if moment >= end:
        return []
    found: Timeline = []
    last, after_ms = steps[0], moments[moment] - start_ms
    for step in steps:
        if step.after_ms > after_ms:
            found.append((moment, Condition(last.kind >= CHARGING, last.power, last.soc)))
            moment = _index(moments, start_ms + step.after_ms)
            if moment >= end:
                break
            after_ms = moments[moment] - start_ms
        last = step
    else:
        found.append((moment, Condition(last.kind >= CHARGING, last.power, last.soc)))
    if end < len(moments):
        found.append((end, None))
    return found if max_age_ms is None else _with_stale(found, start_ms, steps, moments, max_age_ms)


def _with_stale(
    timeline: Timeline, start_ms: int, steps: Sequence[Step], moments: range, max_age_ms: int
) -> Timeline:
    heard = [start_ms + step.after_ms for step in steps if step.kind & HEARD]
    conditions = dict(timeline)
    silent = (_index(moments, at_ms + max_age_ms + 1) for at_ms in heard)
    changes = sorted({*conditions, *silent, *(_index(moments, at_ms) for at_ms in heard)})
    found: Timeline = []
    condition = None
    for moment in changes:
        condition = conditions.get(moment, condition)
        if moment < len(moments) and (condition or found):
            newest = heard[bisect_right(heard, moments[moment]) - 1]
            stale = moments[moment] - newest > max_age_ms
            found.append((moment, STALE if condition and stale else condition))
    return found


def _index(moments: range, at_ms: int) -> int:
    """The index of the first moment at or after the instant; their number if there is none."""
    return min(max(0, -((moments.start - at_ms) // moments.step)), len(moments))
