"""What is known of a vehicle's earlier sessions: what events may still tell of them, however late.

Instants are in ms since 1970, powers in kW, energies in kWh, states of charge in %.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

import msgspec

from tether.domain.charge_period import TOLERANCE_MS, Report, Told, allows
from tether.domain.models import Event, EventType

RECENT = 8
"""Of so many last sessions a report may still come after another session has begun."""

MOST_UPDATES = 50
"""Of an ended session so many updates are noted at most."""

MOST_TOLD = 8
"""So many charges of a session are known to later ones, the last of them."""

Start = tuple[int, int, str]
"""What tells a session from the vehicle's others, and orders them: its instant, the rank of the
event that began it, its charger.
"""


class EventPosition(NamedTuple):
    """Where an event stands among those of its vehicle. `seq` only parts what the server stamped
    with one instant: what partners stamp differs before that.
    """

    at_ms: int
    rank: int
    charger_id: str
    seq: int


Charge = tuple[int, int]
"""The start and the stop of a charge."""


_SHORT = {
    "start_ms": "s", "start_rank": "r", "charger_id": "c", "lasted_ms": "d", "told": "t",
    "power": "p", "charges": "m", "unseen": "u", "earlier": "e", "passed": "g", "updates": "n",
    "shared": "h",
}  # fmt: skip


class EndedSession(msgspec.Struct, rename=_SHORT, omit_defaults=True, frozen=True, gc=False):
    """What later sessions have to know of one that has ended: what may still be reported of it.

    It is stored with each of the next sessions, and so has short names there.

    `unseen`: no event told that the vehicle left. `charges` are those of which no STOPPED told,
    `told` is what was reported of the others, the newest ones last, `earlier` of earlier ones at
    this charger of which nothing is missing. `power` is the highest of its last charge.
    """

    start_ms: int
    charger_id: str
    lasted_ms: int
    start_rank: int = 0
    told: tuple[Told, ...] = ()
    power: Decimal | None = None
    charges: tuple[Charge, ...] = ()
    unseen: bool = False
    earlier: tuple[Told, ...] = ()
    passed: int = 0
    """How many sessions between it and the next one that is known are not."""
    updates: int = 0
    shared: bool = False
    """Events named the vehicle there after it seemed to have left."""

    @property
    def end_ms(self) -> int:
        """When it ended."""
        return self.start_ms + self.lasted_ms

    @property
    def start(self) -> Start:
        """What tells it from the vehicle's others."""
        return self.start_ms, self.start_rank, self.charger_id

    @property
    def energy(self) -> Decimal | None:
        """The newest energy that was told of it."""
        return self.told[-1].energy if self.told else None

    def after(self, earlier: tuple["EndedSession", ...]) -> tuple["EndedSession", ...]:
        """What is known of the last sessions, this one the last of them. Of each charger the last
        one is known, and those of which something is missing that may still be told.
        """
        known, told, age, passed = [self], list[Told](), 0, 0
        for one in reversed(earlier):
            age += 1 + one.passed
            if age >= RECENT:
                break
            if one.charger_id == self.charger_id and not one.unseen and not one.charges:
                told = [*one.earlier, *one.told, *told][-MOST_TOLD:]
                passed += 1 + one.passed
                continue
            known.append(
                msgspec.structs.replace(one, passed=one.passed + passed) if passed else one
            )
            passed = 0
        if told or self.earlier:
            known[0] = msgspec.structs.replace(self, earlier=tuple(told))
        known.reverse()
        return tuple(known)

    def knows(self, energy: Decimal | None, time_s: Decimal | None) -> bool:
        """Whether this was reported already. An energy or a time alone may be that of another
        charge, too: then only what was reported last is looked at.
        """
        told = self.told[-1:]
        if energy is not None and time_s is not None:
            told = self.earlier + self.told
        return any(one.is_again(energy, time_s) for one in told)

    def learns(self, report: Report) -> bool:
        """Whether it tells something that is not known."""
        if report.type is EventType.VEHICLE_DISCONNECTED:
            return self.unseen
        if self.knows(report.energy, report.time_s):
            return False
        if report.there and not self.shared:
            return True
        if not self.charges or report.type is EventType.VEHICLE_CHARGE_STOPPED:
            return bool(self.charges)
        new = report.energy is not None and report.energy != self.energy
        return new and self.updates < MOST_UPDATES

    def knowing(self, report: Report) -> "EndedSession":
        """The same with what the report tells."""
        if report.type is EventType.VEHICLE_DISCONNECTED:
            return msgspec.structs.replace(self, unseen=False)
        charges = self.charges
        if report.type is EventType.VEHICLE_CHARGE_STOPPED and charges:
            first, last = meant(charges, report.time_s)
            charges = charges[:first] + charges[last + 1 :]
        told = self.told
        if (report.energy, report.time_s) != (None, None):
            told = (*told, Told(report.energy, report.time_s))[-MOST_TOLD:]
        return msgspec.structs.replace(
            self,
            charges=charges,
            told=told,
            shared=self.shared or report.there,
            updates=self.updates + 1,
        )

    def had_time_for(self, time_s: Decimal) -> bool:
        """Whether a charge of it of which no STOPPED told can have taken so long."""
        if not self.charges:
            return False
        first, last = meant(self.charges, time_s)
        longest_ms = self.charges[last][1] - self.charges[first][0]
        return time_s * 1000 <= longest_ms + TOLERANCE_MS

    def has_lasted(self, time_s: Decimal) -> bool:
        """Whether a charge of it of which no STOPPED told is about as long."""
        if not self.charges:
            return False
        first, last = meant(self.charges, time_s)
        return has_lasted((self.charges[first][0], self.charges[last][1]), time_s)

    def gives_more(self, energy: Decimal | None, since_ms: int) -> bool:
        """Whether no power gives so much since then, but a charge of it may have."""
        if energy is None or self.power is None or not self.charges:
            return False
        return not allows(self.power, energy, since_ms)

    def report(self, place: EventPosition, event: Event) -> Report:
        """What the event tells of the session."""
        at_ms = place.at_ms
        energy, time_s, there = event.charged_energy, event.charged_time, False
        late = at_ms - self.end_ms > TOLERANCE_MS
        if late and self.unseen and not self.knows(energy, time_s):
            there = bool(event.charge_power)
            if event.type is EventType.VEHICLE_CHARGE_STOPPED and self.charges:
                there = time_s is None or has_lasted((self.charges[-1][0], at_ms), time_s)
        return Report(at_ms, place.seq, event.type, energy, time_s, there)

    def is_meant(self, at_ms: int, event: Event) -> bool:
        """Whether a report of that instant is of this session, by its own account."""
        energy, time_s = event.charged_energy, event.charged_time
        if energy is None and time_s is None:
            return event.type is EventType.VEHICLE_CHARGE_STOPPED
        if self.knows(energy, time_s):
            return True
        if time_s is not None:
            began_ms = at_ms - time_s * 1000
            return began_ms < self.end_ms - TOLERANCE_MS or self.had_time_for(time_s)
        if self.charges or energy == self.energy or energy is None:
            return True
        return self.power is not None and not allows(self.power, energy, at_ms - self.end_ms)


class _FormerlyEnded(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How an ended session was stored before migration 9, with how many have begun since."""

    start: Start
    end_ms: int
    seen: bool
    charges: tuple[Charge, ...]
    told: tuple[Told, ...]
    power: Decimal | None
    shared: bool
    updates: int
    earlier: tuple[Told, ...]
    age: int


Formerly = tuple[_FormerlyEnded, ...]


def as_now(stored: Formerly) -> tuple[EndedSession, ...]:
    """The same in the form of now."""
    newer_ages = [one.age for one in stored[1:]] + [-1]
    return tuple(
        EndedSession(
            one.start[0], one.start[2], one.end_ms - one.start[0], one.start[1],
            one.told, one.power, one.charges, not one.seen,
            one.earlier, one.age - newer - 1, one.updates, one.shared,
        )
        for one, newer in zip(stored, newer_ages, strict=True)
    )  # fmt: skip


def meant(charges: Sequence[Charge], time_s: Decimal | None) -> tuple[int, int]:
    """Which of these charges, of which no STOPPED told, a report is of, the first and the last: the
    newest one. If it tells its time, that of the nearest length, or two that only a repeated start
    parts.
    """
    newest = len(charges) - 1
    if time_s is None:
        return newest, newest
    several = [(place, place) for place in range(newest, -1, -1)]
    several += [
        (place - 1, place) for place in range(newest, 0, -1)
        if charges[place - 1][1] == charges[place][0]
    ]  # fmt: skip
    return min(several, key=lambda s: abs(charges[s[1]][1] - charges[s[0]][0] - time_s * 1000))


def left_by(
    lefts: Sequence[EndedSession], energy: Decimal | None, time_s: Decimal | None
) -> EndedSession | None:
    """Of these sessions at one charger, the newest one last, the one that a report is of."""
    for left in reversed(lefts):
        if left.knows(energy, time_s):
            return left
        if energy is None or time_s is None:
            break
    for left in reversed(lefts):
        if left.charges and (time_s is None or left.had_time_for(time_s)):
            return left
    return lefts[-1] if lefts else None


def has_lasted(charge: tuple[int, int] | None, time_s: Decimal) -> bool:
    """Whether the charge, its start and its stop, is about as long."""
    return charge is not None and abs(charge[1] - charge[0] - time_s * 1000) <= TOLERANCE_MS


class SessionContext(msgspec.Struct, omit_defaults=True, gc=False):
    """What a session has to know of the time before it: of the last one, of those before of which
    something is missing, and the newest state of charge.
    """

    left: tuple[EndedSession, ...] = msgspec.field(default=(), name="known")
    soc: Decimal | None = None
    soc_ms: int = 0
    taken: tuple[int, ...] = ()
    """Which events of the instant at which the session begins came before it, by their numbers."""
    formerly: Formerly | None = msgspec.field(default=None, name="left")

    def __post_init__(self) -> None:
        if self.formerly is not None:
            self.left, self.formerly = as_now(self.formerly), None
