"""A simulated day for a partner that has nothing yet, or is there to try things: a small fleet,
from yesterday at this time until now, through the rules and the store that the API has.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import structlog

from tether.domain.errors import Refusal, SetupError, TetherError
from tether.domain.keys import TEST
from tether.domain.models import Charger, Vehicle, to_json
from tether.domain.partners import Partner
from tether.ingest.bulk_reader import Items, entities, events_at, read_items
from tether.server.store import Store
from tether.simulator.fleet import packaged_fleet
from tether.simulator.simulation import Simulation
from tether.storage.turns import in_steps

log = structlog.get_logger()

CHARGERS, VEHICLES = 20, 30
DAY_MS, HOUR_MS = 86_400_000, 3_600_000
PORTION = 200  # events
AT_ONCE = 3  # partners, in a worker
KEYS_LOOKED_AT = 200
REMEMBERED = 100  # partners to which it is said how it went


@dataclass(slots=True)
class Progress:
    """How far a simulated day is. `total` events, of which so many are `stored`."""

    total: int | None = None
    stored: int = 0
    is_over: bool = False
    problem: str = ""


class SimulatedDays:
    """Those that are sent now, of each partner one."""

    def __init__(self, store: Store, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms
        self._known: dict[int, Progress] = {}
        self._sending: dict[int, asyncio.Task[None]] = {}

    def progress(self, partner: int) -> Progress | None:
        """That of the partner's day, if one was sent here lately."""
        return self._known.get(partner)

    async def why_not(self, partner: int) -> str | None:
        """Why the partner gets no simulated day: what is real must not be mixed with it."""
        head, _ = await self._store.feed.ends(partner)
        if not head:
            return None
        now_ms = self._now_ms()
        keys = await self._store.keys.of_partner(partner, KEYS_LOOKED_AT)
        working = [key for key in keys if key.works_at(now_ms)]
        if working and all(key.prefix.startswith(TEST) for key in working):
            return None
        return (
            "A simulated day is for a partner that has no events, or whose keys are all for tests "
            f"({TEST}…): this one has events that may be real."
        )

    def begin(self, partner: Partner) -> None:
        """Begins to send a day, for which there is no reason against. Raises SetupError."""
        if partner.id in self._sending:
            raise SetupError("A simulated day is being sent already.")
        if len(self._sending) >= AT_ONCE:
            raise SetupError("Simulated days of others are being sent: try again in a minute.")
        self._known.pop(partner.id, None)
        progress = self._known[partner.id] = Progress()
        while len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        self._sending[partner.id] = asyncio.create_task(self._send(partner, progress))

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
        # The same for an hour: sent again, or from two workers at once, it is stored once.
        start_ms = (now_ms - DAY_MS) // HOUR_MS * HOUR_MS
        chargers, vehicles, events = await asyncio.to_thread(_day, partner, start_ms, now_ms)
        progress.total = len(events)
        for documents, items in ((chargers, entities(Charger)), (vehicles, entities(Vehicle))):
            found = await _read(documents, items)
            _check(await self._store.entities.put_all(partner, found))
        batcher = self._store.batcher
        for start in range(0, len(events), PORTION):
            portion = await _read(events[start : start + PORTION], events_at(now_ms))
            _check(await batcher.add_all(partner, [batcher.arrival(one) for one in portion]))
            progress.stored += len(portion)


def _day(partner: int, start_ms: int, end_ms: int) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """Chargers, vehicles and events, as JSON."""
    fleet = packaged_fleet(CHARGERS, VEHICLES, partner)
    events = Simulation(fleet, start_ms, partner).events()
    day = takewhile(lambda event: event.at_ms < end_ms, events)
    return (
        [to_json(charger) for charger in fleet.chargers],
        [to_json(vehicle) for vehicle in fleet.vehicles],
        [to_json(event) for event in day],
    )


async def _read(documents: Sequence[bytes], items: Items) -> list[Any]:
    """What the API makes of them. Raises SetupError if it refuses one."""
    found = await in_steps(read_items(b"\n".join(documents), items))
    _check(found)
    return found


def _check(results: Sequence[object]) -> None:
    refused = next((one for one in results if isinstance(one, Refusal)), None)
    if refused is not None:
        raise SetupError(refused.message)
