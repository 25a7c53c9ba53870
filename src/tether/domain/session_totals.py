"""What a session adds to sums, as whole numbers that a database can add up.

Energies in mWh, powers in mW, times in ms. Only where that is exact, and depends on events alone.
"""

from decimal import Decimal
from typing import NamedTuple

from tether.domain.charge_period import EXACT, PeriodRecord
from tether.domain.session_record import SessionRecord, with_reports
from tether.domain.session_views import to_milliwatt_hours

_MOST = 10**12  # so that many of them add up to what a database has room for


class SessionTotals(NamedTuple):
    """All None where only the session itself tells it. From `charge_ms` to `stop_ms` it charged;
    they are None if it has several charge periods.
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


def totals_of(session: SessionRecord) -> SessionTotals:
    """What the session adds, once it has ended."""
    if session.end_ms is None:
        return UNKNOWN
    record = with_reports(session)
    energy = estimated = charged = measured = unmeasured = 0
    power: int | None = None
    for period in record.periods:
        lasted_ms = period.lasted_ms(session.end_ms)
        taken = _energy(period, lasted_ms)
        time = lasted_ms if period.time_s is None else _whole(period.time_s, 3)
        highest = None if period.power_max is None else _whole(period.power_max, 6)
        if time is None or taken is None or (highest is None and period.power_max is not None):
            return UNKNOWN
        charged += time
        if highest is not None:
            power = highest if power is None else max(power, highest)
        if not taken:
            unmeasured += 1
            continue
        energy += taken[0]
        measured += time
        estimated += 0 if period.energy is not None else taken[0]
    if max(abs(energy), abs(estimated), charged) > _MOST:
        return UNKNOWN
    totals = SessionTotals(energy, estimated, charged, measured, unmeasured, power)
    return _with_charge(totals, record)


def _with_charge(totals: SessionTotals, record: SessionRecord) -> SessionTotals:
    assert record.end_ms is not None
    end_ms = max(record.end_ms, record.start_ms)
    within = [
        (start_ms, min(max(period.stop_ms or 0, start_ms), end_ms))
        for period in record.periods
        for start_ms in [min(max(period.start_ms, record.start_ms), end_ms)]
    ]
    if not within:
        return totals._replace(charge_ms=record.start_ms, stop_ms=record.start_ms)
    if len(within) > 1:
        # One of no length at the very end may be in the bucket behind that of all others.
        return UNKNOWN if (end_ms, end_ms) in within else totals
    ((charge_ms, stop_ms),) = within
    # It is divided as energy * part / whole.
    greatest = max(abs(totals.energy or 0), totals.charged or 0) * (stop_ms - charge_ms)
    return totals._replace(charge_ms=charge_ms, stop_ms=stop_ms) if greatest < 2**62 else UNKNOWN


def _energy(period: PeriodRecord, lasted_ms: int) -> tuple[int] | tuple[()] | None:
    """The energy of the period; nothing if it is not known, None if it is no such number."""
    if period.energy is not None:
        energy = period.energy
    elif (counted := period.counted) is not None:
        energy = counted
    elif (by_power := period.by_power(lasted_ms)) is not None:
        energy = to_milliwatt_hours(by_power)
    else:
        # What the state of charge tells depends on the vehicle.
        return None if period.soc_start is not None and period.soc_end is not None else ()
    whole = _whole(energy, 6)
    return None if whole is None else (whole,)


def _whole(number: Decimal, places: int) -> int | None:
    """The number in units of so many places behind the point, if it is a whole number of them."""
    if abs(number) > _MOST:
        return None
    scaled = number.scaleb(places, EXACT)
    whole = int(scaled)
    return whole if whole == scaled else None
