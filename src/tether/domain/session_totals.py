"""The totals of a session as whole numbers, which a database can add up.

Energies in mWh, powers in mW, times in ms. Only where that is exact and depends on events alone.
"""

from decimal import Decimal
from typing import NamedTuple

from tether.domain.charge_reports import with_reports
from tether.domain.models import EXACT
from tether.domain.session_record import PeriodRecord, SessionRecord
from tether.domain.session_views import energy_of_events

_MAX = 10**12  # a database's integers can hold the sum of many such numbers


class SessionTotals(NamedTuple):
    """The totals; all None if they are not exact. The session charged from `charge_ms` to
    `stop_ms`, which are None if it has several charge periods.
    """

    energy: int | None = None
    estimated: int | None = None
    charged: int | None = None
    measured: int | None = None
    unmeasured: int | None = None
    power: int | None = None
    charge_ms: int | None = None
    stop_ms: int | None = None


UNKNOWN = SessionTotals()


class _NotExact(Exception):
    """A number is not whole, is too large, or depends on the vehicle."""


def totals_of(session: SessionRecord) -> SessionTotals:
    """The totals of a session that has ended; UNKNOWN for one that is active, or if not exact."""
    if session.end_ms is None:
        return UNKNOWN
    record = with_reports(session)
    energy = estimated = charged = measured = unmeasured = 0
    powers: list[int] = []
    try:
        for period in record.periods:
            lasted_ms = period.lasted_ms(session.end_ms)
            taken = _energy(period, lasted_ms)
            time_s = period.own_time_s
            time = lasted_ms if time_s is None else _whole(time_s, 3)
            charged += time
            if period.power_max is not None:
                powers.append(_whole(period.power_max, 6))
            if taken is None:
                unmeasured += 1
                continue
            energy += taken
            measured += time
            estimated += 0 if period.energy is not None else taken
    except _NotExact:
        return UNKNOWN
    if max(abs(energy), abs(estimated), charged) > _MAX:
        return UNKNOWN
    power = max(powers, default=None)
    totals = SessionTotals(energy, estimated, charged, measured, unmeasured, power)
    return _with_charge(totals, record)


def _with_charge(totals: SessionTotals, record: SessionRecord) -> SessionTotals:
    spans, end_ms = record.charge_spans(), record.lasts_to_ms
    if not spans:
        return totals._replace(charge_ms=record.start_ms, stop_ms=record.start_ms)
    if len(spans) > 1:
        # A period of no length at the very end may be in a later bucket than all others.
        return UNKNOWN if (end_ms, end_ms) in spans else totals
    ((charge_ms, stop_ms),) = spans
    # The database computes energy * part / whole.
    greatest = max(abs(totals.energy or 0), totals.charged or 0) * (stop_ms - charge_ms)
    return totals._replace(charge_ms=charge_ms, stop_ms=stop_ms) if greatest < 2**62 else UNKNOWN


def _energy(period: PeriodRecord, lasted_ms: int) -> int | None:
    """The energy of the period; None if it is not known. Raises _NotExact."""
    energy, _ = energy_of_events(period, lasted_ms)
    if energy is not None:
        return _whole(energy, 6)
    if period.soc_start is not None and period.soc_end is not None:
        raise _NotExact  # the state of charge gives an energy that depends on the vehicle
    return None


def _whole(number: Decimal, places: int) -> int:
    """The number in units of so many decimal places. Raises _NotExact if it is not whole."""
    if abs(number) > _MAX:
        raise _NotExact
    scaled = number.scaleb(places, EXACT)
    whole = int(scaled)
    if whole != scaled:
        raise _NotExact
    return whole
