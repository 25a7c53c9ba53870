"""Bars and sparklines in a terminal.

What they tell, their shapes tell: colour only sets them off. A terminal without block characters
gets ASCII.
"""

import shutil
import sys
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from tether.cli.display.output import Cell

STYLE = "cyan"
LEAST_BAR = 6  # columns; a shorter bar tells nothing
MOST_BAR = 40
MOST_SPARKS = 60
_BESIDE_SPARKS = 36  # columns for the name of the line and what it reaches


class _Shapes(NamedTuple):
    """What is drawn with."""

    levels: str
    """Of a sparkline, from the lowest to the highest."""
    parts: str
    """Of the last column of a bar, from nearly none to nearly all."""
    full: str
    light: str
    """A column of what is estimated."""


_BLOCKS = _Shapes("▁▂▃▄▅▆▇█", "▏▎▍▌▋▊▉", "█", "░")
_LETTERS = _Shapes("_.-:=+*#", "", "#", ".")


def shapes() -> _Shapes:
    """What this terminal can draw with."""
    try:
        "".join(_BLOCKS).encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return _LETTERS
    return _BLOCKS


def sparkline(values: Sequence[Decimal | None], width: int = MOST_SPARKS) -> str:
    """The course of the values in one line of at most that width; a blank is one not known.

    It stands on 0, or on the lowest value if that is below. Of more values than columns each column
    shows the highest of its own, so that no peak is lost.
    """
    drawn, count = shapes(), len(values)
    columns = min(count, max(1, width))
    shown: list[Decimal | None] = []
    for place in range(columns):
        own = values[place * count // columns : (place + 1) * count // columns]
        shown.append(max((value for value in own if value is not None), default=None))
    known = [value for value in shown if value is not None]
    low = min([*known, Decimal(0)])
    span = max([*known, Decimal(0)]) - low
    top = len(drawn.levels) - 1
    return "".join(
        " " if value is None else drawn.levels[round(top * (value - low) / span) if span else 0]
        for value in shown
    )


def spark_room() -> int:
    """How many columns a sparkline may take in this terminal, with words beside it."""
    return max(8, min(MOST_SPARKS, shutil.get_terminal_size().columns - _BESIDE_SPARKS))


def bar(value: Decimal, most: Decimal, width: int, light: Decimal = Decimal(0)) -> str:
    """A bar of `value` where `most` fills the width; its last part, `light`, is drawn lighter.

    Something is never nothing: what is above 0 has at least a thin line.
    """
    if value <= 0 or most <= 0 or width < 1:
        return ""
    drawn = shapes()
    length = min(Fraction(value) / Fraction(most), Fraction(1)) * width
    dark = length * (1 - min(max(Fraction(light) / Fraction(value), Fraction(0)), Fraction(1)))
    if light > 0:
        solid = round(dark)
        return (drawn.full * solid + drawn.light * (round(length) - solid)) or drawn.light
    whole, eighths = divmod(round(length * 8), 8)
    if not drawn.parts:
        return drawn.full * (round(length) or 1)
    return drawn.full * whole + (drawn.parts[eighths - 1] if eighths else "") or drawn.parts[0]


def bar_cells(
    values: Sequence[Decimal], taken: int, lights: Sequence[Decimal] | None = None
) -> list[Cell] | None:
    """A bar for each row of a table whose other columns take so many columns of the terminal.

    None where there is no room, or nothing to draw.
    """
    width = min(MOST_BAR, shutil.get_terminal_size().columns - taken)
    most = max(values, default=Decimal(0))
    if width < LEAST_BAR or most <= 0:
        return None
    parts = lights or [Decimal(0)] * len(values)
    return [
        Cell(bar(value, most, width, light), STYLE)
        for value, light in zip(values, parts, strict=True)
    ]
