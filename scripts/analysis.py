"""Writes the tables of docs/analysis.md from the real data, and draws its pictures: `make figures`.

    python scripts/analysis.py [--check]

It calculates only from the rows of the sessions and the rules of docs/summaries.md. A test checks
that a server gives the same tables. The pictures follow the reader's light or dark mode.
"""

import csv
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from pathlib import Path

from tether.simulator.replay import RecordedSession, sessions_of

ROOT = Path(__file__).parent.parent
DATA = ROOT / "src/tether/simulator/data/level3-sessions.csv"
PAGE = ROOT / "docs/analysis.md"
PLUGS = ("CCS1", "CCS2")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLIWATT_HOUR = Decimal("0.000001")
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #1c2733 } .small { fill: #55626f; font-size: 11px }
  .grid { stroke: #9aa5b1; stroke-opacity: .4 } .one { fill: #2f6fb3 } .two { fill: #c9701c }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small { fill: #9fb0c0 } .one { fill: #79b8ff } .two { fill: #f0a35e }
  }
"""
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 720, 240, 56, 30, 34


def month_of(at_ms: int) -> str:
    """Its month in UTC, because the data have no zone."""
    return f"{EPOCH + timedelta(milliseconds=at_ms):%Y-%m}"


def hour_of(at_ms: int) -> str:
    """Its hour of the day in UTC."""
    return f"{EPOCH + timedelta(milliseconds=at_ms):%H}"


def parts(session: RecordedSession) -> Iterator[tuple[int, int, Decimal]]:
    """The session by hours: the beginning of each hour, the ms plugged in, and the energy.

    The energy up to an instant is cut to the milliwatt hour; the last hour gets the rest.
    """
    start, stop = session.arrival_ms, session.departure_ms
    at, had = start, Decimal(0)
    while at < stop:
        until = min(stop, at - at % 3_600_000 + 3_600_000)
        part = session.energy_kwh * (until - start) / (stop - start)
        now = session.energy_kwh if until == stop else part.quantize(MILLIWATT_HOUR, ROUND_DOWN)
        yield at, until - at, now - had
        at, had = until, now


def tables(sessions: Sequence[RecordedSession]) -> dict[str, list[list[str]]]:
    """The rows of each table by the first words of its header."""
    begun: dict[str, int] = defaultdict(int)
    energy: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    plugged: dict[tuple[str, str], int] = defaultdict(int)
    for session in sessions:
        begun[month_of(session.arrival_ms)] += 1
        for at, length, charged in parts(session):
            energy[month_of(at), session.plug] += charged
            energy[hour_of(at), session.plug] += charged
            plugged[month_of(at), session.plug] += length
    months = [
        [month, f"{begun[month]}", *_sums(energy, month), *_parts_of(plugged, month)]
        for month in sorted(begun)
    ]
    hours = [[f"{hour:02}:00", *_sums(energy, f"{hour:02}")] for hour in range(24)]
    return {"month": months, "hour": hours}


def _sums(energy: dict[tuple[str, str], Decimal], key: str) -> list[str]:
    each = [energy[key, plug] for plug in PLUGS]
    return [f"{one:.1f}" for one in (*each, sum(each))]


def _parts_of(plugged: dict[tuple[str, str], int], month: str) -> list[str]:
    begins = datetime.fromisoformat(f"{month}-01T00:00:00+00:00")
    ends = (begins + timedelta(days=31)).replace(day=1)
    length = (ends - begins) // timedelta(milliseconds=1)
    return [f"{Decimal(100 * plugged[month, plug]) / length:.1f} %" for plug in PLUGS]


def page_with(text: str, found: dict[str, list[list[str]]]) -> str:
    """The page with these rows in its tables."""
    for name, rows in found.items():
        lines = "".join(f"| {' | '.join(row)} |\n" for row in rows)
        pattern = rf"(?m)^(\| {name} \|.*\n\|[-:| ]+\|\n)(?:\|.*\n)*"
        text, count = re.subn(pattern, lambda head, lines=lines: head[1] + lines, text)  # type: ignore[misc]
        assert count == 1, name
    return text


def pictures(found: dict[str, list[list[str]]]) -> dict[str, str]:
    """The pictures by name, as SVG."""
    hours, known = found["hour"], {row[0]: row for row in found["month"]}
    first, last = min(known), max(known)
    every = (f"{year}-{month:02}" for year in (2022, 2023) for month in range(1, 13))
    names = [name for name in every if first <= name <= last]
    # Of some months there are no sessions: the picture has them nevertheless.
    months = [known.get(name, [name, *["0"] * 6]) for name in names]
    names = [name[2:] for name in names]
    return {
        "energy-by-month": stacked(
            "Energy by month, MWh", names, [[float(n) / 1000 for n in row[2:4]] for row in months]
        ),
        "energy-by-hour": stacked(
            "Energy by hour of the day, MWh",
            [row[0][:2] for row in hours],
            [[float(n) / 1000 for n in row[1:3]] for row in hours],
        ),
        "utilisation": beside(
            "How much of the month a vehicle was plugged in, %",
            names,
            [[float(n.removesuffix(" %")) for n in row[5:7]] for row in months],
        ),
    }


def stacked(title: str, names: list[str], values: list[list[float]]) -> str:
    """Bars of the first plug, with those of the second on top."""
    return _chart(title, names, values, max(map(sum, values)), stack=True)


def beside(title: str, names: list[str], values: list[list[float]]) -> str:
    """A bar for each plug, side by side."""
    return _chart(title, names, values, max(map(max, values)), stack=False)


def _chart(
    title: str, names: list[str], values: list[list[float]], most: float, *, stack: bool
) -> str:
    step = next(s for s in (0.5, 1, 2, 5, 10, 20, 50) if most / s <= 5)
    scale = (HEIGHT - TOP - BOTTOM) / (step * -(-most // step))
    floor, room = HEIGHT - BOTTOM, (WIDTH - LEFT - 8) / len(names)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{title}</title><style>{STYLE}</style>",
        f'<text x="{LEFT}" y="16">{title}</text>',
    ]
    for place, (plug, kind) in enumerate(zip(PLUGS, ("one", "two"), strict=True)):
        legend = WIDTH - 140 + 66 * place
        out.append(f'<rect class="{kind}" x="{legend}" y="7" width="11" height="11"/>')
        out.append(f'<text x="{legend + 16}" y="16">{plug}</text>')
    for number in range(int(-(-most // step)) + 1):
        y = floor - number * step * scale
        out.append(f'<path class="grid" d="M{LEFT},{y:.1f} H{WIDTH - 8}"/>')
        label = f"{number * step:g}"
        out.append(
            f'<text class="small" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
        )
    for place, (name, each) in enumerate(zip(names, values, strict=True)):
        x, width, base = LEFT + room * (place + 0.15), room * 0.7, float(floor)
        for number, value in enumerate(each):
            height = value * scale
            left = x if stack else x + number * width / 2
            wide = width if stack else width / 2 - 1
            kind = ("one", "two")[number]
            out.append(
                f'<rect class="{kind}" x="{left:.1f}" y="{base - height:.1f}" width="{wide:.1f}" '
                f'height="{height:.1f}"><title>{name} {PLUGS[number]}: {value:g}</title></rect>'
            )
            base -= height if stack else 0.0
        below = f'x="{LEFT + room * (place + 0.5):.1f}" y="{floor + 16}" text-anchor="middle"'
        out.append(f'<text class="small" {below}>{name}</text>')
    return "\n".join([*out, "</svg>", ""])


def main() -> int:
    """Writes the page and the pictures; with `--check` only says whether one is stale."""
    with DATA.open(encoding="utf-8", newline="") as file:
        found = tables(sessions_of(csv.DictReader(file)))
    text = PAGE.read_text(encoding="utf-8")
    wanted = {PAGE: page_with(text, found)}
    for name, svg in pictures(found).items():
        wanted[PAGE.parent / "figures" / f"{name}.svg"] = svg
    stale = [path for path, content in wanted.items()
             if not path.exists() or path.read_text(encoding="utf-8") != content]  # fmt: skip
    if stale and "--check" in sys.argv:
        print(f"Stale: {', '.join(path.name for path in stale)}. Run `make figures`.")
        return 1
    for path in stale:
        path.write_text(wanted[path], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
