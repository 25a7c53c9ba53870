"""How the energy of a charge came, by the readings of its power: the rules of docs/summaries.md."""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from fractions import Fraction

from tether.domain.charge_period import EXACT, LONG_GAP_MS
from tether.domain.summary import ENERGY_PLACES, Charge


class ReadCurve:
    """How much of the energy had come at each of some instants, in the smallest parts."""

    def __init__(self, bounds: Sequence[int], first: int, done: Sequence[int]) -> None:
        self._bounds = bounds
        self._first = first
        self._done = done

    def until(self, at_ms: int) -> Decimal:
        """How much of it had come by this instant, which is one of those."""
        place = bisect_left(self._bounds, at_ms) - self._first
        return Decimal(self._done[place]).scaleb(-ENERGY_PLACES)


class Profile:
    """The readings of the power of a charge, given in their order, and the area below them.

    The first one is held back to the start, the last one to the end; between two of them there is a
    straight line, but the earlier is held where the next comes late. `bounds` are the instants, in
    order, at which it will be asked how much energy had come.
    """

    def __init__(self, charge: Charge, bounds: Sequence[int]) -> None:
        self._charge = charge
        self._bounds = bounds
        self._first = self._next = bisect_right(bounds, charge.start_ms)
        self._end = bisect_left(bounds, charge.end_ms)
        self._areas: list[Fraction] = []
        self._area = Decimal(0)  # twice that below the line, in kW·ms
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

    def curve(self) -> ReadCurve | None:
        """How the energy came; None if there are no readings that can tell."""
        energy, power = self._charge.energy, self._power
        if energy is None or power is None:
            return None
        self._draw(self._charge.end_ms, power, power)
        gave_and_took = self._least < 0 < self._most
        if gave_and_took or not self._area or (self._area < 0) != (energy < 0):
            return None
        units = Fraction(energy.scaleb(ENERGY_PLACES, EXACT)) / Fraction(self._area)
        # Both have the same sign: what is cut off is cut off towards zero.
        done = [int(units * area) for area in self._areas]
        with suppress(OverflowError):  # of energies that no charger has
            return ReadCurve(self._bounds, self._first, array("q", done))
        return ReadCurve(self._bounds, self._first, done)

    def _draw(self, at_ms: int, power: Decimal, then: Decimal) -> None:
        """The line from one power to the other, from where the last one ended."""
        length_ms = at_ms - self._at_ms
        while self._next < self._end and self._bounds[self._next] <= at_ms:
            part_ms = self._bounds[self._next] - self._at_ms
            bent = Fraction(EXACT.subtract(then, power)) * part_ms * part_ms / (length_ms or 1)
            self._areas.append(Fraction(self._area) + 2 * Fraction(power) * part_ms + bent)
            self._next += 1
        self._area = EXACT.fma(EXACT.add(power, then), Decimal(length_ms), self._area)
        self._at_ms = at_ms
