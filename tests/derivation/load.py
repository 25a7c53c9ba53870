"""A load of dirty streams that retries until all is stored, and a look at the derived data."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec

from tests.conftest import Server
from tests.derivation.helpers import prepare
from tests.derivation.streams import Body, stream
from tests.wire import CUT_OFF, Wire, request_of
from tether.server.store import open_store

RETRY_S = 0.05


@dataclass
class Load:
    """Clients that post events of dirty streams in random order, each until it is acknowledged."""

    server: Server
    vehicles: int
    seed: int = 1
    key: str = ""
    acknowledged: int = 0
    statuses: set[int] = field(default_factory=set)
    stopped: bool = False
    _left: Iterator[Body] = field(default_factory=lambda: iter(()))

    def __post_init__(self) -> None:
        self.key = self.server.key()
        random = Random(self.seed)
        names = [f"V{number}" for number in range(self.vehicles)]
        with self.server.client(self.key) as client:
            prepare(client, names)
        bodies = [body for name in names for body in stream(random, name)]
        random.shuffle(bodies)
        self._left = iter(bodies)

    async def run(self, connections: int = 16) -> None:
        """Posts the remaining events, until a test sets `stopped`."""
        await asyncio.gather(*(self._client() for _ in range(connections)))

    async def _client(self) -> None:
        wire: Wire | None = None
        for body in self._left:
            request = request_of("POST", "/events", self.key, msgspec.json.encode(body))
            status = 0
            while status != 201 and not self.stopped:
                try:
                    wire = wire or await Wire.to(self.server)
                    status = (await wire.ask(request)).status
                    self.statuses.add(status)
                    self.acknowledged += status == 201
                except (*CUT_OFF, OSError):
                    wire = None
                if status != 201:
                    await asyncio.sleep(RETRY_S)
            if self.stopped:
                break
        if wire is not None:
            wire.hang_up()


async def rebuilt(database: str) -> tuple[int, list[Any], int]:
    """What `tether rebuild --check` counts: sessions, vehicles that differ, events that wait."""
    async with open_store(database) as store:
        sessions, differing, waiting = 0, [], 0
        for partner in await store.partners.all():
            waiting += await store.projector.count_backlog(partner.id)
            async for checked in store.rebuilder.check(partner.id, repair=False):
                sessions += checked.sessions
                differing += [checked] if checked.differing else []
        return sessions, differing, waiting


async def derived(database: str, seconds: float = 30) -> tuple[int, list[Any]]:
    """The same, when no event waits any more, without a read that asks for it."""
    async with asyncio.timeout(seconds):
        while True:
            sessions, differing, waiting = await rebuilt(database)
            assert differing == []
            if not waiting:
                return sessions, differing
            await asyncio.sleep(0.2)
