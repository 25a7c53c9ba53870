"""What the events of one vehicle mean: its stays at chargers and the charge periods within them.

A stay is what partners see as a charging session. It depends only on the set of the vehicle's
events: they are taken in the order of their timestamps, never of their arrival, and nothing else is
looked at, neither the clock nor the charger or the vehicle. Streams are dirty: no event is refused
for what it says here and none is corrected; what does not fit leaves a flag (docs/sessions.md lists
them). Instants are in ms since 1970, powers in kW, energies in kWh, states of charge in %.
"""

from collections.abc import Iterable
from decimal import Decimal
from hashlib import sha1
from typing import NamedTuple
from uuid import UUID

import msgspec

from tether.model import Event, EventType
from tether.periods import EXACT, Period

LATE_MS = 10 * 60 * 1000
"""What still comes so long after the end of a stay or a charge belongs to it: meters are late."""

TOLERANCE_MS = 2 * 60 * 1000
"""So much longer than its timestamps are apart may a charge say that it took."""

MOST_LEFT = 8
"""Of so many chargers that a vehicle left is known when that was."""

MOST_PERIODS = 1000
"""A stay with more charge periods has one that takes in all the others that follow."""

_IDS = UUID("6b0d2a7e-3c55-4f8e-9d8e-0f6f6c9a7d41").bytes
_MOST_INSTANT = 2**48 - 1

# Of one vehicle and instant, in the order in which they happen.
_RANK = {
    EventType.VEHICLE_CONNECTED: 0,
    EventType.VEHICLE_CHARGE_STARTED: 1,
    EventType.VEHICLE_CHARGE_UPDATED: 2,
    EventType.VEHICLE_CHARGE_STOPPED: 3,
    EventType.VEHICLE_DISCONNECTED: 4,
}
_CONNECTED, _STARTED, _UPDATED, _STOPPED, _DISCONNECTED = range(5)


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


class Before(msgspec.Struct, omit_defaults=True, gc=False):
    """What a stay has to know of the time before it: where and when the last one ended, and the
    newest state of charge.
    """

    charger_id: str | None = None
    end_ms: int = 0
    soc: Decimal | None = None
    soc_ms: int = 0
    earlier: dict[str, int] = {}
    """When other chargers were left before that, where events may still be late."""

    def left_ms(self, charger_id: str) -> int | None:
        """When the vehicle left this charger, if that is known."""
        return self.end_ms if charger_id == self.charger_id else self.earlier.get(charger_id)

    def then(self, old: "Stay", begins_ms: int) -> "Before":
        """What the stay after this old one has to know, which began with this knowledge."""
        assert old.end_ms is not None
        left = dict(self.earlier)
        if self.charger_id is not None:
            left[self.charger_id] = self.end_ms
        left.pop(old.charger_id, None)
        late = [(one, ms) for one, ms in left.items() if begins_ms - ms <= LATE_MS]
        newest = (old.soc, old.soc_ms) if old.soc is not None else (self.soc, self.soc_ms)
        return Before(old.charger_id, old.end_ms, *newest, dict(late[1 - MOST_LEFT :]))


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
    periods: list[Period] = []
    flags: list[str] = []
    soc_start: Decimal | None = None
    soc: Decimal | None = None
    soc_ms: int = 0

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


class Timeline:
    """Takes in the facts of one vehicle in the order of their places.

    `stay` is the last stay so far and `before` what it knows of the time before it; a timeline may
    begin with any known stay. `begun` has all stays that began since, the last one included.
    """

    def __init__(self, stay: Stay | None = None, before: Before | None = None) -> None:
        self.stay = stay
        self.before = before or Before()
        self.begun: list[tuple[Stay, Before]] = []

    def take(self, facts: Iterable[Fact]) -> "Timeline":
        """Takes in these facts; each must stand behind all before it."""
        for fact in facts:
            self._take(fact)
        return self

    def _take(self, fact: Fact) -> None:
        place, event = fact
        stay, stray = self.stay, None
        if stay is None or self._is_new(stay, place):
            stay = self._begin(place, event)
            if place.rank != _CONNECTED:
                stay.flag("connect-missing")
        else:
            stray = self._stray(stay, place)
        stay.here = stay.newest_here if stray == "event-elsewhere" else None
        stay.last = place
        period = None if stray else stay.charging
        if stray is None:
            _WHAT_IT_DOES[place.rank](stay, place, event)
        else:
            stay.flag(stray)
            if stray == "event-after-disconnect" and place.rank == _STOPPED and stay.periods:
                stay.periods[-1].tell(event)  # of the period that the end cut off
        _read_soc(stay, place, event, period)

    def _begin(self, place: Place, event: Event) -> Stay:
        """A stay that this event begins; it ends the one that lasts."""
        if (old := self.stay) is not None:
            if old.end_ms is None:
                _end(old, place)
                old.flag("disconnect-missing")
            self.before = self.before.then(old, place.at_ms)
        self.stay = Stay(event.vehicle_id, event.charger_id, place.at_ms, place.rank, place)
        self.begun.append((self.stay, self.before))
        return self.stay

    def _is_new(self, stay: Stay, place: Place) -> bool:
        """Whether the event tells of a stay of which nothing was known."""
        if place.rank == _CONNECTED:  # the server may have stamped two with one instant
            return place[:3] != (stay.start_ms, stay.start_rank, stay.charger_id)
        here = stay.charger_id == place.charger_id
        # That it left there does not say that it left here.
        if stay.end_ms is None and (here or place.rank == _DISCONNECTED):
            return False
        left_ms = stay.end_ms if here else self.before.left_ms(place.charger_id)
        late = left_ms is not None and place.at_ms - left_ms <= LATE_MS
        return place.rank == _STARTED or not late

    def _stray(self, stay: Stay, place: Place) -> str | None:
        """The flag of an event that does not change where the vehicle is."""
        if stay.charger_id != place.charger_id:
            return "event-elsewhere"
        if stay.end_ms is not None:
            return "event-after-disconnect"
        # Unplugged and plugged in again at once: CONNECTED has ended the stay before already.
        again = self.before.left_ms(stay.charger_id) == place.at_ms
        if place.rank == _DISCONNECTED and stay.start_ms == place.at_ms and again:
            return "same-instant"
        return None


# What each type of event does to the stay ---------------------------------------------------------


def _connect(stay: Stay, place: Place, event: Event) -> None:
    pass  # it has begun


def _start(stay: Stay, place: Place, event: Event) -> None:
    if (under_way := stay.charging) is not None:
        under_way.stop_ms, under_way.cut = place.at_ms, True
        stay.flag("start-repeated")
    period = _new_period(stay, place.at_ms)
    if event.charge_power is not None:
        period.read_power(event.charge_power, place.at_ms)


def _update(stay: Stay, place: Place, event: Event) -> None:
    period = stay.charging
    if period is None:
        if _is_late(stay, place, event) or event.charge_power == 0:
            return
        period = _new_period(stay, _start_of(stay, place.at_ms, event))
        stay.flag("start-missing")
    period = _joined(stay, place, event, period)
    if event.charge_power is not None:
        period.read_power(event.charge_power, place.at_ms)
    if event.charged_energy is not None:
        period.metered = event.charged_energy


def _is_late(stay: Stay, place: Place, event: Event) -> bool:
    """Whether an update still belongs to the charge that has stopped: it would count again what
    that has reported, and go on for as long as the vehicle stays.
    """
    if not stay.periods:
        return False
    last = stay.periods[-1]
    if last.stop_ms is None or place.at_ms - last.stop_ms > LATE_MS:
        return False
    if event.charged_energy is not None:
        last.metered = event.charged_energy
    if event.charge_power != 0:
        stay.flag("update-after-stop")
    return True


def _stop(stay: Stay, place: Place, event: Event) -> None:
    period = stay.charging
    if period is None:
        start_ms = _start_of(stay, place.at_ms, event)
        if stay.periods and (
            start_ms == stay.periods[-1].stop_ms or stay.periods[-1].is_told(event)
        ):
            # Not known to be another period: its energy must not count twice.
            stay.flag("stop-repeated")
            stay.periods[-1].tell(event)
            return
        period = _new_period(stay, start_ms)
        stay.flag("start-missing")
    elif period.start_ms == place.at_ms and stay.periods[-2:-1] and stay.periods[-2].cut:
        # One charge stopped and another started at once: STARTED has ended the first already.
        stay.flag("same-instant")
        stay.periods[-2].cut = False
        stay.periods[-2].tell(event)
        return
    period = _joined(stay, place, event, period)
    if (event.charged_time or 0) * 1000 > place.at_ms - period.start_ms + TOLERANCE_MS:
        stay.flag("charged-time-too-long")
    period.stop_ms = place.at_ms
    # Told already only where one period takes in many.
    if period.energy is not None and event.charged_energy is not None:
        period.energy = EXACT.add(period.energy, event.charged_energy)
    if period.time_s is not None and event.charged_time is not None:
        period.time_s = EXACT.add(period.time_s, event.charged_time)
    period.tell(event)


def _joined(stay: Stay, place: Place, event: Event, period: Period) -> Period:
    """The period under way, together with those before it that turn out to be the same charge:
    the time that the event reports goes back to their start, or their meter went on.
    """
    while len(stay.periods) > 1 and stay.periods[-2].cut and "periods-merged" not in stay.flags:
        first = stay.periods[-2]
        if event.charged_time is not None:
            begun = 2 * (place.at_ms - event.charged_time * 1000)
            same = begun < first.start_ms + period.start_ms  # nearer to the first start
        else:
            same = (
                period.metered is None
                and first.metered is not None
                and event.charged_energy is not None
                and event.charged_energy >= first.metered
            )
        if not same:
            break
        first.join(stay.periods.pop())
        period = first
    return period


def _disconnect(stay: Stay, place: Place, event: Event) -> None:
    _end(stay, place)


_WHAT_IT_DOES = (_connect, _start, _update, _stop, _disconnect)


def _end(stay: Stay, place: Place) -> None:
    if stay.charging is not None:
        stay.charging.stop_ms = place.at_ms
        stay.flag("stop-missing")
    stay.end_ms = place.at_ms


def _new_period(stay: Stay, start_ms: int) -> Period:
    if len(stay.periods) == MOST_PERIODS:
        stay.flag("periods-merged")
        stay.periods[-1].stop_ms = None
        return stay.periods[-1]
    period = Period(start_ms, soc_start=stay.soc)
    stay.periods.append(period)
    return period


def _start_of(stay: Stay, at_ms: int, event: Event) -> int:
    """When a period began of which no STARTED told: by its own account, within what is free."""
    free_ms = stay.periods[-1].stop_ms if stay.periods else stay.start_ms
    assert free_ms is not None
    if event.charged_time is None:
        return free_ms if event.type is EventType.VEHICLE_CHARGE_STOPPED else at_ms
    return max(free_ms, at_ms - int(event.charged_time * 1000))


def _read_soc(stay: Stay, place: Place, event: Event, period: Period | None) -> None:
    """Takes in the state of charge, which falls only while the vehicle feeds back."""
    soc = event.state_of_charge
    if soc is None:
        return
    if period is not None and stay.soc is not None and soc < stay.soc:
        feeds_back = min(period.power or 0, event.charge_power or 0) < 0
        if not feeds_back:
            stay.flag("state-of-charge-fell")
    if stay.soc is None:
        stay.soc_start = soc
    stay.soc, stay.soc_ms = soc, place.at_ms
    if not stay.periods:
        return
    newest = stay.periods[-1]
    begins = newest.soc_start is None and newest.stop_ms is None
    if place.rank == _STARTED or begins:
        newest.soc_start = soc
    elif not newest.soc_final:
        newest.soc_end = soc
        newest.soc_final = newest.stop_ms is not None
