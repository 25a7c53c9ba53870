"""A stay of a vehicle at a charger: what the session builder makes of events, and partners see as a
charging session.

Instants are in ms since 1970, powers in kW, energies in kWh, states of charge in %.
"""

from decimal import Decimal
from hashlib import sha1
from typing import NamedTuple
from uuid import UUID

import msgspec

from tether.model import Event, EventType
from tether.periods import TOLERANCE_MS, Period, Report, allows

RECENT = 8
"""Of so many last stays a report may still come after another stay has begun."""

MOST_TAKEN = 8
"""More events of one instant are not named: then sessions are derived again from an earlier one."""

MOST_UPDATES = 50
"""Of an ended stay so many updates are noted at most."""

MOST_PERIODS = 1000
"""A stay with more charge periods has one that takes in all the others that follow."""

_IDS = UUID("6b0d2a7e-3c55-4f8e-9d8e-0f6f6c9a7d41").bytes
_MOST_INSTANT = 2**48 - 1
CONNECTED, STARTED, UPDATED, STOPPED, DISCONNECTED = range(5)
_RANK = {
    EventType.VEHICLE_CONNECTED: CONNECTED,
    EventType.VEHICLE_CHARGE_STARTED: STARTED,
    EventType.VEHICLE_CHARGE_UPDATED: UPDATED,
    EventType.VEHICLE_CHARGE_STOPPED: STOPPED,
    EventType.VEHICLE_DISCONNECTED: DISCONNECTED,
}

Start = tuple[int, int, str]
"""What tells a stay from the vehicle's others, and orders them: its instant, the rank of the event
that began it, its charger.
"""


class Place(NamedTuple):
    """Where an event stands among those of its vehicle. `seq` only parts what the server stamped
    with one instant: what partners stamp differs before that.
    """

    at_ms: int
    rank: int
    charger_id: str
    seq: int


class Fact(NamedTuple):
    """An event at its place; facts are ordered by it."""

    place: Place
    event: Event


def fact_of(seq: int, at_ms: int, event: Event) -> Fact:
    """The event, committed as number `seq`, at its place."""
    return Fact(Place(at_ms, _RANK[event.type], event.charger_id, seq), event)


class Left(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What later stays have to know of one that has ended: what may still be reported of it.

    `seen`: an event told that the vehicle left. `charge` is the start and the stop of a charge of
    which no STOPPED told; `energy`, `time_s` and `power` are what is known of its last one.
    """

    start: Start
    end_ms: int
    seen: bool = True
    charge: tuple[int, int] | None = None
    energy: Decimal | None = None
    time_s: Decimal | None = None
    power: Decimal | None = None
    shared: bool = False
    """Events named the vehicle there after it seemed to have left."""
    updates: int = 0
    age: int = 0
    """How many stays have begun since, the first one not counted."""

    @property
    def may_be_told(self) -> bool:
        """Whether something is missing that may still be told when one more stay has begun."""
        return self.age + 1 < RECENT and (self.charge is not None or not self.seen)

    def older(self) -> "Left":
        """The same when one more stay has begun."""
        return msgspec.structs.replace(self, age=self.age + 1)

    def learns(self, report: Report) -> bool:
        """Whether it tells something that is not known."""
        if report.type is EventType.VEHICLE_DISCONNECTED:
            return not self.seen
        if report.there and not self.shared:
            return True
        if self.charge is None or report.type is EventType.VEHICLE_CHARGE_STOPPED:
            return self.charge is not None
        new = report.energy is not None and report.energy != self.energy
        return new and self.updates < MOST_UPDATES

    def knowing(self, report: Report) -> "Left":
        """The same with what the report tells."""
        if report.type is EventType.VEHICLE_DISCONNECTED:
            return msgspec.structs.replace(self, seen=True)
        stopped = report.type is EventType.VEHICLE_CHARGE_STOPPED
        return msgspec.structs.replace(
            self,
            charge=None if stopped else self.charge,
            energy=self.energy if report.energy is None else report.energy,
            time_s=self.time_s if report.time_s is None else report.time_s,
            shared=self.shared or report.there,
            updates=self.updates + 1,
        )

    def had_time_for(self, time_s: Decimal) -> bool:
        """Whether a charge of it of which no STOPPED told can have taken so long."""
        if self.charge is None:
            return False
        start_ms, stop_ms = self.charge
        return time_s * 1000 <= stop_ms - start_ms + TOLERANCE_MS

    def report(self, place: Place, event: Event) -> Report:
        """What the event tells of the stay."""
        at_ms = place.at_ms
        energy, time_s, there = event.charged_energy, event.charged_time, False
        if not self.seen and at_ms - self.end_ms > TOLERANCE_MS:
            there = bool(event.charge_power)
            if event.type is EventType.VEHICLE_CHARGE_STOPPED and self.charge is not None:
                there = time_s is None or has_lasted((self.charge[0], at_ms), time_s)
        return Report(at_ms, place.seq, event.type, energy, time_s, there)

    def is_meant(self, at_ms: int, event: Event) -> bool:
        """Whether a report of that instant is of this stay, by its own account."""
        energy, time_s = event.charged_energy, event.charged_time
        if energy is None and time_s is None:
            return event.type is EventType.VEHICLE_CHARGE_STOPPED
        if (energy, time_s) == (self.energy, self.time_s):
            return True
        if time_s is not None:
            began_ms = at_ms - time_s * 1000
            return began_ms < self.end_ms - TOLERANCE_MS or self.had_time_for(time_s)
        if self.charge is not None or energy == self.energy or energy is None:
            return True
        return self.power is not None and not allows(self.power, energy, at_ms - self.end_ms)


class Before(msgspec.Struct, omit_defaults=True, gc=False):
    """What a stay has to know of the time before it: of the last stay, of those before it of which
    something is missing, and the newest state of charge.
    """

    left: tuple[Left, ...] = ()
    soc: Decimal | None = None
    soc_ms: int = 0
    taken: tuple[int, ...] = ()
    """Which events of the instant at which the stay begins came before it, by their numbers."""


class Stay(msgspec.Struct, omit_defaults=True, gc=False):
    """One stay of a vehicle at a charger, from plug-in to unplug; `end_ms` is None until then."""

    vehicle_id: str
    charger_id: str
    start_ms: int
    start_rank: int
    last: Place
    """The place of its newest event."""
    here: Place | None = None
    """The place of its newest event at this charger, where that is another one."""
    end_ms: int | None = None
    end_missing: bool = False
    """No event told that the vehicle left: another stay shows that it did."""
    start_missing: bool = False
    """No event told that the vehicle was plugged in."""
    periods: list[Period] = []
    flags: list[str] = []
    soc_start: Decimal | None = None
    soc: Decimal | None = None
    soc_ms: int = 0
    reports: list[Report] = []
    """What events told of it when another stay had begun."""
    left: tuple[Left, ...] | None = None
    """What is known of earlier stays, where an event of this one told more than was known."""
    told: list[Start] = []
    """The earlier stays of which events of this one told."""

    @property
    def id(self) -> str:
        """The same events give the same stay the same id (RFC 9562, version 8).

        It begins with the instant, as the newest stays are those that are written: of an index of
        ids that lie anywhere each of them would change a page.
        """
        began = f"{self.start_ms}/{self.start_rank}/{self.charger_id}/{self.vehicle_id}"
        instant = f"{self.start_ms & _MOST_INSTANT:012x}"
        digest = sha1(_IDS + began.encode(), usedforsecurity=False).hexdigest()
        variant = "89ab"[int(digest[3], 16) & 3]
        return f"{instant[:8]}-{instant[8:]}-8{digest[:3]}-{variant}{digest[4:7]}-{digest[7:19]}"

    @property
    def start(self) -> Start:
        """What tells it from the vehicle's others."""
        return self.start_ms, self.start_rank, self.charger_id

    @property
    def charging(self) -> Period | None:
        """The period that goes on, if one does."""
        if self.periods and self.periods[-1].stop_ms is None:
            return self.periods[-1]
        return None

    @property
    def newest_here(self) -> Place:
        """The place of its newest event at this charger."""
        return self.here or self.last

    def flag(self, name: str) -> None:
        """Notes that something about the stay is odd."""
        if name not in self.flags:
            self.flags = sorted([*self.flags, name])

    def new_period(self, start_ms: int, *, start_missing: bool = False) -> Period:
        """A charge period that begins now."""
        if len(self.periods) == MOST_PERIODS:
            self.flag("periods-merged")
            self.periods[-1].stop_ms = None
            return self.periods[-1]
        period = Period(start_ms, soc_start=self.soc, start_missing=start_missing)
        self.periods.append(period)
        return period

    def read_soc(
        self, place: Place, event: Event, period: Period | None, *, elsewhere: bool
    ) -> None:
        """Takes in the state of charge, which falls only while the vehicle feeds back. `period` is
        the charge that was under way.
        """
        soc = event.state_of_charge
        if soc is None:
            return
        if period is not None and self.soc is not None and soc < self.soc:
            feeds_back = min(period.power or 0, event.charge_power or 0) < 0
            if not feeds_back:
                self.flag("state-of-charge-fell")
        if self.soc is None:
            self.soc_start = soc
        self.soc, self.soc_ms = soc, place.at_ms
        if not self.periods or elsewhere:
            return
        newest = self.periods[-1]
        begins = newest.soc_start is None and newest.stop_ms is None
        if place.rank == STARTED or begins:
            newest.soc_start = soc
        elif not newest.soc_final:
            newest.soc_end, newest.soc_end_ms = soc, place.at_ms
            newest.soc_final = newest.stop_ms is not None

    def as_left(self) -> Left:
        """What later stays have to know of it; it has ended."""
        assert self.end_ms is not None
        if not self.periods:
            missing = (self.start_ms, self.end_ms)
            return Left(self.start, self.end_ms, not self.end_missing, missing)
        last, charge = self.periods[-1], None
        for period in self.periods:
            if period.is_unreported and period.stop_ms is not None:
                charge = (period.start_ms, period.stop_ms)
        return Left(
            self.start, self.end_ms, not self.end_missing, charge, *last.told, last.power_max
        )


# What is told after the end -----------------------------------------------------------------------


def tell_late(stay: Stay, report: Report) -> None:
    """Takes in what an event told of the stay after its end."""
    end_ms, energy, time_s = stay.end_ms, report.energy, report.time_s
    assert end_ms is not None
    if report.type is EventType.VEHICLE_DISCONNECTED:
        stay.end_missing = False
        return
    if not stay.periods:
        if energy is None and time_s is None:
            return
        start_ms = (
            stay.start_ms if time_s is None else max(stay.start_ms, end_ms - milliseconds(time_s))
        )
        stay.periods.append(Period(start_ms, end_ms, start_missing=True, soc_start=stay.soc_start))
    missing = [period for period in stay.periods if period.is_unreported]
    period = missing[-1] if missing else stay.periods[-1]
    if report.type is EventType.VEHICLE_CHARGE_UPDATED:
        if period.energy is None and energy is not None:
            period.read_meter(energy)
        return
    if period.energy is None and is_too_long(period, report.at_ms, time_s):
        stay.flag("charged-time-too-long")
    period.stop_missing, period.cut, period.reported_ms = False, False, report.at_ms
    period.tell(energy, time_s)


def with_reports(stay: Stay) -> Stay:
    """The stay with what was reported of it when another one had begun."""
    if not stay.reports:
        return stay
    whole = msgspec.convert(msgspec.to_builtins(stay, builtin_types=(Decimal,)), Stay)
    for report in stay.reports:
        leaves = report.type is EventType.VEHICLE_DISCONNECTED
        if not leaves and report.at_ms - (whole.end_ms or 0) > TOLERANCE_MS:
            whole.flag("vehicle-shared" if report.there else "event-after-disconnect")
        tell_late(whole, report)
    return whole


def milliseconds(seconds: Decimal) -> int:
    """So many seconds in whole milliseconds."""
    return int(seconds * 1000)


def has_lasted(charge: tuple[int, int] | None, time_s: Decimal) -> bool:
    """Whether the charge, its start and its stop, is about as long."""
    return charge is not None and abs(charge[1] - charge[0] - time_s * 1000) <= TOLERANCE_MS


def is_too_long(period: Period, at_ms: int, time_s: Decimal | None) -> bool:
    """Whether a report of that instant tells a longer time than has passed."""
    return time_s is not None and time_s * 1000 > at_ms - period.start_ms + TOLERANCE_MS
