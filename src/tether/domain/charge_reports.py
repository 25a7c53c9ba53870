"""Reports on charges: what is of an earlier charge, and what came after the session had ended.

The meter and the time of a charge can go on over an unplug of some seconds. Then a report on the
charge under way includes the earlier one, which must not count twice: see docs/sessions.md.
"""

from collections.abc import Iterator
from decimal import Decimal
from itertools import islice

import msgspec

from tether.domain.earlier_sessions import (
    MAX_REPORTS,
    TOLERANCE_MS,
    ChargeReport,
    EarlierCharge,
    EventPosition,
    LateReport,
    allows_if_rounded,
    has_lasted,
    included_by_energy,
    included_by_time,
    matching_charges,
    milliseconds,
)
from tether.domain.joined_charges import join
from tether.domain.models import EventType
from tether.domain.session_record import PeriodRecord, SessionRecord


def earlier_charges(session: SessionRecord, period: PeriodRecord | None) -> Iterator[EarlierCharge]:
    """The last charges before the period, the newest first, also those of the session before
    that may have gone on.
    """
    return islice(_charges_before(session, period), MAX_REPORTS)


def _charges_before(session: SessionRecord, period: PeriodRecord | None) -> Iterator[EarlierCharge]:
    for charge in reversed(session.periods):
        if charge is period or (period is not None and charge.start_ms > period.start_ms):
            continue
        lasted_ms = charge.lasted_ms(session.lasts_to_ms)
        energy, time_s = charge.own_energy(lasted_ms), charge.own_time_s
        if energy is None and None in (charge.soc_start, charge.soc_end):
            energy = Decimal(0)  # nothing tells it: all that is reported later counts later
        time_s = Decimal(lasted_ms) / 1000 if time_s is None else time_s
        yield EarlierCharge(charge.start_ms, energy, time_s, charge.power_max)
    yield from session.continues


def charges_that_may_go_on(
    session: SessionRecord, position: EventPosition
) -> tuple[EarlierCharge, ...]:
    """The last charges, if the last one ran at the end, or until just before the vehicle was
    plugged in again at this charger.
    """
    last = session.periods[-1] if session.periods else None
    if last is None or last.stop_ms is None or position.charger_id != session.charger_id:
        return ()
    late = position.at_ms - last.stop_ms > TOLERANCE_MS
    return () if late and not last.stop_missing else tuple(earlier_charges(session, None))


def included_charge(
    session: SessionRecord,
    period: PeriodRecord | None,
    energy: Decimal | None,
    time_s: Decimal | None,
    at_ms: int,
) -> EarlierCharge | None:
    """The earlier charges that a report includes; `period` is None if it begins a charge."""
    if not session.continues and period is (session.periods[0] if session.periods else None):
        return None  # there are none
    start_ms = session.start_ms if period is None else period.start_ms
    if time_s is not None:
        if time_s * 1000 <= at_ms - start_ms + TOLERANCE_MS:
            return None
        return included_by_time(earlier_charges(session, period), time_s, start_ms, at_ms)
    if energy is None:
        return None
    power = None if period is None else period.power_max
    start_ms = session.start_ms if period is None or period.start_missing else start_ms
    if power is not None and allows_if_rounded(power, energy, at_ms - start_ms):
        return None
    return included_by_energy(earlier_charges(session, period), energy, power, at_ms - start_ms)


def goes_on(
    session: SessionRecord, energy: Decimal | None, time_s: Decimal | None, at_ms: int
) -> bool:
    """Whether a report shows that an earlier charge has gone on in the one under way."""
    period = session.charging
    if period is None and session.periods:
        return False
    charge = included_charge(session, period, energy, time_s, at_ms)
    longer_s = None if charge is None or time_s is None else time_s - charge.time_s
    return charge is not None and (longer_s is None or longer_s * 1000 > TOLERANCE_MS)


def read_report(
    session: SessionRecord,
    period: PeriodRecord,
    energy: Decimal | None,
    time_s: Decimal | None,
    at_ms: int,
) -> None:
    """Finds by a report on the charge under way when it began, and what is of earlier ones."""
    session.move_start(period, time_s, at_ms)
    leave_out_earlier(session, period, energy, time_s, at_ms)
    if energy is not None and period.is_back(energy, at_ms):
        period.forget_fall()


def repeats_earlier(
    session: SessionRecord, energy: Decimal | None, time_s: Decimal | None, at_ms: int
) -> bool:
    """Whether a report tells an earlier reading of an earlier charge: it goes back to the start
    of that charge, but is neither longer nor of more energy.
    """
    period = session.charging
    if energy is None or time_s is None or (period is None and session.periods):
        return False
    charge = included_charge(session, period, energy, time_s, at_ms)
    if charge is None or charge.energy is None or abs(energy) > abs(charge.energy):
        return False
    return (time_s - charge.time_s) * 1000 <= TOLERANCE_MS


def leave_out_earlier(
    session: SessionRecord,
    period: PeriodRecord,
    energy: Decimal | None,
    time_s: Decimal | None,
    at_ms: int,
) -> None:
    """Leaves out of the period what a report on it has of earlier charges."""
    until_ms = at_ms if period.stop_ms is None else min(at_ms, period.stop_ms)
    included = included_charge(session, period, energy, time_s, until_ms)
    known = None if period.before is None else period.before.energy
    if included is None:
        if time_s is not None and period.before is not None:
            period.before = ChargeReport(known)
        return
    if known is None and energy is not None:
        known = included.part_of(energy, included.time_s if time_s is None else time_s)
    period.before = ChargeReport(known, None if time_s is None else included.time_s)
    session.flag("earlier-charge-included")


def as_long(charges: list[PeriodRecord], time_s: Decimal, at_ms: int) -> PeriodRecord | None:
    """The newest of these charges that has no reported energy and took about so long."""
    fits = (
        charge
        for charge in reversed(charges)
        if charge.energy is None and has_lasted(charge.span(at_ms), time_s)
    )
    return next(fits, None)


def is_too_long(period: PeriodRecord, at_ms: int, time_s: Decimal | None) -> bool:
    """Whether a report at that instant has a longer time than has passed."""
    if time_s is not None and period.before is not None:
        time_s -= period.before.time_s or 0
    return time_s is not None and time_s * 1000 > at_ms - period.start_ms + TOLERANCE_MS


# Late reports -------------------------------------------------------------------------------------


def take_late_report(session: SessionRecord, report: LateReport) -> None:
    """Takes a report that came after the end of the session."""
    end_ms, energy, time_s = session.end_ms, report.energy, report.time_s
    assert end_ms is not None
    if report.type is EventType.VEHICLE_DISCONNECTED:
        session.end_missing = False
        return
    if not session.periods:
        if energy is None and time_s is None:
            return
        start_ms = session.start_ms
        if time_s is not None:
            start_ms = max(start_ms, end_ms - milliseconds(time_s))
        session.periods.append(PeriodRecord(
            start_ms, end_ms, start_missing=True, stop_missing=True, soc_start=session.soc_start
        ))  # fmt: skip
    period = _late_period(session, report)
    if period is None:
        return
    leave_out_earlier(session, period, energy, time_s, report.at_ms)
    if report.type is EventType.VEHICLE_CHARGE_UPDATED:
        if period.energy is None and energy is not None:
            period.read_meter(energy)
        return
    session.move_start(period, time_s, period.stop_ms or end_ms)
    if period.energy is None and is_too_long(period, report.at_ms, time_s):
        session.flag("charged-time-too-long")
    period.stop_missing, period.cut, period.reported_ms = False, False, report.at_ms
    period.take_report(energy, time_s)


def _late_period(session: SessionRecord, report: LateReport) -> PeriodRecord | None:
    """The period that a late report belongs to; None if it is already reported."""
    energy, time_s = report.energy, report.time_s
    again = (period.report.covers(energy, time_s) for period in session.periods)
    if energy is not None and time_s is not None and any(again):
        return None
    numbers = [number for number, period in enumerate(session.periods) if period.is_unreported]
    if not numbers:
        return _unseen_period(session, report) or session.periods[-1]
    charges = session.unreported_charges
    first, last = (numbers[number] for number in matching_charges(charges, time_s))
    if first != last:
        join(session.periods[first], session.periods.pop(last))
    return session.periods[first]


def _unseen_period(session: SessionRecord, report: LateReport) -> PeriodRecord | None:
    """A new period for a late report of a charge between the last known one and the unplug, of
    which nothing else was told.
    """
    last, end_ms, time_s = session.periods[-1], session.end_ms, report.time_s
    known = any(period.time_s == time_s for period in session.periods)
    if report.type is not EventType.VEHICLE_CHARGE_STOPPED or not report.energy or known:
        return None
    if time_s is None or last.stop_ms is None or end_ms is None:
        return None
    free_ms, lasted_ms = last.stop_ms - TOLERANCE_MS, milliseconds(time_s)
    if report.at_ms - lasted_ms < free_ms or end_ms - lasted_ms < free_ms:
        return None
    period = session.new_period(max(last.stop_ms, end_ms - lasted_ms), start_missing=True)
    period.stop_ms = end_ms
    return period


def with_reports(session: SessionRecord) -> SessionRecord:
    """The session with the reports that came after another session had begun."""
    if not session.reports:
        return session
    whole = msgspec.convert(msgspec.to_builtins(session, builtin_types=(Decimal,)), SessionRecord)
    for report in session.reports:
        leaves = report.type is EventType.VEHICLE_DISCONNECTED
        if not leaves and report.at_ms - (whole.end_ms or 0) > TOLERANCE_MS:
            whole.flag("vehicle-shared" if report.still_there else "event-after-disconnect")
        take_late_report(whole, report)
    return whole
