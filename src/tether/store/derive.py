"""Derives the sessions from the events, as a follower of the event log.

What the sessions contain is all events up to a sequence number, which stands beside them and moves
with them in one transaction. So it does not matter who derives, when, or how often: after a crash
it goes on from there, and of several nodes that derive the same events one is admitted and the
others see that it was done. Events wait for none of this.
"""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import NamedTuple

import structlog

from tether.errors import Unavailable
from tether.store import session_queries as queries
from tether.store.changes import ID, Change, Changes, numbered, row_of
from tether.store.engine import Engine, Statement

log = structlog.get_logger()

AT_ONCE = 2000  # events
PAUSE_S = 0.2  # gathers what arrives meanwhile: that is cheaper; nobody waits for it who asks
OTHER_S = 0.4  # so long without progress makes another node take over
TROUBLE_S = 1.0
PATIENCE_S = 5.0  # how long a reader waits for its events to be derived


class Position(NamedTuple):
    """How far the sessions of a partner are."""

    seq: int
    updated_ms: int
    mark: int


class Deriver:
    """Keeps the sessions of all partners up to date."""

    def __init__(self, engine: Engine, now_ms: Callable[[], int]) -> None:
        self._engine = engine
        self._changes = Changes(engine)
        self._now_ms = now_ms
        self._noticed: set[int] = set()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._urgent: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self._progress: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)

    def notice(self, partner: int) -> None:
        """Events of the partner may wait: derives them in the background."""
        self._noticed.add(partner)
        if partner not in self._tasks:
            self._tasks[partner] = asyncio.create_task(self._follow(partner))

    async def catch_up(self, partner: int) -> None:
        """Returns when all events that are committed now are derived. Raises Unavailable."""
        deadline = monotonic() + PATIENCE_S
        wanted = None
        while True:
            ((head, derived),) = await self._engine.read(queries.PROGRESS, partner)
            wanted = head if wanted is None else wanted
            if derived >= wanted:
                return
            if monotonic() > deadline:
                raise Unavailable(2)
            self._urgent[partner].set()
            self.notice(partner)
            with suppress(TimeoutError):
                async with asyncio.timeout(OTHER_S):  # it may be another node that derives
                    await self._progress[partner].wait()

    async def close(self) -> None:
        """Stops where it stands; nothing is lost by that."""
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _follow(self, partner: int) -> None:
        """Derives until no event waits any more."""
        try:
            while partner in self._noticed:
                self._noticed.discard(partner)
                pause_s: float | None = 0.0
                while pause_s is not None:
                    await self._pause(partner, pause_s)
                    pause_s = await self._try(partner)
                    self._progress.pop(partner, asyncio.Event()).set()
        finally:
            self._urgent.pop(partner, None)
            del self._tasks[partner]

    async def _pause(self, partner: int, seconds: float) -> None:
        """Waits that long, or until somebody asks for what waits."""
        urgent = self._urgent[partner]
        if seconds:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await urgent.wait()
        urgent.clear()

    async def _try(self, partner: int) -> float | None:
        try:
            return await self._round(partner)
        except Unavailable:
            return TROUBLE_S
        except Exception as error:  # what is wrong with one portion must not end it for good
            log.error("derivation failed", partner=partner, exc_info=error)
            return 10 * TROUBLE_S

    async def _round(self, partner: int) -> float | None:
        """Derives a portion; the seconds to pause then, None when nothing is left."""
        position = await self.position(partner)
        if position is None:
            return None
        rows = await self._engine.scan(queries.EVENTS_AFTER, partner, position.seq, AT_ONCE)
        if not rows:
            return None
        changes = await self._changes.of_events(partner, rows)
        if not await self.write(partner, position, int(rows[-1][0]), changes):
            return OTHER_S
        return 0.0 if len(rows) == AT_ONCE else PAUSE_S

    async def position(self, partner: int) -> Position | None:
        """How far the partner's sessions are; None if there is no such partner."""
        rows = await self._engine.read(queries.POSITION, partner)
        if not rows:
            await self._engine.write(queries.BEGIN, partner)
            rows = await self._engine.read(queries.POSITION, partner)
        return Position(*rows[0]) if rows else None

    async def write(
        self, partner: int, position: Position, seq: int, changes: list[Change]
    ) -> bool:
        """Stores what changed and that the sessions now contain all events up to `seq`.

        Does nothing, and returns False, if somebody else changed them since `position`.
        """
        mark = secrets.randbits(62)
        updated_ms = max(self._now_ms(), position.updated_ms + 1)
        statements = [Statement(queries.ADVANCE, (partner, position.mark, seq, updated_ms, mark))]
        rows = [row_of(change) for change in changes]
        if rows:
            statements.append(Statement(queries.WRITE_SESSIONS, (partner, numbered(rows), mark)))
        if seen := [row[ID] for row, change in zip(rows, changes, strict=True) if change.visible]:
            ids = numbered([id] for id in seen)
            statements.append(Statement(queries.WRITE_VERSIONS, (partner, ids, mark, updated_ms)))
        advanced, *_ = await self._engine.write_all(*statements)
        return advanced == 1
