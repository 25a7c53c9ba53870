"""A charge period within a stay: from the start of charging to its stop."""

from decimal import Context, Decimal

import msgspec

from tether.model import Event

EXACT = Context(prec=60)
"""Sums and products of what events carry are exact in this."""


class Period(msgspec.Struct, omit_defaults=True, gc=False):
    """One charge period. `stop_ms` is None while it goes on."""

    start_ms: int
    stop_ms: int | None = None
    # Told by the event that ended it, or after that.
    energy: Decimal | None = None
    time_s: Decimal | None = None
    # Told by the newest update that carried it.
    metered: Decimal | None = None
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
    soc_final: bool = False
    # Ended by a second start, which may turn out to have begun nothing new.
    cut: bool = False

    def read_power(self, power: Decimal, at_ms: int) -> None:
        """Takes in a reading of the power."""
        if self.power is None or self.power_max is None or self.power_min is None:
            self.power_first, self.power_first_ms = power, at_ms
            self.power_max = self.power_min = power
        else:
            both = EXACT.add(self.power, power)
            area = EXACT.multiply(both, Decimal(at_ms - self.power_ms))
            self.power_area = EXACT.add(self.power_area, area)
            self.power_max = max(self.power_max, power)
            self.power_min = min(self.power_min, power)
        self.power, self.power_ms = power, at_ms

    def tell(self, event: Event) -> None:
        """Takes what the event tells of the whole period, unless it was told before."""
        if self.energy is None:
            self.energy = event.charged_energy
        if self.time_s is None:
            self.time_s = event.charged_time

    def is_told(self, event: Event) -> bool:
        """Whether the event reports just what is known of the period."""
        told = (event.charged_energy, event.charged_time)
        return event.charged_energy is not None and told == (self.energy, self.time_s)

    def join(self, other: "Period") -> None:
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
            self.metered = other.metered
        if self.soc_start is None:
            self.soc_start, self.soc_end = other.soc_start, other.soc_end
        elif other.soc_end is not None:
            self.soc_end = other.soc_end
        elif other.soc_start is not None:
            self.soc_end = other.soc_start
        self.soc_final = other.soc_final
        self.stop_ms, self.cut = other.stop_ms, other.cut
