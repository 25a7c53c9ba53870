"""How sums of sessions and load curves are shown to people, with bars."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from tether.cli.display.output import Cell
from tether.domain.views import EnergyStep, SessionSummary

WIDE = 110  # columns of a terminal in which there is room for powers and longer bars
STEP_TITLES = ("From", "Of", "kWh", "estim.\nkWh", "spread\nkWh", "kW", "")
_EIGHTHS = " ▏▎▍▌▋▊▉"
_HEIGHTS = "▁▂▃▄▅▆▇█"


def summary_table(
    found: Sequence[SessionSummary], zone: ZoneInfo | None, width: int, *, days: bool
) -> tuple[list[str], list[list[Cell | str]]]:
    """Titles and rows of sums; times by the clocks of the zone, or only days."""
    titles = ["From", "Of", "Begun", "Plugged\nh", "Charged\nh", "kWh", "estim.\nkWh", "Use\n%"]
    if width >= WIDE:
        titles += ["Mean\nkW", "Most\nkW"]
    highest = max((row.charged_energy for row in found), default=Decimal(0))
    length = _length(width)
    rows: list[list[Cell | str]] = []
    for row in found:
        cells = [
            "" if row.from_ is None else _local(row.from_, zone, days=days),
            row.charger_id or row.vehicle_id or row.flag or row.area or "",
            f"{row.sessions:,}",
            _short(row.plugged_time / 3600),
            _short(row.charged_time / 3600),
            _short(row.charged_energy),
            _short(row.estimated_energy) if row.estimated_energy else "",
            "" if row.utilisation is None else _short(100 * row.utilisation),
            "" if row.average_power is None else _short(row.average_power),
            "" if row.maximum_power is None else _short(row.maximum_power),
        ]
        rows.append(
            [*cells[: len(titles)], Cell(bar(row.charged_energy, highest, length), "green")]
        )
    return [*titles, ""], rows


def step_rows(
    found: Sequence[EnergyStep], zone: ZoneInfo | None, width: int, *, days: bool
) -> list[list[Cell | str]]:
    """The cells of a load curve."""
    powers = [row.average_power or Decimal(0) for row in found]
    highest = max(powers, default=Decimal(0))
    length = _length(width)
    return [
        [
            _local(row.from_, zone, days=days),
            row.charger_id or row.area or "",
            _short(row.charged_energy),
            _short(row.estimated_energy) if row.estimated_energy else "",
            _short(row.spread_energy) if row.spread_energy else "",
            _short(power),
            Cell(bar(power, highest, length), "green"),
        ]
        for row, power in zip(found, powers, strict=True)
    ]


def _length(width: int) -> int:
    """That of the longest bar."""
    return 20 if width >= WIDE else 8


def bar(value: Decimal, highest: Decimal, length: int) -> str:
    """A bar of so much of the highest, which has that length; none for less than nothing."""
    if value <= 0:
        return ""
    eighths = max(1, round(8 * length * value / highest))
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def sparkline(values: Sequence[Decimal], width: int) -> str:
    """The values in one line of at most so many characters; several in one are their highest."""
    each = -(-len(values) // max(1, width))
    parts = [max(values[start : start + each]) for start in range(0, len(values), each or 1)]
    highest = max(parts, default=Decimal(0))
    if highest <= 0:
        return ""
    return "".join(_HEIGHTS[max(0, int(7 * part / highest))] for part in parts)


def _local(instant: str, zone: ZoneInfo | None, *, days: bool) -> str:
    at = datetime.fromisoformat(instant).astimezone(zone or ZoneInfo("UTC"))
    if days:
        return f"{at:%Y-%m-%d}"
    return f"{at:%Y-%m-%d %H:%M:%S}" if at.second else f"{at:%Y-%m-%d %H:%M}"


def _short(number: Decimal) -> str:
    """To a tenth, for people; from a thousand on to the unit."""
    return f"{number:,.1f}" if abs(number) < 1000 else f"{number:,.0f}"
