"""Bars, sparklines and rounded numbers, as a terminal shows them."""

from decimal import Decimal
from typing import Any

import pytest

from tether.cli.display import charts, numbers
from tether.cli.display.charts import bar, bar_cells, sparkline


def decimals(*values: float | None) -> list[Any]:
    return [None if value is None else Decimal(str(value)) for value in values]


@pytest.mark.parametrize(
    ("number", "percent", "energy", "power"),
    [
        ("28.9999999999999", "29.0", "29.00", "29"),
        ("99", "99.0", "99.00", "99"),
        ("7.358", "7.4", "7.36", "7.36"),
        ("-0.0001", "0.0", "0.00", "-0.0001"),
        ("0", "0.0", "0.00", "0"),
        ("0.004", "0.0", "0.00", "0.004"),
        ("-7.5", "-7.5", "-7.50", "-7.5"),
        ("12345.678", "12345.7", "12,345.68", "12,346"),
        ("1E+3", "1000.0", "1,000.00", "1,000"),
    ],
)
def test_numbers_are_rounded_for_people(number: str, percent: str, energy: str, power: str) -> None:
    exact = Decimal(number)
    shown = (numbers.percent(exact), numbers.energy(exact), numbers.power(exact))
    assert shown == (percent, energy, power)


def test_a_sparkline_stands_on_nought_and_loses_no_peak() -> None:
    assert sparkline(decimals(0, 1, 2, 3, 4, 5, 6, 7)) == "▁▂▃▄▅▆▇█"
    assert sparkline(decimals(7, 7)) == "██"
    assert sparkline(decimals(0, None, 0)) == "▁ ▁"
    assert sparkline(decimals(-5, 0, 5)) == "▁▅█"
    assert sparkline(decimals(-1)) == "▁"
    assert sparkline([]) == ""
    long = decimals(*[1] * 997, 9, 1, 1)
    assert len(sparkline(long, 60)) == 60
    assert sparkline(long, 60).endswith("█")
    assert sparkline(long, 1) == "█"


def test_a_bar_is_as_long_as_its_part_and_lighter_where_it_is_estimated() -> None:
    most = Decimal(8)
    assert [bar(one, most, 8) for one in decimals(0, 0.001, 1, 4.5, 8, 9)] == [
        "", "▏", "█", "████▌", "████████", "████████",
    ]  # fmt: skip
    assert bar(Decimal(8), most, 8, Decimal(2)) == "██████░░"
    assert bar(Decimal(8), most, 8, Decimal(8)) == "░░░░░░░░"
    assert bar(Decimal("0.01"), most, 8, Decimal("0.01")) == "░"
    assert bar(Decimal(-3), most, 8) == bar(Decimal(3), Decimal(0), 8) == ""


def test_bars_take_the_room_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def longest(columns: int) -> int | None:
        monkeypatch.setenv("COLUMNS", str(columns))
        cells = bar_cells(decimals(1, 2, 4), 50)
        return None if cells is None else max(len(cell) for cell in cells)

    assert (longest(200), longest(80), longest(56)) == (charts.MAX_BAR, 30, 6)
    assert longest(55) is None
    assert bar_cells(decimals(0, 0), 10) is bar_cells(decimals(5), 10) is None
