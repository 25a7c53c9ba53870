"""Draws the figures of the documents from text in them: `make figures`.

They are the events of each flag in sessions.md on a time line, and the rooms in architecture.md.
The figures follow the reader's light or dark mode.
"""

import re
import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "docs"
FLAG = re.compile(r"^### (\S+)\n(?:(?!^###).)*?^```events\n(.*?)^```$", re.M | re.DOTALL)
EVENT = re.compile(r"(\d\d):(\d\d) (\w+) +(C\d)(.*)")
WIDTH, LEFT, RIGHT, ROW, TOP = 720, 52, 24, 70, 24
MARKS = {
    "connected": "M-6,-6 H6 V6 H-6 Z",
    "started": "M-5,-7 L7,0 L-5,7 Z",
    "updated": "M0,-7 L7,0 L0,7 L-7,0 Z",
    "stopped": "M-6,-6 L6,6 M6,-6 L-6,6",
    "disconnected": "M-6,-6 H6 V6 H-6 Z",
}
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #1c2733 }
  .small { fill: #55626f; font-size: 11px }
  .line { stroke: #9aa5b1; stroke-width: 2 }
  .plugged { stroke: #2f6fb3; stroke-width: 8; stroke-opacity: .25 }
  .mark { fill: #2f6fb3; stroke: #2f6fb3; stroke-width: 2 }
  .mark.stopped, .mark.disconnected { fill: none }
  .room { fill: #eaf1f8; stroke: #2f6fb3 } .name { font-weight: 600; font-size: 14px }
  path.line { fill: none }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small { fill: #9fb0c0 } .line { stroke: #55626f }
    .room { fill: #16212c; stroke: #79b8ff }
    .plugged { stroke: #79b8ff } .mark { fill: #79b8ff; stroke: #79b8ff }
  }
"""


def figures() -> dict[str, str]:
    """The figures by name, as SVG."""
    page = (FOLDER / "sessions.md").read_text(encoding="utf-8")
    found = {name: figure(name, events) for name, events in FLAG.findall(page)}
    page = (FOLDER / "architecture.md").read_text(encoding="utf-8")
    (rooms,) = re.findall(r"^```house\n(.*?)^```$", page, re.M | re.DOTALL)
    return {**found, "house": house(rooms)}


def figure(name: str, text: str) -> str:
    """The events of one flag: a line for each charger, a mark for each event."""
    events = [match.groups() for line in text.splitlines() if (match := EVENT.fullmatch(line))]
    chargers = sorted({charger for *_, charger, _ in events})
    minutes = [int(hour) * 60 + int(minute) for hour, minute, *_ in events]
    first, last = min(minutes), max(minutes)
    scale = (WIDTH - LEFT - RIGHT - 60) / max(1, last - first)
    places = _apart([LEFT + 30 + (minute - first) * scale for minute in minutes])
    height = TOP + ROW * len(chargers) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>The events of the example of {name}</title><style>{STYLE}</style>",
    ]
    for row, charger in enumerate(chargers):
        y = TOP + ROW * row + 14
        parts.append(f'<text x="8" y="{y + 4}">{charger}</text>')
        parts.append(f'<path class="line" d="M{LEFT},{y} H{WIDTH - RIGHT}"/>')
        parts += _plugged(events, places, charger, y)
    for place, (hour, minute, kind, charger, more) in zip(places, events, strict=True):
        y = TOP + ROW * chargers.index(charger) + 14
        mark = f'<path class="mark {kind}" d="{MARKS[kind]}"/>'
        parts.append(f'<g transform="translate({place:.0f},{y})"><title>{more.strip()}</title>')
        parts.append(f'{mark}<text y="-12" text-anchor="middle">{hour}:{minute}</text>')
        parts.append(f'<text class="small" y="22" text-anchor="middle">{kind}</text>')
        parts.append(f'<text class="small" y="36" text-anchor="middle">{_told(more)}</text></g>')
    return "\n".join([*parts, "</svg>", ""])


def house(text: str) -> str:
    """The rooms, a row of boxes for each line; imports go down."""
    rows = [[room.split(": ") for room in line.split(" | ")] for line in text.splitlines()]
    height = 16 + 66 * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>The rooms of the house; imports go down</title><style>{STYLE}</style>",
    ]
    for number, row in enumerate(rows):
        y, width = 8 + 66 * number, (WIDTH - 16 + 8) / len(row)
        for place, (name, what) in enumerate(row):
            x = 8 + width * place
            box = f'width="{width - 8:.0f}" height="52" rx="6"'
            parts.append(f'<rect class="room" x="{x:.0f}" y="{y}" {box}/>')
            parts.append(f'<text class="name" x="{x + 12:.0f}" y="{y + 22}">{name}</text>')
            parts.append(f'<text class="small" x="{x + 12:.0f}" y="{y + 40}">{what}</text>')
        if number < len(rows) - 1:
            arrow = f"M{WIDTH / 2:.0f},{y + 52} v10 m-4,-5 l4,5 l4,-5"
            parts.append(f'<path class="line" d="{arrow}"/>')
    return "\n".join([*parts, "</svg>", ""])


def _apart(places: list[float], least: float = 78) -> list[float]:
    """The positions, moved so that the words below them do not overlap."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + least) if moved else place)
    over = moved[-1] - (WIDTH - RIGHT - 36)
    if over > 0:  # squeeze what is too far to the right
        factor = (moved[-1] - moved[0] - over) / (moved[-1] - moved[0])
        moved = [moved[0] + (place - moved[0]) * factor for place in moved]
    return moved


def _plugged(
    events: list[tuple[str, ...]], places: list[float], charger: str, y: float
) -> list[str]:
    """Bars from a plug-in to an unplug of the charger."""
    bars, begun = [], None
    for place, (_, _, kind, where, _) in zip(places, events, strict=True):
        if where == charger and kind == "connected" and begun is None:
            begun = place
        elif begun is not None and where == charger and kind == "disconnected":
            bars.append(f'<path class="plugged" d="M{begun:.0f},{y} H{place:.0f}"/>')
            begun = None
    if begun is not None:
        bars.append(f'<path class="plugged" d="M{begun:.0f},{y} H{WIDTH - RIGHT}"/>')
    return bars


def _told(more: str) -> str:
    """The numbers of an event, short."""
    units = {"chargePower": " kW", "chargedEnergy": " kWh", "chargedTime": " s"}
    units["stateOfCharge"] = " %"
    pairs = re.findall(r"(\w+)=([\d.]+)", more)
    return ", ".join(f"{value}{units[name]}" for name, value in pairs)


def main() -> int:
    """Writes the figures; with `--check` only says whether one is stale."""
    stale = []
    for name, svg in figures().items():
        path = FOLDER / "figures" / f"{name}.svg"
        if not path.exists() or path.read_text(encoding="utf-8") != svg:
            stale.append(path.name)
            if "--check" not in sys.argv:
                path.write_text(svg, encoding="utf-8")
    if stale and "--check" in sys.argv:
        print(f"Stale: {', '.join(stale)}. Run `make figures`.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
