"""Areas: where chargers stand, by boxes of a tenth of a degree."""

from decimal import ROUND_FLOOR, Decimal

from tether.domain.models import Charger

SIDE = Decimal("0.1")  # degrees


def area_of(charger: Charger) -> str | None:
    """The box in which the charger stands, `west,south,east,north` in degrees as `bbox` takes it.

    None without a position. What stands on an edge is in the box east or north of it.
    """
    if charger.longitude is None or charger.latitude is None:
        return None
    west = charger.longitude.quantize(SIDE, ROUND_FLOOR) + 0  # not -0.0
    south = charger.latitude.quantize(SIDE, ROUND_FLOOR) + 0
    return f"{west},{south},{west + SIDE},{south + SIDE}"
