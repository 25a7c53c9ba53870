"""Sends charging sessions through the API and keeps account of what became of them."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tether.cli.patience import PatientClient, Refused
from tether.cli.progress import shown_progress
from tether.errors import SetupError
from tether.model import Charger, Event, Vehicle, to_json
from tether.replay import Session, chargers_of, events_of, vehicle_of

TASKS = 32


@dataclass
class Report:
    """What was sent and accepted, and what came of it."""

    chargers: list[Charger] = field(default_factory=list)
    vehicles: list[Vehicle] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    delays: dict[str, int] = field(default_factory=dict)
    requests: int = 0
    seconds: float = 0
    verified: bool = False

    @property
    def energy_kwh(self) -> Decimal:
        """What was charged in all that was accepted, exactly."""
        return sum((event.charged_energy or Decimal(0) for event in self.events), Decimal(0))


async def send_sessions(sessions: Sequence[Session], url: str, key: str, *, verify: bool) -> Report:
    """Sends them all. Raises SetupError if that cannot be done at all.

    With `verify` it reads everything back and raises if that is not what was sent.
    """
    report = Report()
    chargers = chargers_of(sessions)
    requests = len(chargers) + sum(1 + len(events_of(session)) for session in sessions)
    with shown_progress(requests) as (advance, notice):
        async with PatientClient(url, key, notice) as client:
            await client.check()
            started = time.monotonic()
            await _send_all(client, chargers, sessions, report, advance)
            report.seconds = time.monotonic() - started
            report.delays = client.delays
            if verify and not report.refusals:
                await _verify(client, report)
    return report


async def _send_all(
    client: PatientClient,
    chargers: Sequence[Charger],
    sessions: Sequence[Session],
    report: Report,
    advance: Callable[[], None],
) -> None:
    """Chargers first, then the sessions, several at a time and each in its own order."""
    sender = _Sender(client, report, advance)
    for charger in chargers:
        await sender.send_charger(charger)
    waiting = iter(sessions)

    async def send_waiting() -> None:
        for session in waiting:
            await sender.send_session(session)

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(TASKS):
                tasks.create_task(send_waiting())
    except ExceptionGroup as group:  # one cause stops them all: the first says enough
        raise group.exceptions[0] from None


@dataclass
class _Sender:
    client: PatientClient
    report: Report
    advance: Callable[[], None]

    async def send_charger(self, charger: Charger) -> None:
        if await self._send("PUT", f"/chargers/{charger.id}", to_json(charger)) is not None:
            self.report.chargers.append(charger)

    async def send_session(self, session: Session) -> None:
        """Sends the vehicle and its events; what the server refuses does not stop the rest."""
        vehicle = vehicle_of(session)
        if await self._send("PUT", f"/vehicles/{vehicle.id}", to_json(vehicle)) is not None:
            self.report.vehicles.append(vehicle)
        for event in events_of(session):
            answer = await self._send("POST", "/events", to_json(event))
            if answer is not None:
                self.report.events.append(event.identified(json.loads(answer)["id"]))

    async def _send(self, method: str, path: str, body: bytes) -> bytes | None:
        """The body of the answer, None if the server refused."""
        try:
            return (await self.client.send(method, path, body)).content
        except Refused as refusal:
            self.report.refusals.append(refusal.message)
            return None
        finally:
            self.report.requests += 1
            self.advance()


async def _verify(client: PatientClient, report: Report) -> None:
    """Raises SetupError unless the server holds all that was sent, to the last digit."""
    await _compare(client, report.chargers, ["/chargers?limit=1000"])
    await _compare(client, report.vehicles, ["/vehicles?limit=1000"])
    await _compare(
        client,
        report.events,
        [f"/events?limit=1000&chargerId={charger.id}" for charger in report.chargers],
    )
    report.verified = True


async def _compare(
    client: PatientClient, sent: Sequence[Charger | Vehicle | Event], lists: Sequence[str]
) -> None:
    held = {entry["id"]: entry for path in lists async for entry in client.entries(path)}
    wrong = [thing.id for thing in sent if held.get(thing.id) != _as_answered(thing)]
    if wrong:
        raise SetupError(
            f"{len(wrong):,} of {len(sent):,} are not in {lists[0]} as they were sent, "
            f"the first of them {wrong[0]}."
        )


def _as_answered(thing: Charger | Vehicle | Event) -> Any:
    return json.loads(to_json(thing), parse_float=Decimal, parse_int=Decimal)
