"""`tether replay`: real charging sessions through the API of a running server."""

import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tether.cli.access import Access, retries_noticed, with_access
from tether.cli.display.numbers import energy
from tether.cli.display.output import counted, note, say
from tether.cli.display.progress import RowProgress, row_progress
from tether.cli.options import FilePath
from tether.domain.errors import SetupError
from tether.domain.models import Charger, Event, Vehicle, to_json
from tether.simulator.replay import (
    chargers_of,
    events_of,
    packaged_data,
    read_rows,
    sessions_of,
    vehicle_of,
)

if TYPE_CHECKING:
    from tether.client import Client

T = TypeVar("T", Charger, Vehicle, Event)

BATCH = 1_000  # chargers, vehicles or events in a request
MAX_REFUSALS_SHOWN = 10


@click.command()
@click.argument("file", required=False, type=FilePath(exists=True, dir_okay=False))
@with_access
@click.option("--verify", is_flag=True, help="Read everything back and compare.")
def replay(file: str | None, verify: bool, access: Access) -> None:
    """Send real charging sessions through the API of a running server.

    Without FILE these are the 1,878 sessions which one fast charging station in Switzerland saw in
    fifteen months. FILE is a CSV with the same columns. Sending them twice
    changes nothing.
    """
    sessions = sessions_of(read_rows(Path(file) if file else packaged_data("level3-sessions.csv")))
    if not sessions:
        raise SetupError("There are no sessions in the file.")
    run = _Replay(
        chargers_of(sessions),
        [vehicle_of(session) for session in sessions],
        # In order of time. Events of the same instant keep their order: the sort is stable.
        sorted((e for session in sessions for e in events_of(session)), key=lambda e: e.at_ms),
    )
    with (
        access.client(patient=True) as client,
        row_progress("sent", run.size) as progress,
        retries_noticed(progress.notice),
    ):
        run.send(client, progress)
        if verify and not run.refusals:
            run.verify(client)
    run.summarize(access.safe_url)
    if run.refusals:
        sys.exit(1)


@dataclass
class _Replay:
    """The entities and events to send. After `send`: those that the server accepted."""

    chargers: list[Charger]
    vehicles: list[Vehicle]
    events: list[Event]
    refusals: list[str] = field(default_factory=list)
    seconds: float = 0
    verified: bool = False

    @property
    def size(self) -> int:
        """The number of chargers, vehicles and events."""
        return len(self.chargers) + len(self.vehicles) + len(self.events)

    def send(self, client: "Client", progress: RowProgress) -> None:
        """Sends chargers, vehicles and events."""
        started = time.monotonic()
        self.chargers = self._send(client.chargers.bulk, self.chargers, progress)
        self.vehicles = self._send(client.vehicles.bulk, self.vehicles, progress)
        self.events = self._send(client.events.bulk, self.events, progress)
        self.seconds = time.monotonic() - started

    def _send(
        self, bulk: Callable[[list[T]], Iterable[Any]], items: list[T], progress: RowProgress
    ) -> list[T]:
        """Sends the items in batches. Returns those that the server accepted."""
        accepted: list[Any] = []
        for start in range(0, len(items), BATCH):
            batch = items[start : start + BATCH]
            for item, result in zip(batch, bulk(batch), strict=True):
                if not result.ok:
                    name = item.vehicle_id if isinstance(item, Event) else item.id
                    self.refusals.append(f"{name}: {result.message}")
                else:
                    accepted.append(item.identified(result.id) if isinstance(item, Event) else item)
            progress.advance(len(batch))
        return accepted

    def verify(self, client: "Client") -> None:
        """Raises SetupError unless the server has everything exactly as it was sent."""
        stored: list[Charger | Vehicle | Event] = [
            *client.chargers.list(page_size=1000),
            *client.vehicles.list(page_size=1000),
        ]
        for charger in self.chargers:
            stored += client.events.list(charger_id=charger.id, page_size=1000)
        found = {(type(item), item.id): to_json(item) for item in stored}
        sent: list[Charger | Vehicle | Event] = [*self.chargers, *self.vehicles, *self.events]
        wrong = [item.id for item in sent if found.get((type(item), item.id)) != to_json(item)]
        if wrong:
            raise SetupError(
                f"{len(wrong):,} of {len(sent):,} are not there as they were sent, "
                f"the first of them {wrong[0]}."
            )
        self.verified = True

    def summarize(self, url: str) -> None:
        """Prints the result on standard output, refusals on standard error."""
        rate = (self.size + len(self.refusals)) / self.seconds
        energy_kwh = sum((event.charged_energy or Decimal(0) for event in self.events), Decimal(0))
        say(f"Sent to {url} in {self.seconds:.1f} s ({rate:,.0f}/s):")
        say(f"  {counted(len(self.chargers), 'charger')}")
        say(f"  {counted(len(self.vehicles), 'vehicle')}")
        say(f"  {counted(len(self.events), 'event')}")
        say(f"  {energy(energy_kwh)} kWh charged")
        if self.verified:
            say("Read back: the server holds exactly that.")
        if self.refusals:
            note(f"The server refused {len(self.refusals):,} of them:")
            for refusal in self.refusals[:MAX_REFUSALS_SHOWN]:
                note(f"  {refusal}")
            if len(self.refusals) > MAX_REFUSALS_SHOWN:
                note(f"  and {len(self.refusals) - MAX_REFUSALS_SHOWN:,} more")
