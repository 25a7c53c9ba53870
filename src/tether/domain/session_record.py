"""Sessions and their charge periods as they are stored: the session builder makes them.

Instants are in ms since 1970, powers in kW, energies in kWh, states of charge in %.
"""

from decimal import Decimal
from hashlib import sha1
from typing import NamedTuple
from uuid import UUID

import msgspec

from tether.domain.earlier_sessions import (
    MAX_REPORTS,
    MILLIONTH,
    NO_REPORT,
    TOLERANCE_MS,
    Charge,
    ChargeReport,
    EarlierCharge,
    EndedSession,
    EventPosition,
    LateReport,
    LegacyEndedSessions,
    Start,
    allows,
    from_legacy,
    milliseconds,
)
from tether.domain.models import EXACT, Event, EventType

MAX_TAKEN = 8
"""If more events share an instant, sessions are computed again from an earlier session."""

AWAY_SOC = Decimal(1)
"""If a vehicle is plugged in again with so much less charge, in %, it has been away."""

TINY_SOC = Decimal(1)
"""If a session has no higher state of charge than this, in %, it is probably a fraction."""

MAX_PERIODS = 1000
"""The last of so many charge periods of a session takes in all later ones."""

LONG_GAP_MS = 15 * 60 * 1000
"""After a longer gap between two readings of the power, the first one holds: chargers that report
only changes are silent while nothing changes, and no power rises for hours.
"""

MAX_READINGS = 64
"""The readings of more events are not stored beside the session: each event writes all of them."""

_IDS = UUID("6b0d2a7e-3c55-4f8e-9d8e-0f6f6c9a7d41").bytes
_INSTANT_MASK = 2**48 - 1
CONNECTED, STARTED, UPDATED, STOPPED, DISCONNECTED = range(5)
_RANK = {
    EventType.VEHICLE_CONNECTED: CONNECTED,
    EventType.VEHICLE_CHARGE_STARTED: STARTED,
    EventType.VEHICLE_CHARGE_UPDATED: UPDATED,
    EventType.VEHICLE_CHARGE_STOPPED: STOPPED,
    EventType.VEHICLE_DISCONNECTED: DISCONNECTED,
}


class OrderedEvent(NamedTuple):
    """An event with its position, by which events are ordered."""

    position: EventPosition
    event: Event


def ordered_event(seq: int, at_ms: int, event: Event) -> OrderedEvent:
    """The event, committed as number `seq`, with its position."""
    return OrderedEvent(EventPosition(at_ms, _RANK[event.type], event.charger_id, seq), event)


class PeriodRecord(msgspec.Struct, omit_defaults=True, gc=False):
    """A charge period. `stop_ms` is None while it is active."""

    start_ms: int
    stop_ms: int | None = None
    # Reported by the event that ended it, or later.
    energy: Decimal | None = None
    time_s: Decimal | None = None
    # The newest meter reading of an update, and the energy from before the meter was reset.
    metered: Decimal | None = None
    metered_before: Decimal | None = None
    metered_ms: int = 0
    # The reading before the newest one, unless the meter was reset between them.
    previous: Decimal | None = None
    previous_ms: int = 0
    # The two readings between which the meter fell last, and when.
    fell_from: Decimal | None = None
    fell_to: Decimal = Decimal(0)
    fell_ms: int = 0
    # The readings of the power: first, last, and twice the area between them, in kW·ms.
    power_first: Decimal | None = None
    power_first_ms: int = 0
    power: Decimal | None = None
    power_ms: int = 0
    power_area: Decimal = Decimal(0)
    power_max: Decimal | None = None
    power_min: Decimal | None = None
    # The state of charge at the start, and at the end or the newest one.
    soc_start: Decimal | None = None
    soc_end: Decimal | None = None
    soc_end_ms: int = 0
    soc_final: bool = False
    # There was no STARTED event; only a rising state of charge showed it.
    start_missing: bool = False
    by_soc: bool = False
    # Ended by a second start, which may belong to the same charge, or by the end of the session.
    cut: bool = False
    # The period up to a second start, if only the meter shows that both are one charge.
    first_part: "PeriodRecord | None" = None
    stop_missing: bool = False
    reported_ms: int = 0
    """When it was reported, if that was after the end of the session."""
    before: ChargeReport | None = None
    """What its reports have of earlier charges."""

    @property
    def counted(self) -> Decimal | None:
        """The energy by the meter."""
        if self.metered is None or self.metered_before is None:
            return self.metered
        return EXACT.add(self.metered_before, self.metered)

    @property
    def report(self) -> ChargeReport:
        """The report on the period."""
        if self.energy is None and self.metered_before is not None:
            return ChargeReport(self.counted, self.time_s, self.metered)
        return ChargeReport(self.counted if self.energy is None else self.energy, self.time_s)

    @property
    def is_unreported(self) -> bool:
        """Whether it ended without a STOPPED event, and its energy is not known."""
        return self.energy is None and (self.stop_missing or self.cut)

    @property
    def own_time_s(self) -> Decimal | None:
        """The reported time, without that of earlier charges."""
        if self.time_s is None or self.before is None or self.before.time_s is None:
            return self.time_s
        return EXACT.subtract(self.time_s, self.before.time_s)

    def own_energy(self, lasted_ms: int) -> Decimal | None:
        """The energy by the best source that does not depend on the vehicle, without that of
        earlier charges.
        """
        reported = self.counted if self.energy is None else self.energy
        if reported is None:
            energy = self.by_power(lasted_ms)
            return None if energy is None else energy.quantize(MILLIONTH, context=EXACT)
        included = None if self.before is None else self.before.energy
        return reported if included is None else EXACT.subtract(reported, included)

    def lasted_ms(self, until_ms: int) -> int:
        """The length of the period, or its length up to an instant if it is active."""
        return (until_ms if self.stop_ms is None else self.stop_ms) - self.start_ms

    def used_since(self, soc: Decimal, at_ms: int) -> bool:
        """Whether the state of charge rose here, and shows that the vehicle was used afterwards."""
        start, end = self.soc_start, self.soc_end
        if self.stop_ms is None or at_ms <= self.stop_ms or start is None or end is None:
            return False
        return start < end and soc < end - AWAY_SOC

    def span(self, until_ms: int) -> Charge:
        """The start and the stop of the period; it stops at the instant if it is active."""
        return self.start_ms, until_ms if self.stop_ms is None else self.stop_ms

    def allows(
        self, energy: Decimal | None, during_ms: int, before: "PeriodRecord | None" = None
    ) -> bool:
        """Whether the reported powers allow this energy in this time. If there are none, those of
        the period before decide.
        """
        power = self.power_max
        if power is None and before is not None:
            power = before.power_max
        return energy is None or power is None or allows(power, energy, during_ms)

    def allows_since(self, event: Event, at_ms: int) -> bool:
        """Whether the reported powers allow the energy of the event in the time since the stop."""
        assert self.stop_ms is not None
        told = [power for power in (self.power_max, event.charge_power) if power is not None]
        energy = event.charged_energy
        return energy is None or not told or allows(max(told), energy, at_ms - self.stop_ms)

    def by_power(self, lasted_ms: int) -> Decimal | None:
        """The energy in kWh by the readings of the power, over this time from the start.

        The first reading also counts for the time before it, and the last one for the time after.
        """
        if self.power is None or self.power_first is None:
            return None
        before = EXACT.multiply(self.power_first, Decimal(self.power_first_ms - self.start_ms))
        after_ms = self.start_ms + lasted_ms - self.power_ms
        held = EXACT.fma(self.power, Decimal(after_ms), before)
        return EXACT.divide(EXACT.fma(held, Decimal(2), self.power_area), Decimal(7_200_000))

    def read_power(self, power: Decimal, at_ms: int) -> None:
        """Takes a reading of the power."""
        if self.power is None:
            self.power_first, self.power_first_ms = power, at_ms
        else:
            gap_ms = at_ms - self.power_ms
            both = EXACT.add(self.power, power if gap_ms <= LONG_GAP_MS else self.power)
            self.power_area = EXACT.fma(both, Decimal(gap_ms), self.power_area)
        self.extend_range(power)
        self.power, self.power_ms = power, at_ms

    def extend_range(self, power: Decimal | None) -> None:
        """Extends the range of the power, unless it already includes this one."""
        if power is not None:
            self.power_max = power if self.power_max is None else max(self.power_max, power)
            self.power_min = power if self.power_min is None else min(self.power_min, power)

    def is_back(self, energy: Decimal, at_ms: int) -> bool:
        """Whether the meter is back where it fell from, sooner than the power allows. Then it was
        not reset, but sent a wrong reading.
        """
        if self.metered_before is None or self.fell_from is None or energy < self.fell_from:
            return False
        gained = EXACT.subtract(energy, self.fell_to)
        return not self._gives(gained, at_ms - self.fell_ms, self.metered_before, self.fell_ms)

    def _gives(self, gained: Decimal, during_ms: int, counted: Decimal, by_ms: int) -> bool:
        """Whether the power allows this energy in this time: the highest reported one, or else
        twice the average with which the meter had counted by an instant.
        """
        power = self.power_max
        if power is None and by_ms > self.start_ms:
            twice = EXACT.multiply(counted, Decimal(7_200_000))
            power = EXACT.divide(twice, Decimal(by_ms - self.start_ms))
        return power is None or allows(power, gained, during_ms)

    def _forget_jump(self) -> None:
        """Forgets the newest reading of the meter, after which it fell, if the power does not allow
        half of what it had more than the reading before.
        """
        if self.previous is None or self.metered is None:
            return
        gained = EXACT.divide(EXACT.subtract(self.metered, self.previous), Decimal(2))
        counted = EXACT.add(self.metered_before or Decimal(0), self.previous)
        during_ms = self.metered_ms - self.previous_ms
        if not self._gives(gained, during_ms, counted, self.previous_ms):
            self.metered, self.metered_ms = self.previous, self.previous_ms

    def _falls(self, energy: Decimal) -> bool:
        """Whether this reading of the meter is below half of the last one."""
        return self.metered is not None and 0 <= 2 * energy < self.metered

    def forget_fall(self) -> None:
        """Counts as if the meter had not fallen."""
        assert self.metered_before is not None
        assert self.fell_from is not None
        before = EXACT.subtract(self.metered_before, self.fell_from)
        self.metered, self.metered_before = self.fell_from, before or None
        self.fell_from = None

    def read_meter(self, energy: Decimal, at_ms: int = 0) -> bool:
        """Takes a reading of the meter. Returns whether the meter fell below half.

        Then it was reset, or the last reading was wrong. A smaller fall is a correction.
        """
        fell = self._falls(energy)
        if fell:
            self._forget_jump()
        if fell and self._falls(energy):
            self.previous, self.metered_before = None, self.counted
            self.fell_from = self.metered if at_ms else None
            self.fell_to, self.fell_ms = energy, at_ms
        else:
            self.previous = self.metered if at_ms else None
            self.previous_ms = self.metered_ms
        self.metered, self.metered_ms = energy, at_ms
        return fell

    def take_report(self, energy: Decimal | None, time_s: Decimal | None) -> bool:
        """Takes a report on the whole period, unless it is already reported. Returns whether the
        meter fell below half.
        """
        if self.time_s is None:
            self.time_s = time_s
        if energy is None or self.energy is not None:
            return False
        fell = self._falls(energy)
        if fell:
            self._forget_jump()
        counted = self.counted
        reset = counted is not None and 0 <= 2 * energy < counted
        if reset or (self.metered_before is not None and counted is not None and energy < counted):
            self.read_meter(energy)  # the meter was reset
            return True
        self.energy = energy
        return fell

    def continue_with(self, event: Event, at_ms: int) -> bool:
        """Continues the ended charge if the event reports a longer time and more energy for it.

        Then the charge had not ended. Returns whether it continues.
        """
        energy, time_s = event.charged_energy, event.charged_time
        if energy is None or self.energy is None or self.stop_ms is None or energy <= self.energy:
            return False
        if time_s is None:
            stopped = event.type is EventType.VEHICLE_CHARGE_STOPPED
            corrects = stopped and at_ms - self.stop_ms <= TOLERANCE_MS
            shows = stopped or bool(event.charge_power)
            same = corrects or (shows and not self.allows_since(event, at_ms))
        else:
            first_ms = self.start_ms
            if self.before is not None and self.before.time_s is not None:
                first_ms -= milliseconds(self.before.time_s)
            began_ms = at_ms - time_s * 1000
            same = self.time_s is not None and abs(began_ms - first_ms) <= TOLERANCE_MS
        if same:
            self.energy, self.time_s, self.stop_ms, self.soc_final = energy, time_s, at_ms, False
        return same

    def resume(self, power: Decimal, at_ms: int) -> None:
        """Makes the charge active again, after an update with a power."""
        self.metered, self.metered_before, self.fell_from = self.energy, None, None
        self.metered_ms, self.previous = at_ms, None
        self.energy = self.time_s = self.stop_ms = None
        self.read_power(power, at_ms)

    def add(self, event: Event) -> None:
        """Adds the report on another charge. This period then represents several charges."""
        if event.charged_energy is not None:
            self.energy = EXACT.add(self.energy or Decimal(0), event.charged_energy)
        if event.charged_time is not None:
            self.time_s = EXACT.add(self.time_s or Decimal(0), event.charged_time)


class EventReading(msgspec.Struct, array_like=True, omit_defaults=True, frozen=True, gc=False):
    """The readings of an event, `after_ms` after the start of its session. It has a power only if
    a charge of the session has read it.
    """

    after_ms: int
    soc: Decimal | None = None
    power: Decimal | None = None


class SessionRecord(msgspec.Struct, omit_defaults=True, gc=False):
    """A session of a vehicle at a charger, from plug-in to unplug; `end_ms` is None until then."""

    vehicle_id: str
    charger_id: str
    start_ms: int
    start_rank: int
    last: EventPosition
    """The position of its newest event."""
    here: EventPosition | None = None
    """The position of its newest event at this charger, if `last` is at another one."""
    end_ms: int | None = None
    end_missing: bool = False
    """There was no DISCONNECTED event: another session shows that the vehicle has left."""
    start_missing: bool = False
    """There was no CONNECTED event."""
    periods: list[PeriodRecord] = []
    flags: list[str] = []
    soc_start: Decimal | None = None
    soc: Decimal | None = None
    soc_ms: int = 0
    reports: list[LateReport] = []
    """Reports on it after another session had begun."""
    continues: tuple[EarlierCharge, ...] = ()
    """The last charges of the session before, with what was reported of them since then."""
    earlier: tuple[EndedSession, ...] | None = msgspec.field(default=None, name="known")
    """The known earlier sessions, if events of this session have reported on one of them."""
    reports_on: list[Start] = msgspec.field(default_factory=list, name="told")
    """The earlier sessions that events of this session have reported on."""

    readings: list[EventReading] | None = msgspec.field(default_factory=list, name="seen")
    """The readings of its events, in order; None if there are too many, or they are not known. They
    are stored in a column of their own, as partners never see them.
    """
    legacy: LegacyEndedSessions | None = msgspec.field(default=None, name="left")

    def __post_init__(self) -> None:
        if self.legacy is not None:
            self.earlier, self.legacy = from_legacy(self.legacy), None

    @property
    def id(self) -> str:
        """The same events give the same session the same id (RFC 9562, version 8).

        It begins with the instant: most writes change the newest sessions, which are then on few
        pages of an index.
        """
        began = f"{self.start_ms}/{self.start_rank}/{self.charger_id}/{self.vehicle_id}"
        instant = f"{self.start_ms & _INSTANT_MASK:012x}"
        digest = sha1(_IDS + began.encode(), usedforsecurity=False).hexdigest()
        variant = "89ab"[int(digest[3], 16) & 3]
        return f"{instant[:8]}-{instant[8:]}-8{digest[:3]}-{variant}{digest[4:7]}-{digest[7:19]}"

    @property
    def start(self) -> Start:
        """Identifies the session among the vehicle's sessions."""
        return self.start_ms, self.start_rank, self.charger_id

    @property
    def charging(self) -> PeriodRecord | None:
        """The active charge period, if there is one."""
        if self.periods and self.periods[-1].stop_ms is None:
            return self.periods[-1]
        return None

    @property
    def first_start_ms(self) -> int:
        """The start of the charge under way, or its first one if it was repeated; or else of the
        session.
        """
        start_ms = self.start_ms
        for period in reversed(self.periods):
            if period.stop_ms is not None and not period.cut:
                break
            start_ms = period.start_ms
        return start_ms

    @property
    def newest_here(self) -> EventPosition:
        """The position of its newest event at this charger."""
        return self.here or self.last

    @property
    def without_references(self) -> "SessionRecord":
        """The session as partners see it, without other sessions, chargers or single events."""
        last = self.last._replace(charger_id=self.charger_id)
        return msgspec.structs.replace(
            self, last=last, here=None, earlier=None, reports_on=[], readings=None, continues=()
        )

    def with_readings(self, readings: list[EventReading] | None) -> "SessionRecord":
        """The session with its stored readings, unless a server of an older version has added an
        event without them.
        """
        whole = readings and self.start_ms + readings[-1].after_ms == self.last.at_ms
        self.readings = readings if whole else None
        return self

    @property
    def lasts_to_ms(self) -> int:
        """The end of the session; the newest event of an active one."""
        return max(self.start_ms, self.last.at_ms if self.end_ms is None else self.end_ms)

    @property
    def unreported_charges(self) -> list[Charge]:
        """The start and the stop of each ended charge without a report. If the start is not known,
        it is the earliest possible one.
        """
        return [
            (self.free_from(number) if period.start_missing else period.start_ms, period.stop_ms)
            for number, period in enumerate(self.periods)
            if period.is_unreported and period.stop_ms is not None
        ]

    def free_from(self, number: int) -> int:
        """The earliest possible start of the period with this number."""
        before = self.periods[number - 1].stop_ms if number else None
        return self.start_ms if before is None else before

    def move_start(self, period: PeriodRecord, time_s: Decimal | None, until_ms: int) -> None:
        """Lets a period whose start is not known begin earlier, if its time shows that."""
        if period.start_missing and time_s is not None:
            free_ms = self.free_from(self.periods.index(period))
            began_ms = max(free_ms, until_ms - milliseconds(time_s))
            period.start_ms = min(period.start_ms, began_ms)

    def note_report(
        self, report: LateReport, ended: EndedSession, known: tuple[EndedSession, ...]
    ) -> None:
        """Notes that an event of this session has reported on one of the known earlier ones."""
        self.reports_on = sorted({*self.reports_on, ended.start})
        self.earlier = tuple(
            old.with_report(report) if old.start == ended.start else old for old in known
        )
        if ended.start == known[-1].start and self.continues and report.energy is not None:
            last, *others = self.continues
            self.continues = (msgspec.structs.replace(last, energy=report.energy), *others)

    def charge_spans(self) -> list[Charge]:
        """The start and the stop of each charge period, within the session."""
        spans, end_ms = list[Charge](), self.lasts_to_ms
        for period in self.periods:
            start_ms, stop_ms = period.span(end_ms)
            start_ms = min(max(start_ms, self.start_ms), end_ms)
            spans.append((start_ms, min(max(stop_ms, start_ms), end_ms)))
        return spans

    def flag(self, name: str) -> None:
        """Adds a flag."""
        if name not in self.flags:
            self.flags = sorted([*self.flags, name])

    def new_period(self, start_ms: int, *, start_missing: bool = False) -> PeriodRecord:
        """Begins a charge period."""
        if len(self.periods) == MAX_PERIODS:
            self.flag("periods-merged")
            self.periods[-1].stop_ms = None
            return self.periods[-1]
        period = PeriodRecord(start_ms, soc_start=self.soc, start_missing=start_missing)
        self.periods.append(period)
        return period

    def was_away(self, event: Event) -> bool:
        """Whether a vehicle that is plugged in again has been away: it has less charge than before.

        0 is what a charger sends that does not know.
        """
        fed_back = any((period.power_min or 0) < 0 for period in self.periods)
        if self.soc is None or not event.state_of_charge or fed_back:
            return False
        return event.state_of_charge < self.soc - AWAY_SOC

    def end(self, at_ms: int) -> None:
        """Ends the session, and the charge under way."""
        if self.charging is not None:
            self.charging.stop_missing = True
            self.charging.stop_ms = at_ms
        self.end_ms = at_ms

    def free_start(self, at_ms: int, event: Event) -> int:
        """The start of a period without a STARTED event: by its time, within the free time."""
        free_ms = self.periods[-1].stop_ms if self.periods else self.start_ms
        assert free_ms is not None
        if event.charged_time is not None:
            return max(free_ms, at_ms - milliseconds(event.charged_time))
        if event.type is EventType.VEHICLE_CHARGE_STOPPED:
            return free_ms
        # The state of charge rose since the reading before.
        return at_ms if event.charge_power or self.soc is None else max(free_ms, self.soc_ms)

    def record_newest(self, position: EventPosition, event: Event, *, elsewhere: bool) -> None:
        """Records the newest event; `elsewhere`: it is at another charger."""
        self.here = self.newest_here if elsewhere else None
        self.last = position
        if self.readings is not None and len(self.readings) < MAX_READINGS:
            newest = self.periods[-1] if self.periods and not elsewhere else None
            read = newest is not None and newest.power_ms == position.at_ms
            power = event.charge_power if read else None
            self.readings.append(
                EventReading(position.at_ms - self.start_ms, event.state_of_charge, power)
            )
        else:
            self.readings = None

    def read_soc(
        self, position: EventPosition, event: Event, period: PeriodRecord | None, *, elsewhere: bool
    ) -> None:
        """Takes in the state of charge. `period` is the charge that was under way."""
        soc = event.state_of_charge
        if soc is None:
            return
        if period is not None and self.soc is not None and soc < self.soc:
            feeds_back = min(period.power or 0, event.charge_power or 0) < 0
            if not feeds_back:
                self.flag("state-of-charge-fell")
        if self.soc is None:
            self.soc_start = soc
            if soc <= TINY_SOC:
                self.flag("state-of-charge-tiny")
        elif soc > TINY_SOC and "state-of-charge-tiny" in self.flags:
            self.flags = [name for name in self.flags if name != "state-of-charge-tiny"]
        self.soc, self.soc_ms = soc, position.at_ms
        if not self.periods or elsewhere:
            return
        newest = self.periods[-1]
        begins = newest.soc_start is None and newest.stop_ms is None
        if position.rank == STARTED or begins:
            newest.soc_start = soc
        elif not newest.soc_final:
            if not newest.used_since(soc, position.at_ms):
                newest.soc_end, newest.soc_end_ms = soc, position.at_ms
            newest.soc_final = newest.stop_ms is not None

    def ended(self) -> EndedSession:
        """What later sessions have to know of this ended session."""
        assert self.end_ms is not None
        last, silent = self.periods[-1] if self.periods else None, None
        if last is not None and last.energy is None and not last.is_unreported:
            silent = last.span(self.end_ms)
        charges = self.unreported_charges if self.periods else [(self.start_ms, self.end_ms)]
        reports = [period.report for period in self.periods if period.report != NO_REPORT]
        return EndedSession(
            self.start_ms, self.charger_id, self.end_ms - self.start_ms, self.start_rank,
            tuple(reports[-MAX_REPORTS:]), last.power_max if last else None,
            tuple(charges[-MAX_REPORTS:]), self.end_missing, silent=silent,
            before_ms=self.start_ms - self.continues[-1].start_ms if self.continues else 0,
        )  # fmt: skip


def in_order(session: SessionRecord | None, events: list[OrderedEvent]) -> list[OrderedEvent]:
    """The events of one instant in the order in which they can have happened.

    First the session and the charge under way end, then others begin. The remaining events are in
    the order of a charge.
    """
    ends: list[OrderedEvent] = []
    if session is not None and session.end_ms is None:
        here = [event for event in events if event.position.charger_id == session.charger_id]
        ranks = {event.position.rank for event in here}
        again, leaves = CONNECTED in ranks, DISCONNECTED in ranks
        if session.charging is None and not again:
            ends = here  # a charge of no length, before the unplug
        else:
            stops = STOPPED in ranks
            wanted = {UPDATED: leaves or stops, STOPPED: stops, DISCONNECTED: leaves}
            if leaves or session.charging is not None:
                ends = [event for event in here if wanted.get(event.position.rank)]
            if not leaves and not again:  # other events here come before events elsewhere
                ends += [event for event in here if event not in ends]
    rest = [event for event in events if event not in ends]
    first = {position.charger_id: position.rank for position, _ in reversed(rest)}
    return ends + sorted(
        rest,
        key=lambda event: (first[event.position.charger_id], event.position.charger_id, event),
    )
