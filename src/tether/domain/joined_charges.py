"""Joins charge periods that a second start has cut, if an event shows that they are one charge."""

from decimal import Decimal

import msgspec

from tether.domain.models import EXACT, Event
from tether.domain.session_record import PeriodRecord, SessionRecord


def joined(session: SessionRecord, at_ms: int, event: Event, period: PeriodRecord) -> PeriodRecord:
    """The period under way, joined with earlier periods of the same charge."""
    if "periods-merged" in session.flags:
        return period
    periods = session.periods
    if event.charged_time is not None and period.first_part is not None:
        periods[-1:] = _parts_of(period, event.charged_time, at_ms)
    while len(periods) > 1 and (first := periods[-2]).cut:
        if not _join_if_same(first, periods[-1], event, at_ms):
            break
        periods.pop()
    return periods[-1]


def _parts_of(period: PeriodRecord, time_s: Decimal, at_ms: int) -> list[PeriodRecord]:
    """The two periods that were joined, if the charge reported now began with the second start;
    otherwise this one.
    """
    first, period.first_part = period.first_part, None
    if first is None or first.stop_ms is None:
        return [period]
    if 2 * (at_ms - time_s * 1000) < period.start_ms + first.stop_ms:
        return [period]
    if period.metered_before == first.metered_before:
        period.metered_before = None
    period.start_ms, period.start_missing = first.stop_ms, False
    period.soc_start = first.soc_end
    return [first, period]


def _join_if_same(one: PeriodRecord, other: PeriodRecord, event: Event, at_ms: int) -> bool:
    """Joins the period with the next one, if an event shows that they are one charge: its time goes
    back to the start of the first one, it continues the meter of that one, or the power allows less
    energy since the second start. Returns whether they are one.
    """
    energy, since_ms, first = event.charged_energy, at_ms - other.start_ms, None
    if event.charged_time is not None:
        # It is nearer to the first start.
        same = 2 * (at_ms - event.charged_time * 1000) < one.start_ms + other.start_ms
    elif energy is None or other.metered is not None:
        same = False
    else:
        possible = other.allows(energy, since_ms, one)
        same = not possible if one.metered is None else energy >= one.metered
        if same and possible:
            first = msgspec.structs.replace(one, first_part=None)
    if same:
        join(one, other)
        one.first_part = first
    return same


def join(one: PeriodRecord, other: PeriodRecord) -> None:
    """Joins the period with the next one."""
    if other.power is not None and other.power_first is not None:
        one.read_power(other.power_first, other.power_first_ms)
        one.power_area = EXACT.add(one.power_area, other.power_area)
        one.power, one.power_ms = other.power, other.power_ms
        one.extend_range(other.power_max)
        one.extend_range(other.power_min)
    if other.metered is not None:
        one.metered, one.metered_ms = other.metered, other.metered_ms
        one.metered_before = other.metered_before
        one.previous, one.previous_ms = other.previous, other.previous_ms
        one.fell_from, one.fell_to, one.fell_ms = other.fell_from, other.fell_to, other.fell_ms
    if one.soc_start is None:
        one.soc_start = other.soc_start
        one.soc_end, one.soc_end_ms = other.soc_end, other.soc_end_ms
    elif other.soc_end is not None:
        one.soc_end, one.soc_end_ms = other.soc_end, other.soc_end_ms
    elif other.soc_start is not None:
        one.soc_end, one.soc_end_ms = other.soc_start, other.start_ms
    one.soc_final = other.soc_final
    one.stop_ms, one.cut, one.stop_missing = other.stop_ms, other.cut, other.stop_missing
