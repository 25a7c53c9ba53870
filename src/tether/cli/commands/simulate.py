"""`tether simulate`: simulates a fleet and sends its events."""

import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import click

from tether.cli.access import Access, api_key_option, retries_noticed, url_option
from tether.cli.data_options import INSTANT
from tether.cli.display.output import counted, note, plain, say, show_line
from tether.cli.options import DURATION, Parsed, WholeNumber
from tether.cli.times import format_minute
from tether.domain import timestamps
from tether.domain.errors import SetupError
from tether.domain.models import Event, EventType, to_json
from tether.domain.timestamps import DAY_MS
from tether.simulator.fleet import packaged_fleet
from tether.simulator.simulation import Simulation

if TYPE_CHECKING:
    from tether.client import Client

MAX_SPEED = 1_000_000
BATCH = 1_000  # events in a request at most
TICK_S = 0.25  # how long events are collected before they are sent
MAX_REFUSALS_SHOWN = 5


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = 0
    if not 0 < speed <= MAX_SPEED:
        raise ValueError(f"{text!r} is not a number above 0 and up to 1,000,000.")
    return speed


@click.command(
    epilog="""\b
Examples:
  tether simulate                                  faster than time, then live
  tether simulate --speed 1                        live from the beginning
  tether simulate --chargers 500 --vehicles 900 --for 7d --speed 10000
  tether simulate --seed 7 --from 2026-01-05 --for 1d --dry-run > day.ndjson"""
)
@click.option("--chargers", default=50, type=WholeNumber(1), show_default=True, metavar="N",
              help="How many chargers.")  # fmt: skip
@click.option("--vehicles", default=80, type=WholeNumber(1), show_default=True, metavar="N",
              help="How many vehicles.")  # fmt: skip
@click.option("--speed", default="60", type=Parsed("number", _speed), show_default=True,
              help="Simulated seconds in a second; 1 is real time.")  # fmt: skip
@click.option("--seed", type=WholeNumber(0), metavar="N",
              help="The same number gives the same fleet and events.")  # fmt: skip
@click.option("--from", "from_", type=INSTANT,
              help="Where simulated time begins.  [default: so that it ends now]")  # fmt: skip
@click.option("--for", "length_ms", type=DURATION,
              help="How much simulated time: 8h, 7d.  [default: until stopped]")  # fmt: skip
@click.option("--until", type=INSTANT, help="Where simulated time ends.")
@click.option("--dry-run", is_flag=True, help="Print the events at once; send nothing.")
@url_option
@api_key_option
def simulate(
    chargers: int,
    vehicles: int,
    speed: float,
    seed: int | None,
    from_: str | None,
    length_ms: int | None,
    until: str | None,
    dry_run: bool,
    url: str,
    api_key: str | None,
) -> None:
    """Simulate a fleet that arrives, charges and leaves.

    Vehicles as in real sessions, chargers where Shenzhen has them, arrivals by the time of day
    there. Simulated time never runs ahead of the clock: when it has caught up, it continues live.
    The same --seed, --from and numbers give the same events, which can be sent again without harm.
    """
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    start_ms, end_ms = _span(from_, length_ms, until, speed, timestamps.now_ms())
    fleet = packaged_fleet(chargers, vehicles, seed)
    events = Simulation(fleet, start_ms, seed).events()
    if end_ms is not None:
        events = takewhile(lambda event: event.at_ms < end_ms, events)
    if dry_run:
        for event in events:
            show_line(to_json(event))
        return
    if start_ms > timestamps.now_ms():
        raise SetupError("The server takes no events of the future: give an earlier --from.")
    access = Access(url, api_key)
    note(f"Seed {seed}, from {format_minute(start_ms)} UTC.")
    run = _Run(start_ms, end_ms, speed)
    try:
        with access.client(patient=True) as client:
            results = client.chargers.bulk(fleet.chargers) + client.vehicles.bulk(fleet.vehicles)
            for result in results:
                if not result.ok:
                    raise SetupError(f"{result.entity.id}: {result.message}")
            with _live_counters(run) as print_above, retries_noticed(print_above):
                run.send_all(client, events)
    finally:
        run.summarize()
    if run.refusals:
        sys.exit(1)


def _span(
    from_: str | None, length_ms: int | None, until: str | None, speed: float, now_ms: int
) -> tuple[int, int | None]:
    """The first and the last moment of simulated time, in ms. Raises UsageError."""
    if length_ms is not None and until is not None and from_ is not None:
        raise click.UsageError("Give two of --from, --for and --until, not all three.")
    end_ms = timestamps.parse_instant(until) if until else None
    if from_ is not None:
        start_ms = timestamps.parse_instant(from_)
    elif end_ms is not None:
        start_ms = end_ms - (length_ms or DAY_MS)
    elif length_ms is not None:
        # Whole days, so that the same seed gives the same events all day.
        start_ms = (now_ms - length_ms) // DAY_MS * DAY_MS
    else:
        start_ms = now_ms // 1000 * 1000 if speed <= 1 else (now_ms - DAY_MS) // DAY_MS * DAY_MS
    if end_ms is None and length_ms is not None:
        end_ms = start_ms + length_ms
    if end_ms is not None and end_ms <= start_ms:
        raise click.UsageError("Simulated time must end after it begins.")
    return start_ms, end_ms


# Sending ----------------------------------------------------------------------------------------


@dataclass
class _Run:
    """Sends events when they are due, and counts."""

    start_ms: int
    end_ms: int | None
    speed: float
    sent: int = 0
    energy_kwh: float = 0.0
    reached_ms: int = 0
    refusals: list[str] = field(default_factory=list)
    charging: dict[str, float] = field(default_factory=dict)  # kW by vehicle
    plugged: set[str] = field(default_factory=set)
    started: float = field(default_factory=time.monotonic)

    def now_ms(self) -> int:
        """Simulated time; never ahead of the clock."""
        passed_ms = (time.monotonic() - self.started) * 1000 * self.speed
        now_ms = timestamps.now_ms()
        return int(min(self.start_ms + passed_ms, self.end_ms or now_ms, now_ms))

    def send_all(self, client: "Client", events: Iterator[Event]) -> None:
        """Sends all events in order, each when it is due."""
        self.started = time.monotonic()
        batch: list[Event] = []
        for event in events:
            if batch and (len(batch) == BATCH or event.at_ms > self.now_ms()):
                self._send(client, batch)
                batch = []
            while event.at_ms > (now_ms := self.now_ms()):
                self.reached_ms = now_ms
                time.sleep(TICK_S)
            batch.append(event)
        self._send(client, batch)

    def _send(self, client: "Client", batch: list[Event]) -> None:
        if batch:
            self.reached_ms = batch[-1].at_ms
        for result in client.events.bulk(batch):
            if result.ok:
                self._count(result.event)
            else:
                self.refusals.append(f"{result.event.vehicle_id}: {result.message}")

    def _count(self, event: Event) -> None:
        self.sent += 1
        vehicle = event.vehicle_id
        if event.type is EventType.VEHICLE_CONNECTED:
            self.plugged.add(vehicle)
        elif event.type is EventType.VEHICLE_DISCONNECTED:
            self.plugged.discard(vehicle)
        elif event.type is EventType.VEHICLE_CHARGE_STOPPED:
            self.charging.pop(vehicle, None)
            self.energy_kwh += float(event.charged_energy or 0)
        else:
            self.charging[vehicle] = float(event.charge_power or 0)

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.sent / max(time.monotonic() - self.started, 0.001)

    def summarize(self) -> None:
        say(
            f"{counted(self.sent, 'event')} ({self.rate:,.0f}/s), {self.energy_kwh:,.0f} kWh "
            f"charged, {len(self.plugged):,} plugged in, {len(self.charging):,} charging."
        )
        for refusal in self.refusals[:MAX_REFUSALS_SHOWN]:
            note(f"Refused: {refusal}")
        if len(self.refusals) > MAX_REFUSALS_SHOWN:
            note(f"and {len(self.refusals) - MAX_REFUSALS_SHOWN:,} more")


@contextmanager
def _live_counters(run: _Run) -> Iterator[Any]:
    """Shows live counters in a terminal. Yields the function that prints a line above them."""
    if not sys.stderr.isatty():
        yield note
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False)
    with Live(console=console, get_renderable=lambda: _counters(run), transient=True):
        yield lambda text: console.print(plain(text), markup=False)


def _counters(run: _Run) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for name, value in (
        ("Simulated time", f"{format_minute(run.reached_ms or run.start_ms)} UTC"),
        ("Plugged in", f"{len(run.plugged):,}"),
        ("Charging", f"{len(run.charging):,} with {sum(list(run.charging.values())):,.0f} kW"),
        ("Charged", f"{run.energy_kwh:,.0f} kWh"),
        ("Events", f"{run.sent:,} ({run.rate:,.0f}/s)"),
        *([("Refused", f"{len(run.refusals):,}")] if run.refusals else []),
    ):
        table.add_row(Text(name, style="dim"), value)
    return table
