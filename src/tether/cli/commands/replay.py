"""`tether replay`: real charging sessions through the API of a running server."""

import asyncio
import csv
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tether.cli.access import PATIENT_RETRIES, Access, retries_noticed, with_access
from tether.cli.display.output import counted, note, say
from tether.cli.display.progress import RowProgress, row_progress
from tether.cli.options import FilePath
from tether.domain.errors import SetupError
from tether.domain.models import Charger, Event, Vehicle, to_json
from tether.simulator.replay import chargers_of, events_of, sessions_of, vehicle_of

if TYPE_CHECKING:
    from tether.client import AsyncClient

T = TypeVar("T", Charger, Vehicle, Event)

BATCH = 1_000  # things in a request
MOST_SHOWN = 10


@click.command()
@click.argument("file", required=False, type=FilePath(exists=True, dir_okay=False))
@with_access
@click.option("--verify", is_flag=True, help="Read everything back and compare.")
def replay(file: str | None, verify: bool, access: Access) -> None:
    """Send real charging sessions through the API of a running server.

    Without FILE these are the 1,878 sessions which one fast charging station in Switzerland saw in
    fifteen months. FILE is a CSV with the same columns. Sent twice, nothing changes.
    """

    sessions = sessions_of(_rows(file))
    if not sessions:
        raise SetupError("There are no sessions in the file.")
    run = _Replay(
        chargers_of(sessions),
        [vehicle_of(session) for session in sessions],
        # By their times; the sort is stable for events of the same instant.
        sorted((e for session in sessions for e in events_of(session)), key=lambda e: e.at_ms),
    )
    with access.errors_as_messages():
        access.check()
        with row_progress("sent", run.size) as progress, retries_noticed(progress.notice):
            asyncio.run(run.send(access, progress, verify=verify))
    run.summarize(access.safe_url)
    if run.refusals:
        sys.exit(1)


def _rows(file: str | None) -> list[dict[str, str]]:
    ours = files("tether.simulator").joinpath("data/level3-sessions.csv")
    source = ours if file is None else Path(file)
    try:
        text = source.read_text(encoding="utf-8-sig")
        return list(csv.DictReader(text.splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SetupError(f"{source} cannot be read: {error}") from None


@dataclass
class _Replay:
    """What is to be sent, and after `send` what was accepted; `refusals` has the rest."""

    chargers: list[Charger]
    vehicles: list[Vehicle]
    events: list[Event]
    refusals: list[str] = field(default_factory=list)
    seconds: float = 0
    verified: bool = False

    @property
    def size(self) -> int:
        """How many things there are to send."""
        return len(self.chargers) + len(self.vehicles) + len(self.events)

    async def send(self, access: Access, progress: RowProgress, *, verify: bool) -> None:
        """Sends chargers, vehicles and events; keeps those that the server accepted.

        With `verify` it reads everything back. Raises SetupError if something differs.
        """
        from tether.client import AsyncClient

        async with AsyncClient(access.url, access.key, retries=PATIENT_RETRIES) as client:
            started = time.monotonic()
            self.chargers = await self._send(client.chargers.bulk, self.chargers, progress)
            self.vehicles = await self._send(client.vehicles.bulk, self.vehicles, progress)
            self.events = await self._send(client.events.bulk, self.events, progress)
            self.seconds = time.monotonic() - started
            if verify and not self.refusals:
                await self._verify(client)

    async def _send(
        self, bulk: Callable[[list[T]], Awaitable[Any]], things: list[T], progress: RowProgress
    ) -> list[T]:
        """Sends the things in batches. Returns those that the server accepted."""
        accepted: list[Any] = []
        for start in range(0, len(things), BATCH):
            batch = things[start : start + BATCH]
            for thing, result in zip(batch, await bulk(batch), strict=True):
                if not result.ok:
                    name = thing.vehicle_id if isinstance(thing, Event) else thing.id
                    self.refusals.append(f"{name}: {result.message}")
                elif isinstance(thing, Event):
                    accepted.append(thing.identified(result.id))
                else:
                    accepted.append(thing)
            progress.advance(len(batch))
        return accepted

    async def _verify(self, client: "AsyncClient") -> None:
        held: list[Charger | Vehicle | Event] = [
            *[charger async for charger in client.chargers.list(page_size=1000)],
            *[vehicle async for vehicle in client.vehicles.list(page_size=1000)],
        ]
        for charger in self.chargers:
            events = client.events.list(charger_id=charger.id, page_size=1000)
            held += [event async for event in events]
        _compare([*self.chargers, *self.vehicles, *self.events], held)
        self.verified = True

    def summarize(self, url: str) -> None:
        """Prints the result on standard output, refusals on standard error."""
        rate = (self.size + len(self.refusals)) / self.seconds
        energy_kwh = sum((event.charged_energy or Decimal(0) for event in self.events), Decimal(0))
        say(f"Sent to {url} in {self.seconds:.1f} s ({rate:,.0f}/s):")
        say(f"  {counted(len(self.chargers), 'charger')}")
        say(f"  {counted(len(self.vehicles), 'vehicle')}")
        say(f"  {counted(len(self.events), 'event')}")
        say(f"  {energy_kwh:,f} kWh charged")
        if self.verified:
            say("Read back: the server holds exactly that.")
        if self.refusals:
            note(f"The server refused {len(self.refusals):,} of them:")
            for refusal in self.refusals[:MOST_SHOWN]:
                note(f"  {refusal}")
            if len(self.refusals) > MOST_SHOWN:
                note(f"  and {len(self.refusals) - MOST_SHOWN:,} more")


def _compare(
    sent: Sequence[Charger | Vehicle | Event], held: Iterable[Charger | Vehicle | Event]
) -> None:
    """Raises SetupError unless the server has all things exactly as they were sent."""
    found = {(type(thing), thing.id): to_json(thing) for thing in held}
    wrong = [thing.id for thing in sent if found.get((type(thing), thing.id)) != to_json(thing)]
    if wrong:
        raise SetupError(
            f"{len(wrong):,} of {len(sent):,} are not there as they were sent, "
            f"the first of them {wrong[0]}."
        )
