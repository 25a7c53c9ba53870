"""How sums of sessions and load curves are shown to people, with bars."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from tether.cli.display.charts import bar_cells
from tether.cli.display.numbers import tenth
from tether.cli.display.output import Cell
from tether.domain.views import EnergyStep, SessionSummary

WIDE = 110  # columns of a terminal in which there is room for powers and longer bars
_SUMMARY_TITLES = ("Of", "Begun", "Plugged\nh", "Charged\nh", "kWh", "estim.\nkWh", "Use\n%")
_POWER_TITLES = ("Mean\nkW", "Most\nkW")
_STEP_TITLES = ("Of", "kWh", "estim.\nkWh", "spread\nkWh", "kW")
_MOST_OF_NAME = 20  # columns that an id takes beside a bar: a longer one goes on in the next line


def summary_table(
    found: Sequence[SessionSummary], zone: ZoneInfo | None, width: int, *, days: bool
) -> tuple[list[str], list[list[Cell | str]]]:
    """Titles and rows of sums; times by the clocks of the zone, or only days."""
    titles = [_clock_of(zone), *_SUMMARY_TITLES]
    if width >= WIDE:
        titles += _POWER_TITLES
    rows: list[list[str]] = []
    for row in found:
        cells = [
            "" if row.from_ is None else _local(row.from_, zone, days=days),
            row.charger_id or row.vehicle_id or row.flag or row.area or "",
            f"{row.sessions:,}",
            tenth(row.plugged_time / 3600),
            tenth(row.charged_time / 3600),
            tenth(row.charged_energy),
            tenth(row.estimated_energy) if row.estimated_energy else "",
            "" if row.utilisation is None else tenth(100 * row.utilisation),
            "" if row.average_power is None else tenth(row.average_power),
            "" if row.maximum_power is None else tenth(row.maximum_power),
        ]
        rows.append(cells[: len(titles)])
    energies = [row.charged_energy for row in found]
    estimated = [row.estimated_energy for row in found]
    return _with_bars(titles, rows, energies, estimated)


def step_table(
    found: Sequence[EnergyStep], zone: ZoneInfo | None, *, days: bool
) -> tuple[list[str], list[list[Cell | str]]]:
    """Titles and rows of a load curve."""
    rows = [
        [
            _local(row.from_, zone, days=days),
            row.charger_id or row.area or "",
            tenth(row.charged_energy),
            tenth(row.estimated_energy) if row.estimated_energy else "",
            tenth(row.spread_energy) if row.spread_energy else "",
            tenth(row.average_power or Decimal(0)),
        ]
        for row in found
    ]
    powers = [row.average_power or Decimal(0) for row in found]
    estimated = [
        power * row.estimated_energy / row.charged_energy if row.charged_energy > 0 else Decimal(0)
        for row, power in zip(found, powers, strict=True)
    ]
    return _with_bars([_clock_of(zone), *_STEP_TITLES], rows, powers, estimated)


def _with_bars(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    values: Sequence[Decimal],
    estimated: Sequence[Decimal],
) -> tuple[list[str], list[list[Cell | str]]]:
    """Adds a bar to each row where the terminal has room; what is estimated of it is lighter."""
    columns = zip(*rows, strict=True)
    taken = sum(
        2 + min(_MOST_OF_NAME, max(map(len, [*title.split("\n"), *cells])))
        for title, cells in zip(titles, columns, strict=True)
        if any(cells)
    )
    bars = bar_cells(values, taken, estimated)
    if bars is None:
        return list(titles), [list(row) for row in rows]
    return [*titles, ""], [[*row, one] for row, one in zip(rows, bars, strict=True)]


def _clock_of(zone: ZoneInfo | None) -> str:
    """The title of times."""
    return f"From\n{zone.key if zone else 'UTC'}"


def _local(instant: str, zone: ZoneInfo | None, *, days: bool) -> str:
    at = datetime.fromisoformat(instant).astimezone(zone or ZoneInfo("UTC"))
    if days:
        return f"{at:%Y-%m-%d}"
    return f"{at:%Y-%m-%d %H:%M:%S}" if at.second else f"{at:%Y-%m-%d %H:%M}"
