"""Bars and sparklines in a terminal. They can be read without colours."""

import shutil
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

from tether.cli.display.output import Cell

STYLE = "cyan"
MIN_BAR, MAX_BAR = 6, 40  # columns
MAX_SPARKLINE = 60  # columns
_SPARKLINE_TEXT = 36  # columns for the text beside a sparkline


_LEVELS = "▁▂▃▄▅▆▇█"  # of a sparkline, from the lowest to the highest
_PARTS = "▏▎▍▌▋▊▉"  # of the last column of a bar
_FULL, _LIGHT = "█", "░"  # a column of a bar; one for an estimated value


def sparkline(values: Sequence[Decimal | None], width: int = MAX_SPARKLINE) -> str:
    """The values as one line of at most `width` columns; a blank for an unknown value.

    The base line is 0, or the lowest value if it is negative. If there are more values than
    columns, each column shows the highest of its values, so that no peak is lost.
    """
    count = len(values)
    columns = min(count, max(1, width))
    peaks: list[Decimal | None] = []
    for column in range(columns):
        own = values[column * count // columns : (column + 1) * count // columns]
        peaks.append(max((value for value in own if value is not None), default=None))
    known = [peak for peak in peaks if peak is not None]
    low = min([*known, Decimal(0)])
    span = max([*known, Decimal(0)]) - low
    top = len(_LEVELS) - 1
    return "".join(
        " " if peak is None else _LEVELS[round(top * (peak - low) / span) if span else 0]
        for peak in peaks
    )


def sparkline_width() -> int:
    """The width of a sparkline with text beside it, in this terminal."""
    return max(8, min(MAX_SPARKLINE, shutil.get_terminal_size().columns - _SPARKLINE_TEXT))


def bar(value: Decimal, most: Decimal, width: int, light: Decimal = Decimal(0)) -> str:
    """A bar for `value`. The value `most` fills the width. The last part, `light`, is lighter.

    A value above 0 has at least a thin line.
    """
    if value <= 0 or most <= 0 or width < 1:
        return ""
    length = min(Fraction(value) / Fraction(most), Fraction(1)) * width
    dark = length * (1 - min(max(Fraction(light) / Fraction(value), Fraction(0)), Fraction(1)))
    if light > 0:
        solid = round(dark)
        return (_FULL * solid + _LIGHT * (round(length) - solid)) or _LIGHT
    whole, eighths = divmod(round(length * 8), 8)
    return _FULL * whole + (_PARTS[eighths - 1] if eighths else "") or _PARTS[0]


def bar_cells(
    values: Sequence[Decimal], taken: int, lights: Sequence[Decimal] | None = None
) -> list[Cell] | None:
    """A bar for each row of a table whose other columns are `taken` characters wide.

    None if there is no space, or if there are no values to compare.
    """
    width = min(MAX_BAR, shutil.get_terminal_size().columns - taken)
    most = max(values, default=Decimal(0))
    if len(values) < 2 or width < MIN_BAR or most <= 0:
        return None
    parts = lights or [Decimal(0)] * len(values)
    return [
        Cell(bar(value, most, width, light), STYLE)
        for value, light in zip(values, parts, strict=True)
    ]
