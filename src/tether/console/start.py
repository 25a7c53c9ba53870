"""Start: the first three calls of a partner, ticked when they arrive; or a simulated day.

The simulated day is a small fleet from yesterday until now. Its events pass the same validation
and storage as those of the API.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import structlog
from falcon.asgi import Request

from tether.console.pages import FormPage
from tether.console.rendering import Renderer
from tether.console.request import partner_of, url_of
from tether.domain.errors import Refusal, SetupError, TetherError
from tether.domain.keys import TEST
from tether.domain.models import Charger, Vehicle, to_json
from tether.domain.partners import Partner
from tether.domain.timestamps import DAY_MS, HOUR_MS
from tether.ingest.bulk_reader import Items, entities, events_at, read_items
from tether.server.store import Store
from tether.simulator.fleet import packaged_fleet
from tether.simulator.simulation import Simulation
from tether.storage.turns import in_steps

log = structlog.get_logger()

CHARGERS, VEHICLES = 20, 30
EVENTS_AT_ONCE = 200
MAX_RUNNING = 3  # simulated days, in each worker
MAX_KEYS = 200  # that are checked
MAX_REMEMBERED = 100  # partners whose progress is remembered


@dataclass(slots=True)
class Progress:
    """The progress of a simulated day: `stored` of `total` events."""

    total: int | None = None
    stored: int = 0
    is_over: bool = False
    problem: str = ""


class StartPage(FormPage):
    """`…/start`."""

    template = "start.html"

    def __init__(self, store: Store, renderer: Renderer) -> None:
        super().__init__(store, renderer)
        self.changes = {"simulate": self._simulate}
        self._progress: dict[int, Progress] = {}
        self._sending: dict[int, asyncio.Task[None]] = {}

    async def values(self, req: Request) -> dict[str, object]:
        partner, entities = partner_of(req).id, self._store.entities
        head, _ = await self._store.derivations.progress(partner)
        return {
            "day": self._progress.get(partner),
            "why_not": await self._why_not(partner),
            "has_charger": bool(await entities.page(Charger, partner, "", 1)),
            "has_vehicle": bool(await entities.page(Vehicle, partner, "", 1)),
            "events": head,
            "url": url_of(req),
        }

    async def _why_not(self, partner: int) -> str | None:
        """Why the partner cannot have a simulated day: real events must not be mixed with it."""
        head, _ = await self._store.derivations.progress(partner)
        if not head:
            return None
        now_ms = self._now_ms()
        keys = await self._store.keys.of_partner(partner, MAX_KEYS)
        working = [key for key in keys if key.works_at(now_ms)]
        if working and all(key.is_test for key in working):
            return None
        return (
            "A simulated day is for a partner that has no events, or whose keys are all for tests "
            f"({TEST}…): this one has events that may be real."
        )

    async def _simulate(self, req: Request, form: dict[str, str]) -> str:
        """Starts to send a simulated day, at most one for each partner."""
        partner = partner_of(req)
        if reason := await self._why_not(partner.id):
            raise SetupError(reason)
        if partner.id in self._sending:
            raise SetupError("A simulated day is being sent already.")
        if len(self._sending) >= MAX_RUNNING:
            raise SetupError("Simulated days of others are being sent: try again in a minute.")
        self._progress.pop(partner.id, None)
        progress = self._progress[partner.id] = Progress()
        while len(self._progress) > MAX_REMEMBERED:
            del self._progress[next(iter(self._progress))]
        self._sending[partner.id] = asyncio.create_task(self._send(partner, progress))
        return req.path

    async def _send(self, partner: Partner, progress: Progress) -> None:
        try:
            await self._fill(partner.id, progress)
            log.info("simulated day sent", partner=partner.name, events=progress.stored)
        except TetherError as error:
            progress.problem = f"It ended early: {error.message}"
            log.warning("simulated day not sent", partner=partner.name, cause=error.message)
        except Exception as error:
            progress.problem = "It ended early. The log of the server has more about it."
            log.error("simulated day not sent", partner=partner.name, exc_info=error)
        finally:
            progress.is_over = True
            del self._sending[partner.id]

    async def _fill(self, partner: int, progress: Progress) -> None:
        now_ms = self._now_ms()
        # It is the same for an hour: two workers, or a second try, do not store it twice.
        start_ms = (now_ms - DAY_MS) // HOUR_MS * HOUR_MS
        chargers, vehicles, events = await asyncio.to_thread(_day, partner, start_ms, now_ms)
        progress.total = len(events)
        for documents, items in ((chargers, entities(Charger)), (vehicles, entities(Vehicle))):
            _check(await self._store.entities.put_all(partner, await _read(documents, items)))
        batcher = self._store.batcher
        for start in range(0, len(events), EVENTS_AT_ONCE):
            batch = await _read(events[start : start + EVENTS_AT_ONCE], events_at(now_ms))
            _check(await batcher.add_all(partner, [batcher.row_of(event) for event in batch]))
            progress.stored += len(batch)


def _day(partner: int, start_ms: int, end_ms: int) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """The chargers, vehicles and events of the day, as JSON."""
    fleet = packaged_fleet(CHARGERS, VEHICLES, partner)
    events = Simulation(fleet, start_ms, partner).events()
    day = takewhile(lambda event: event.at_ms < end_ms, events)
    return (
        [to_json(charger) for charger in fleet.chargers],
        [to_json(vehicle) for vehicle in fleet.vehicles],
        [to_json(event) for event in day],
    )


async def _read(documents: Sequence[bytes], items: Items) -> list[Any]:
    """Validates the documents like the API. Raises SetupError if one is refused."""
    found = await in_steps(read_items(b"\n".join(documents), items))
    _check(found)
    return found


def _check(results: Sequence[object]) -> None:
    refused = next((result for result in results if isinstance(result, Refusal)), None)
    if refused is not None:
        raise SetupError(refused.message)
