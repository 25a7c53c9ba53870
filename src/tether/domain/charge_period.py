"""A charge period within a session: from the start of charging to its stop."""

from decimal import Context, Decimal

import msgspec

from tether.domain.models import Event, EventType

EXACT = Context(prec=60)
"""Sums and products of what events carry are exact in this."""

TOLERANCE_MS = 2 * 60 * 1000
"""Clocks and the order of messages may be wrong by so much."""

LONG_GAP_MS = 15 * 60 * 1000
"""Over a longer gap between two readings of the power the first one is held: chargers that report
on change are silent while nothing changes, and no power rises for hours.
"""

# So much more than its power allows may a charge report: powers and clocks are rounded.
_MARGIN = Decimal("1.1")
_MARGIN_MS = 60 * 1000


class Told(msgspec.Struct, array_like=True, omit_defaults=True, frozen=True, gc=False):
    """What was reported of a charge. Energy in kWh, time in s. `metered`: what the meter said that
    began anew, which does not know of the energy before.
    """

    energy: Decimal | None = None
    time_s: Decimal | None = None
    metered: Decimal | None = None

    def is_again(self, energy: Decimal | None, time_s: Decimal | None) -> bool:
        """Whether a report tells the same, or a part of it."""
        if energy is None and time_s is None:
            return False
        same = energy is None or energy in (self.energy, self.metered)
        return same and (time_s is None or time_s == self.time_s)


NOTHING = Told()


class Report(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What an event told of a charge after the session had ended. Energy in kWh, time in s."""

    at_ms: int
    seq: int
    type: EventType
    energy: Decimal | None = None
    time_s: Decimal | None = None
    there: bool = False
    """It shows that the vehicle was still there, though it seemed to have left."""


class PeriodRecord(msgspec.Struct, omit_defaults=True, gc=False):
    """One charge period. `stop_ms` is None while it goes on."""

    start_ms: int
    stop_ms: int | None = None
    # Told by the event that ended it, or after that.
    energy: Decimal | None = None
    time_s: Decimal | None = None
    # Told by the newest update that carried it, and what was counted before the meter began anew.
    metered: Decimal | None = None
    metered_before: Decimal | None = None
    # The readings of the power: first, last, and twice the area between them, in kW·ms.
    power_first: Decimal | None = None
    power_first_ms: int = 0
    power: Decimal | None = None
    power_ms: int = 0
    power_area: Decimal = Decimal(0)
    power_max: Decimal | None = None
    power_min: Decimal | None = None
    # The state of charge when it began and when it ended, or the newest of it.
    soc_start: Decimal | None = None
    soc_end: Decimal | None = None
    soc_end_ms: int = 0
    soc_final: bool = False
    # No STARTED told of it; only a rising state of charge did.
    start_missing: bool = False
    by_soc: bool = False
    # Ended by a second start, which may have begun nothing new, or by the end of the session.
    cut: bool = False
    stop_missing: bool = False
    reported_ms: int = 0
    """When it was reported, if that was after its end."""

    @property
    def counted(self) -> Decimal | None:
        """The energy that its meter has counted."""
        if self.metered is None or self.metered_before is None:
            return self.metered
        return EXACT.add(self.metered_before, self.metered)

    @property
    def told(self) -> Told:
        """What was reported of it."""
        if self.energy is None and self.metered_before is not None:
            return Told(self.counted, self.time_s, self.metered)
        return Told(self.counted if self.energy is None else self.energy, self.time_s)

    @property
    def is_unreported(self) -> bool:
        """Whether no STOPPED told of it: it ended otherwise, and its energy is not known."""
        return self.energy is None and (self.stop_missing or self.cut)

    def lasted_ms(self, until_ms: int) -> int:
        """How long it lasted, or has lasted until then."""
        return (until_ms if self.stop_ms is None else self.stop_ms) - self.start_ms

    def allows(self, energy: Decimal | None, during_ms: int) -> bool:
        """Whether the powers that were told allow so much energy in that time."""
        return energy is None or self.power_max is None or allows(self.power_max, energy, during_ms)

    def by_power(self, lasted_ms: int) -> Decimal | None:
        """The energy in kWh by the readings of the power, of so long; the first one is held back
        to the start, the last one to the end.
        """
        if self.power is None or self.power_first is None:
            return None
        before = EXACT.multiply(self.power_first, Decimal(self.power_first_ms - self.start_ms))
        after_ms = self.start_ms + lasted_ms - self.power_ms
        held = EXACT.fma(self.power, Decimal(after_ms), before)
        return EXACT.divide(EXACT.fma(held, Decimal(2), self.power_area), Decimal(7_200_000))

    def read_power(self, power: Decimal, at_ms: int) -> None:
        """Takes in a reading of the power."""
        if self.power is None or self.power_max is None or self.power_min is None:
            self.power_first, self.power_first_ms = power, at_ms
            self.power_max = self.power_min = power
        else:
            gap_ms = at_ms - self.power_ms
            both = EXACT.add(self.power, power if gap_ms <= LONG_GAP_MS else self.power)
            self.power_area = EXACT.fma(both, Decimal(gap_ms), self.power_area)
            self.power_max = max(self.power_max, power)
            self.power_min = min(self.power_min, power)
        self.power, self.power_ms = power, at_ms

    def read_meter(self, energy: Decimal) -> bool:
        """Takes in a reading of the meter; returns whether the meter has begun anew.

        It has if it fell below half of what it said. A lesser fall is a correction.
        """
        anew = self.metered is not None and 0 <= 2 * energy < self.metered
        if anew:
            self.metered_before = self.counted
        self.metered = energy
        return anew

    def tell(self, energy: Decimal | None, time_s: Decimal | None) -> bool:
        """Takes what is told of the whole period, unless it was told before; returns whether the
        meter has begun anew.
        """
        if self.time_s is None:
            self.time_s = time_s
        counted = self.counted
        if energy is None or self.energy is not None:
            return False
        fell = counted is not None and 0 <= 2 * energy < counted
        if fell or (self.metered_before is not None and counted is not None and energy < counted):
            self.read_meter(energy)  # it does not know what was counted before
            return True
        self.energy = energy
        return False

    def goes_on(self, event: Event, at_ms: int) -> bool:
        """Whether a report is of this charge, longer and with more energy than was told of it: then
        it had not ended, and is as long as that.
        """
        energy, time_s = event.charged_energy, event.charged_time
        if energy is None or self.energy is None or self.stop_ms is None or energy <= self.energy:
            return False
        if time_s is None:
            same = bool(event.charge_power) and not self.allows(energy, at_ms - self.stop_ms)
        else:
            began_ms = at_ms - time_s * 1000
            same = self.time_s is not None and abs(began_ms - self.start_ms) <= TOLERANCE_MS
        if same:
            self.energy, self.time_s, self.stop_ms, self.soc_final = energy, time_s, at_ms, False
        return same

    def resume(self, power: Decimal, at_ms: int) -> None:
        """It is under way again, as an update with a power shows."""
        self.metered, self.metered_before = self.energy, None
        self.energy = self.time_s = self.stop_ms = None
        self.read_power(power, at_ms)

    def add(self, event: Event) -> None:
        """Takes what the event tells of one more charge: this period stands for many."""
        if event.charged_energy is not None:
            self.energy = EXACT.add(self.energy or Decimal(0), event.charged_energy)
        if event.charged_time is not None:
            self.time_s = EXACT.add(self.time_s or Decimal(0), event.charged_time)

    def join(self, other: "PeriodRecord") -> None:
        """Takes in the period that follows: both are one."""
        if other.power is not None and other.power_first is not None:
            self.read_power(other.power_first, other.power_first_ms)
            self.power_area = EXACT.add(self.power_area, other.power_area)
            self.power, self.power_ms = other.power, other.power_ms
            for reading in (other.power_max, other.power_min):
                assert reading is not None
                assert self.power_max is not None
                assert self.power_min is not None
                self.power_max = max(self.power_max, reading)
                self.power_min = min(self.power_min, reading)
        if other.metered is not None:
            self.metered, self.metered_before = other.metered, other.metered_before
        if self.soc_start is None:
            self.soc_start, self.soc_end = other.soc_start, other.soc_end
            self.soc_end_ms = other.soc_end_ms
        elif other.soc_end is not None:
            self.soc_end, self.soc_end_ms = other.soc_end, other.soc_end_ms
        elif other.soc_start is not None:
            self.soc_end, self.soc_end_ms = other.soc_start, other.start_ms
        self.soc_final = other.soc_final
        self.stop_ms, self.cut, self.stop_missing = other.stop_ms, other.cut, other.stop_missing


def allows(power: Decimal, energy: Decimal, during_ms: int) -> bool:
    """Whether this power in kW, held for that long, gives that energy in kWh."""
    most = EXACT.multiply(EXACT.multiply(power, _MARGIN), Decimal(during_ms + _MARGIN_MS))
    return EXACT.multiply(energy, Decimal(3_600_000)) <= most
