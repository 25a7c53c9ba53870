"""Earlier sessions of a vehicle, as later sessions know them, to recognise late reports.

Instants are in ms since 1970, powers in kW, energies in kWh, states of charge in %.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import accumulate
from typing import NamedTuple

import msgspec

from tether.domain.models import EXACT, Event, EventType

TOLERANCE_MS = 2 * 60 * 1000
"""Clocks and the order of messages may be wrong by this much."""

# Powers and clocks are rounded, so a charge may report this much more than its power allows.
_MARGIN = Decimal("1.1")
_MARGIN_MS = 60 * 1000
_ROUNDED = Decimal("0.5")  # a power of whole kW may have been so much higher

RECENT = 8
"""The number of last sessions that late reports may belong to."""

MAX_UPDATES = 50
"""The most late updates of an ended session that count."""

MILLIONTH = Decimal("0.000001")
"""Computed energies are rounded to a mWh."""

MAX_REPORTS = 8
"""Later sessions know the reports on so many last charges of a session."""

Start = tuple[int, int, str]
"""Identifies a session of a vehicle, and orders its sessions: the instant of the first event, its
rank, and the charger.
"""


class ChargeReport(msgspec.Struct, array_like=True, omit_defaults=True, frozen=True, gc=False):
    """The reported energy in kWh and time in s of a charge. `metered` is the newest reading of a
    meter that was reset during the charge: it lacks the energy before.
    """

    energy: Decimal | None = None
    time_s: Decimal | None = None
    metered: Decimal | None = None

    def covers(self, energy: Decimal | None, time_s: Decimal | None) -> bool:
        """Whether another report has the same values, or some of them."""
        if energy is None and time_s is None:
            return False
        same = energy is None or energy in (self.energy, self.metered)
        return same and (time_s is None or time_s == self.time_s)

    def includes(self, energy: Decimal | None, time_s: Decimal | None) -> bool:
        """Whether another report has neither more energy nor more time."""
        if energy is None and time_s is None:
            return False
        return all(
            value is None or (most is not None and value <= most)
            for value, most in ((energy, self.energy), (time_s, self.time_s))
        )


NO_REPORT = ChargeReport()


class LateReport(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A report on a charge that came after the end of the session. Energy in kWh, time in s."""

    at_ms: int
    seq: int
    type: EventType
    energy: Decimal | None = None
    time_s: Decimal | None = None
    still_there: bool = False
    """It shows that the vehicle was still plugged in, though another event showed that it left."""


def allows(power: Decimal, energy: Decimal, during_ms: int) -> bool:
    """Whether this power in kW, held for that long, gives that energy in kWh."""
    most = EXACT.multiply(EXACT.multiply(power, _MARGIN), Decimal(during_ms + _MARGIN_MS))
    return EXACT.multiply(energy, Decimal(3_600_000)) <= most


def allows_if_rounded(power: Decimal, energy: Decimal, during_ms: int) -> bool:
    """The same for a power that may be rounded, as it is of whole kW."""
    is_whole = power == power.to_integral_value()
    return allows(power + _ROUNDED if is_whole else power, energy, during_ms)


class EarlierCharge(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An earlier charge, or several that follow each other: the start of the first one, their
    energy in kWh, their time in s, and the highest power of the last one.

    The energy is None if only a state of charge tells it.
    """

    start_ms: int
    energy: Decimal | None
    time_s: Decimal
    power: Decimal | None

    def after(self, earlier: "EarlierCharge") -> "EarlierCharge":
        """Both together, with the charge or the charges before."""
        energy = None
        if self.energy is not None and earlier.energy is not None:
            energy = EXACT.add(self.energy, earlier.energy)
        time_s = EXACT.add(self.time_s, earlier.time_s)
        return EarlierCharge(earlier.start_ms, energy, time_s, self.power)

    def part_of(self, energy: Decimal, time_s: Decimal) -> Decimal:
        """What it has of a reported energy: its own, or else by its part of the time. If its own is
        more, the meter has begun anew since, and it has nothing of it.
        """
        own = self.energy
        if own is None:
            own = EXACT.divide(EXACT.multiply(energy, self.time_s), time_s)
            own = own.quantize(MILLIONTH, context=EXACT)
        return own if own * energy >= 0 and abs(own) <= abs(energy) else Decimal(0)


class EventPosition(NamedTuple):
    """The position of an event among the events of its vehicle. `seq` only orders events that the
    server stamped with the same instant: other events differ before that.
    """

    at_ms: int
    rank: int
    charger_id: str
    seq: int


Charge = tuple[int, int]
"""The start and the stop of a charge."""


_SHORT = {
    "start_ms": "s", "start_rank": "r", "charger_id": "c", "lasted_ms": "d", "reports": "t",
    "power": "p", "charges": "m", "end_missing": "u", "earlier_reports": "e", "skipped": "g",
    "updates": "n", "shared": "h", "silent": "w", "before_ms": "b",
}  # fmt: skip


class EndedSession(msgspec.Struct, rename=_SHORT, omit_defaults=True, frozen=True, gc=False):
    """An ended session, as later sessions know it.

    It is stored with each of the next sessions, with short names.

    `end_missing`: no event showed that the vehicle left. `charges` are the charges without a
    STOPPED event. `reports` are the reports on the other charges, the newest last, and
    `earlier_reports` those on earlier complete sessions at this charger. `power` is the highest
    power of the last charge.
    """

    start_ms: int
    charger_id: str
    lasted_ms: int
    start_rank: int = 0
    reports: tuple[ChargeReport, ...] = ()
    power: Decimal | None = None
    charges: tuple[Charge, ...] = ()
    end_missing: bool = False
    earlier_reports: tuple[ChargeReport, ...] = ()
    skipped: int = 0
    """The number of unknown sessions between this one and the next known one."""
    updates: int = 0
    shared: bool = False
    """Events reported the vehicle at this charger after another event showed that it left."""
    silent: Charge | None = None
    """The last charge, if it stopped without an energy."""
    before_ms: int = 0
    """How much earlier its first charge may have begun, in the session before."""

    @property
    def end_ms(self) -> int:
        """When it ended."""
        return self.start_ms + self.lasted_ms

    @property
    def start(self) -> Start:
        """Identifies the session among the vehicle's sessions."""
        return self.start_ms, self.start_rank, self.charger_id

    @property
    def energy(self) -> Decimal | None:
        """The newest reported energy."""
        return self.reports[-1].energy if self.reports else None

    def after(self, earlier: tuple["EndedSession", ...]) -> tuple["EndedSession", ...]:
        """The last known sessions with this one at the end: the last session of each charger, and
        all sessions that still miss a report.
        """
        known, reports, age, skipped = [self], list[ChargeReport](), 0, 0
        for session in reversed(earlier):
            age += 1 + session.skipped
            if age >= RECENT:
                break
            if (
                session.charger_id == self.charger_id
                and not session.end_missing
                and not session.charges
            ):
                reports = [*session.earlier_reports, *session.reports, *reports][-MAX_REPORTS:]
                skipped += 1 + session.skipped
                continue
            between = session.skipped + skipped
            known.append(msgspec.structs.replace(session, skipped=between) if skipped else session)
            skipped = 0
        if reports or self.earlier_reports:
            known[0] = msgspec.structs.replace(self, earlier_reports=tuple(reports))
        known.reverse()
        return tuple(known)

    def has_report(self, energy: Decimal | None, time_s: Decimal | None) -> bool:
        """Whether this was already reported. An energy or a time alone may be another charge's: it
        is compared with the last report only.
        """
        reports = self.reports[-1:]
        if energy is not None and time_s is not None:
            reports = self.earlier_reports + self.reports
        return any(report.covers(energy, time_s) for report in reports)

    def is_new(self, report: LateReport) -> bool:
        """Whether the report adds something."""
        if report.type is EventType.VEHICLE_DISCONNECTED:
            return self.end_missing
        if self.has_report(report.energy, report.time_s):
            return False
        stopped = report.type is EventType.VEHICLE_CHARGE_STOPPED
        if stopped and self.silent is not None and report.energy is not None:
            return True
        if report.still_there and not self.shared:
            return True
        if not self.charges or report.type is EventType.VEHICLE_CHARGE_STOPPED:
            return bool(self.charges)
        new = report.energy is not None and report.energy != self.energy
        return new and self.updates < MAX_UPDATES

    def with_report(self, report: LateReport) -> "EndedSession":
        """The session with this report."""
        if report.type is EventType.VEHICLE_DISCONNECTED:
            return msgspec.structs.replace(self, end_missing=False)
        charges = self.charges
        if report.type is EventType.VEHICLE_CHARGE_STOPPED and charges:
            first, last = matching_charges(charges, report.time_s)
            charges = charges[:first] + charges[last + 1 :]
        reports = self.reports
        if (report.energy, report.time_s) != (None, None):
            reports = (*reports, ChargeReport(report.energy, report.time_s))[-MAX_REPORTS:]
        return msgspec.structs.replace(
            self,
            charges=charges,
            reports=reports,
            shared=self.shared or report.still_there,
            silent=self.silent if self.charges or report.energy is None else None,
            updates=self.updates + 1,
        )

    def spare_ms(self, time_s: Decimal) -> int | None:
        """How much longer than this the matching charge without a STOPPED event can have been; None
        if it was shorter, or if there is none.
        """
        if not self.charges:
            return None
        first, last = matching_charges(self.charges, time_s)
        spare_ms = self.charges[last][1] - self.charges[first][0] - milliseconds(time_s)
        if spare_ms < -TOLERANCE_MS:
            spare_ms += self.before_ms
        return None if spare_ms < -TOLERANCE_MS else abs(spare_ms)

    def had_time_for(self, time_s: Decimal) -> bool:
        """Whether a charge without a STOPPED event can have taken so long."""
        return self.spare_ms(time_s) is not None

    def gives_more(self, energy: Decimal | None, since_ms: int, power: Decimal | None) -> bool:
        """Whether no power gives the energy since then, and it is known, or an earlier charge may
        explain it.

        `power` is that of the charge under way, if it is known.
        """
        power = self.power if power is None else power
        if energy is None or power is None:
            return False
        if not self.charges and not self.has_report(energy, None):
            return False
        return not allows(power, energy, since_ms)

    def late_report(self, position: EventPosition, event: Event) -> LateReport:
        """The event as a report on the session."""
        at_ms = position.at_ms
        energy, time_s, still_there = event.charged_energy, event.charged_time, False
        late = at_ms - self.end_ms > TOLERANCE_MS
        if late and self.end_missing and not self.has_report(energy, time_s):
            still_there = bool(event.charge_power)
            if event.type is EventType.VEHICLE_CHARGE_STOPPED and self.charges:
                still_there = time_s is None or has_lasted((self.charges[-1][0], at_ms), time_s)
        return LateReport(at_ms, position.seq, event.type, energy, time_s, still_there)

    def had_more(self, event: Event) -> bool:
        """Whether an update tells no more than a known charge had: it may be of its course."""
        reports = self.earlier_reports + self.reports
        return event.type is EventType.VEHICLE_CHARGE_UPDATED and any(
            report.includes(event.charged_energy, event.charged_time) for report in reports
        )

    def matches(self, at_ms: int, event: Event) -> bool:
        """Whether an event of this instant belongs to this session, by its energy and time."""
        energy, time_s = event.charged_energy, event.charged_time
        if energy is None and time_s is None:
            return event.type is EventType.VEHICLE_CHARGE_STOPPED
        if self.has_report(energy, time_s):
            return True
        if time_s is not None:
            began_ms = at_ms - time_s * 1000
            again = energy is not None and has_lasted(self.silent, time_s)
            return again or began_ms < self.end_ms - TOLERANCE_MS or self.had_time_for(time_s)
        if self.charges or self.silent or energy == self.energy or energy is None:
            return True
        return self.power is not None and not allows(self.power, energy, at_ms - self.end_ms)


class _LegacyEndedSession(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An ended session as it was stored before migration 9. `age` counts the later sessions."""

    start: Start
    end_ms: int
    end_seen: bool
    charges: tuple[Charge, ...]
    reports: tuple[ChargeReport, ...]
    power: Decimal | None
    shared: bool
    updates: int
    earlier_reports: tuple[ChargeReport, ...]
    age: int


LegacyEndedSessions = tuple[_LegacyEndedSession, ...]


def from_legacy(stored: LegacyEndedSessions) -> tuple[EndedSession, ...]:
    """The same in today's form."""
    newer_ages = [session.age for session in stored[1:]] + [-1]
    return tuple(
        EndedSession(
            session.start[0], session.start[2], session.end_ms - session.start[0], session.start[1],
            session.reports, session.power, session.charges, not session.end_seen,
            session.earlier_reports, session.age - newer - 1, session.updates, session.shared,
        )
        for session, newer in zip(stored, newer_ages, strict=True)
    )  # fmt: skip


def matching_charges(charges: Sequence[Charge], time_s: Decimal | None) -> tuple[int, int]:
    """The indexes of the first and the last charge that a report belongs to, of charges without a
    STOPPED event: the newest charge. With a time it is the charge of the nearest length, or two
    charges with only a repeated start between them.
    """
    newest = len(charges) - 1
    if time_s is None:
        return newest, newest
    spans = [(index, index) for index in range(newest, -1, -1)]
    spans += [
        (index - 1, index) for index in range(newest, 0, -1)
        if charges[index - 1][1] == charges[index][0]
    ]  # fmt: skip
    return min(spans, key=lambda s: abs(charges[s[1]][1] - charges[s[0]][0] - time_s * 1000))


def session_of_report(
    ended: Sequence[EndedSession], energy: Decimal | None, time_s: Decimal | None
) -> EndedSession | None:
    """The session of a report. `ended` are the sessions at one charger, the newest last."""
    for session in reversed(ended):
        if session.has_report(energy, time_s):
            return session
        if energy is None or time_s is None:
            break
    found, least_ms = ended[-1] if ended else None, None
    for session in reversed(ended):
        spare_ms = session.spare_ms(time_s or Decimal(0))
        if spare_ms is not None and time_s is None:
            return session
        if spare_ms is not None and (least_ms is None or spare_ms < least_ms):
            found, least_ms = session, spare_ms
    return found


def has_lasted(charge: tuple[int, int] | None, time_s: Decimal) -> bool:
    """Whether the charge, given by its start and stop, is about as long."""
    return charge is not None and abs(charge[1] - charge[0] - time_s * 1000) <= TOLERANCE_MS


def included_by_time(
    earlier: Iterable[EarlierCharge], time_s: Decimal, start_ms: int, at_ms: int
) -> EarlierCharge | None:
    """The earlier charges, the newest first, that a report includes by its time: it goes back to
    the start of the first of them, or is the time of all together.
    """
    time_ms, lasted_ms = milliseconds(time_s), at_ms - start_ms

    def distance(charge: EarlierCharge) -> int:
        together_ms = milliseconds(charge.time_s) + lasted_ms
        return min(abs(at_ms - time_ms - charge.start_ms), abs(time_ms - together_ms))

    together = list(accumulate(earlier, EarlierCharge.after))
    nearest = min(reversed(together), key=distance, default=None)  # of two, the one with more
    return nearest if nearest is not None and distance(nearest) <= TOLERANCE_MS else None


def included_by_energy(
    earlier: Iterable[EarlierCharge], energy: Decimal, power: Decimal | None, since_ms: int
) -> EarlierCharge | None:
    """The earlier charges that a report includes by its energy: no power gives all of it since
    then, nor in the earlier charges, but it gives the rest since then.
    """
    for charge in accumulate(earlier, EarlierCharge.after):
        own, now = charge.energy, charge.power if power is None else power
        before = now if charge.power is None else charge.power
        if own is None or now is None or before is None:
            return None
        if allows_if_rounded(now, energy, since_ms):
            return None
        if 0 < own <= energy and allows(now, EXACT.subtract(energy, own), since_ms):
            its_own = allows(before, energy, milliseconds(charge.time_s))
            return None if its_own else charge
    return None


def milliseconds(seconds: Decimal) -> int:
    """Seconds as whole milliseconds."""
    return int(seconds * 1000)


class SessionContext(msgspec.Struct, omit_defaults=True, gc=False):
    """The context of a session: the last sessions before it, and the newest state of charge."""

    earlier: tuple[EndedSession, ...] = msgspec.field(default=(), name="known")
    soc: Decimal | None = None
    soc_ms: int = 0
    taken: tuple[int, ...] = ()
    """The numbers of the events of the session's first instant that came before it."""
    continues: tuple[EarlierCharge, ...] = ()
    """The last charges of the session before, the newest first, if they may have gone on."""
    legacy: LegacyEndedSessions | None = msgspec.field(default=None, name="left")

    def __post_init__(self) -> None:
        if self.legacy is not None:
            self.earlier, self.legacy = from_legacy(self.legacy), None
