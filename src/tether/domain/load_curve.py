"""Load curves: the energy of charges over time, by the readings of their power.

See docs/summaries.md. Instants are in ms since 1970, powers in kW, energies in kWh.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction

from tether.domain.calendar import Bucket
from tether.domain.models import EXACT
from tether.domain.session_record import LONG_GAP_MS
from tether.domain.session_views import average_power, plain, seconds
from tether.domain.summary import ENERGY_PLACES, Charge, Group, MeasuredSession, group_member
from tether.domain.timestamps import format_instant
from tether.domain.views import EnergyStep


class Profile:
    """Takes the readings of the power of a charge, in their order, and adds up the area below them.

    The first reading holds back to the start, the last one to the end. There is a straight line
    between two readings, but after a long gap the earlier one holds. `bounds` are the instants, in
    order, for which the curve tells the energy.
    """

    def __init__(self, charge: Charge, bounds: Sequence[int]) -> None:
        self._charge = charge
        self._bounds = bounds
        self._first = self._next = bisect_right(bounds, charge.start_ms)
        self._end = bisect_left(bounds, charge.end_ms)
        self._areas: list[Fraction] = []
        self._area = Decimal(0)  # twice the area below the line, in kW·ms
        self._at_ms = charge.start_ms
        self._power: Decimal | None = None
        self._least = self._most = Decimal(0)

    def read(self, at_ms: int, power: Decimal) -> None:
        """Takes in a reading."""
        before = power if self._power is None else self._power
        held = at_ms - self._at_ms > LONG_GAP_MS
        self._draw(at_ms, before, before if held else power)
        self._power = power
        self._least, self._most = min(self._least, power), max(self._most, power)

    def curve(self) -> Callable[[int], Decimal] | None:
        """The energy up to each of the bounds; None if the readings cannot tell it."""
        energy, power = self._charge.energy, self._power
        if energy is None or power is None:
            return None
        self._draw(self._charge.end_ms, power, power)
        gave_and_took = self._least < 0 < self._most
        if gave_and_took or not self._area or (self._area < 0) != (energy < 0):
            return None
        units = Fraction(energy.scaleb(ENERGY_PLACES, EXACT)) / Fraction(self._area)
        # Both have the same sign, so int() rounds towards zero.
        done: Sequence[int] = [int(units * area) for area in self._areas]
        with suppress(OverflowError):  # of energies that no charger has
            done = array("q", done)
        bounds, first = self._bounds, self._first

        def until(at_ms: int) -> Decimal:
            return Decimal(done[bisect_left(bounds, at_ms) - first]).scaleb(-ENERGY_PLACES)

        return until

    def _draw(self, at_ms: int, power: Decimal, then: Decimal) -> None:
        """Continues the line: from one power to the other, from the end of the last line."""
        length_ms = at_ms - self._at_ms
        while self._next < self._end and self._bounds[self._next] <= at_ms:
            part_ms = self._bounds[self._next] - self._at_ms
            bent = Fraction(EXACT.subtract(then, power)) * part_ms * part_ms / (length_ms or 1)
            self._areas.append(Fraction(self._area) + 2 * Fraction(power) * part_ms + bent)
            self._next += 1
        self._area = EXACT.fma(EXACT.add(power, then), Decimal(length_ms), self._area)
        self._at_ms = at_ms


class Load:
    """The energy of a group's charges in a step."""

    def __init__(self) -> None:
        self.energy = self.estimated = self.spread = Decimal(0)

    def add(self, session: MeasuredSession, bucket: Bucket) -> None:
        """Adds the part of the session that lies in the bucket."""
        for charge in session.charges:
            if charge.energy is None or not charge.touches(bucket):
                continue
            energy = charge.energy_in(bucket)
            self.energy = EXACT.add(self.energy, energy)
            if charge.estimated:
                self.estimated = EXACT.add(self.estimated, energy)
            if charge.curve is None:
                self.spread = EXACT.add(self.spread, energy)


def step_of(load: Load, bucket: Bucket, group: Group | None, key: str) -> EnergyStep:
    """The view of a step of the load curve."""
    return EnergyStep(
        from_=format_instant(bucket.from_ms),
        to=format_instant(bucket.to_ms),
        **group_member(group, key),
        charged_energy=plain(load.energy),
        estimated_energy=plain(load.estimated),
        spread_energy=plain(load.spread),
        average_power=average_power(load.energy, seconds(bucket.to_ms - bucket.from_ms)),
    )
