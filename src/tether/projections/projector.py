"""Derives the sessions from the event log.

The sessions contain all events up to a sequence number, which is stored beside them and changes in
the same transaction. So it does not matter who derives, when, or how often. After a crash a server
goes on from this number. If several nodes derive the same events, one of them can store the result
and the others see that it is done. Storing events does not wait for any of this.
"""

import asyncio
import secrets
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from time import monotonic

from tether.domain.errors import NotDerived, Unavailable
from tether.projections.changes import Changes
from tether.storage.engine import Engine, Row
from tether.storage.events import Events
from tether.storage.log_positions import Derivations, Position, advancing
from tether.storage.partners import Partners
from tether.storage.session_records import Change, SessionRecords, writing
from tether.storage.snapshots import Snapshot, Snapshots, putting
from tether.storage.turns import LoopTurns, Turns, wait_for_event

AT_ONCE = 10_000  # events in a portion; it usually changes a fifth as many sessions
WRITTEN_AT_ONCE = 500  # changes in a transaction: other writes wait for it
IN_BULK = 500  # events; if more are stored at once, further events usually follow
MAX_BACKLOG = 100_000  # events of a partner before its next events are delayed
INTERVAL_S = 1.0  # between checks for changes, and between tries after a failure
RETRY_S = 0.02
PATIENCE_S = 5.0  # how long a reader waits until its events are derived
SWEPT_AT_ONCE = 200  # partners in a round of `sweep`
USUAL_RATE = 5_000.0  # events per second, until it is measured
MAX_SAMPLES = 1_000


class Backlog:
    """The number of events of a partner that wait to be derived, and how long they wait."""

    def __init__(self) -> None:
        self.events = 0
        self._samples: deque[tuple[int, float]] = deque()  # last events, each with its time

    def update(self, head: int, derived: int) -> None:
        """Updates the numbers: events are stored up to `head`, and derived up to `derived`."""
        self.events = head - derived
        if len(self._samples) < MAX_SAMPLES and (not self._samples or self._samples[-1][0] < head):
            self._samples.append((head, monotonic()))
        while self._samples and self._samples[0][0] <= derived:
            self._samples.popleft()

    def lag_s(self) -> float:
        """How long the oldest event has waited, to a few seconds."""
        return monotonic() - self._samples[0][1] if self._samples else 0.0


class Projector:
    """Keeps the sessions of all partners up to date."""

    def __init__(
        self,
        engine: Engine,
        now_ms: Callable[[], int],
        on_backlog: Callable[[int, float], None],
        on_failure: Callable[[int, Exception], None],
        *,
        loop_turns: LoopTurns,
    ) -> None:
        """`on_backlog` regularly gets the number of events that wait, of all partners, and how long
        the oldest has waited. `on_failure` gets the partner and the error when a bug stops a
        portion.
        """
        self._engine = engine
        self._on_backlog = on_backlog
        self._on_failure = on_failure
        self._loop_turns = loop_turns
        self._large = Turns(at_once=2, per_partner=1, patience_s=None)
        self._partners = Partners(engine)
        self._events = Events(engine)
        self.derivations = Derivations(engine)
        self.changes = Changes(self._events, SessionRecords(engine), Snapshots(engine))
        self._now_ms = now_ms
        self._noticed: set[int] = set()
        self._backlogs: defaultdict[int, Backlog] = defaultdict(Backlog)
        self._failing: set[int] = set()
        self._rate = USUAL_RATE
        self._began: dict[int, float] = {}  # when the current portion began
        self._lost_at: dict[int, int] = {}  # the mark at which another process was faster
        self._stored: defaultdict[int, int] = defaultdict(int)
        self._bulk_at: dict[int, float] = {}  # when the last bulk was stored
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._urgent: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self._progress: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)

    def notice(self, partner: int) -> None:
        """Derives events of the partner that may wait, in the background."""
        self._noticed.add(partner)
        if partner not in self._tasks:
            context = self._loop_turns.context_of(partner)
            self._tasks[partner] = asyncio.create_task(self._follow(partner), context=context)

    def hurry(self, partner: int) -> None:
        """Derives at once, without collecting more events, because a reader waits."""
        if partner in self._tasks:
            self._urgent[partner].set()

    async def derived_to(self, partner: int) -> int:
        """The number of the last derived event, without waiting; hurries if more are stored."""
        head, derived = await self.derivations.progress(partner)
        if derived < head:
            self.notice(partner)
            self.hurry(partner)
        return derived

    async def catch_up(self, partner: int) -> None:
        """Waits until all events that are committed now are derived.

        Raises NotDerived if that takes too long, and Unavailable.
        """
        deadline = monotonic() + PATIENCE_S
        wanted, derived = await self.derivations.progress(partner)
        at_first = derived
        while derived < wanted:
            if monotonic() > deadline:
                raise self._not_derived(partner, wanted - derived, derived - at_first)
            self.notice(partner)
            self.hurry(partner)
            # Another node may derive the events, without setting this.
            await wait_for_event(self._progress[partner], INTERVAL_S / 2)
            head, derived = await self.derivations.progress(partner)
            wanted = min(wanted, head)  # less than before if the partner is being erased

    def _not_derived(self, partner: int, backlog: int, progress: int) -> NotDerived:
        """The error after PATIENCE_S in which `progress` events were derived, here or elsewhere.

        If there was no progress, the estimate uses the time of the last events here.
        """
        if partner in self._failing:
            return NotDerived(backlog, round(10 * INTERVAL_S), failed=True)
        now = monotonic()
        spent_s = now - self._began.get(partner, now)
        left_s = backlog / (progress / PATIENCE_S) if progress else backlog / self._rate - spent_s
        return NotDerived(backlog, min(3600, 1 + max(0, int(left_s))))

    async def apply_backpressure(self, partner: int, stored: int) -> None:
        """Returns at once, or up to INTERVAL_S later if very many events of the partner wait.

        `stored` is the number of events that were just stored. The delay keeps derived data from
        falling far behind. There is no delay while deriving fails.
        """
        if stored > IN_BULK:
            self._bulk_at[partner] = monotonic()
        self._stored[partner] += stored
        if self._stored[partner] < AT_ONCE // 5:
            return
        deadline = monotonic() + INTERVAL_S
        with suppress(Unavailable):
            while partner not in self._failing and await self.count_backlog(partner) > MAX_BACKLOG:
                if monotonic() > deadline:
                    return
                self.hurry(partner)
                await asyncio.sleep(INTERVAL_S / 20)
        self._stored.pop(partner, None)  # another call may have done so

    async def sweep(self) -> None:
        """Derives events that no process has announced, until it is cancelled: events of a process
        that was killed, copied events, and events from before there were sessions.
        """
        partners: list[int] = []
        at_once = sys.maxsize  # all of them when it starts, then some at a time
        while True:
            with suppress(Unavailable):
                partners = partners or [partner.id for partner in await self._partners.all()]
                for partner in {*partners[:at_once], *self._backlogs}:
                    if await self.count_backlog(partner):
                        self.notice(partner)
                partners, at_once = partners[at_once:], SWEPT_AT_ONCE
            backlogs = self._backlogs.values()
            lag_s = max((backlog.lag_s() for backlog in backlogs), default=0.0)
            self._on_backlog(sum(backlog.events for backlog in backlogs), lag_s)
            await asyncio.sleep(3 * INTERVAL_S)

    async def count_backlog(self, partner: int) -> int:
        """How many events of the partner wait. It may be a few more: some numbers have no event."""
        head, derived = await self.derivations.progress(partner)
        if head > derived:
            self._backlogs[partner].update(head, derived)
        else:
            self._backlogs.pop(partner, None)
        return max(0, head - derived)

    def progress(self, partner: int) -> asyncio.Event:
        """An event that is set when more is derived here, but not when another node derives it."""
        return self._progress[partner]

    async def close(self) -> None:
        """Stops at once. Nothing is lost."""
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
                    urgent = await self._pause(partner, pause_s)
                    pause_s = await self._try(partner, urgent)
                    self._progress.pop(partner, asyncio.Event()).set()
        finally:
            self._urgent.pop(partner, None)
            del self._tasks[partner]

    async def _pause(self, partner: int, seconds: float) -> bool:
        """Waits for that long, or longer after a bulk, or until a reader waits.

        Returns whether a reader waits.
        """
        urgent = self._urgent[partner]
        if self._is_in_bulk(partner):
            seconds = max(seconds, self._engine.dialect.bulk_pause_s)
        if seconds:
            await wait_for_event(urgent, seconds)
        is_urgent = urgent.is_set()
        urgent.clear()
        return is_urgent

    def _is_in_bulk(self, partner: int) -> bool:
        """Whether a bulk of the partner has just been stored, so that more will come."""
        return monotonic() - self._bulk_at.get(partner, -INTERVAL_S) < INTERVAL_S

    async def _try(self, partner: int, urgent: bool) -> float | None:
        self._began[partner] = monotonic()
        try:
            is_large = await self.count_backlog(partner) > AT_ONCE // 10
            async with self._large.of(partner) if is_large else nullcontext():
                pause_s = await self.portion(partner, urgent=urgent)
        except Unavailable:
            return INTERVAL_S
        except Exception as error:  # a bug in one portion must not end deriving
            self._failing.add(partner)
            self._on_failure(partner, error)
            return 10 * INTERVAL_S
        finally:
            del self._began[partner]
        self._failing.discard(partner)
        return pause_s

    async def portion(self, partner: int, *, urgent: bool = True) -> float | None:
        """Derives the next events. Returns the seconds to pause, or None when nothing is left.

        Unless it is urgent, it leaves the work to another process that is doing it.
        """
        position = await self.derivations.position(partner)
        pause_s = self._engine.dialect.pause_s
        if position is None:
            return None
        if not urgent and self._another_is_faster(partner, position):
            return 3 * pause_s
        began = monotonic()
        rows = await self._events.following(partner, position.seq, AT_ONCE)
        if not rows:
            return None
        last, full = int(rows[-1][0]), len(rows) == AT_ONCE
        if position.unfinished:
            done = await self._by_vehicle(partner, position)
        else:
            done = await self._in_order(partner, position, rows, urgent=urgent)
        if done is position:  # more events will come
            return INTERVAL_S
        if done is None:
            self._lost_at[partner] = position.mark
            return 3 * pause_s
        took_s = monotonic() - began
        if full:  # a few events are no measure for many
            self._rate = (done.seq - position.seq) / took_s
            pause_s = 0.0
        if done.seq > last:  # by vehicle: with more events at once fewer sessions change twice
            pause_s = min(took_s, PATIENCE_S)
        return pause_s

    async def _in_order(
        self, partner: int, position: Position, rows: list[Row], *, urgent: bool
    ) -> Position | None:
        """Derives these events in order. If many of them are late and more follow, all are derived
        by vehicle. While a bulk arrives it returns the same position: with more events at once
        fewer sessions change twice.
        """
        last, full = int(rows[-1][0]), len(rows) == AT_ONCE
        await self._engine.list_events(partner, last, last + MAX_BACKLOG // 2)
        changes, late = await self.changes.of_events(partner, rows)
        if full and sum(one.events for one in late) > AT_ONCE // 4:
            lag_s = self._backlogs[partner].lag_s()
            if self._is_in_bulk(partner) and not urgent and lag_s < PATIENCE_S:
                return position
            return await self._by_vehicle(partner, position)
        async for more in self.changes.of_late(partner, last, late):
            changes += more
        return await self.write(partner, position, last, changes)

    async def _by_vehicle(self, partner: int, position: Position) -> Position | None:
        """Derives the whole backlog, vehicle after vehicle.

        In the order of the log, late events would change the same sessions again and again. The
        position moves when all vehicles are done. Until then it is unfinished: sessions of some
        vehicles contain later events. After a crash deriving begins at the same number and goes at
        least as far, so it only confirms these sessions. But some sessions of a vehicle may have
        been stored before the crash, and others not. So a correct session says nothing about later
        sessions, and all of them are compared.
        """
        interrupted = position.unfinished
        head, _ = await self.derivations.progress(partner)
        until = min(head, position.seq + MAX_BACKLOG)
        for last in (*range(position.seq + MAX_BACKLOG // 2, until, MAX_BACKLOG // 2), until):
            await self._engine.list_events(partner, last, last)
        seq, changes = position.seq, list[Change]()
        async for late in self.changes.of_backlog(partner, seq, until, to_end=interrupted):
            async for more in self.changes.of_late(partner, until, late):
                changes += more
                if len(changes) >= WRITTEN_AT_ONCE:
                    written = await self.write(partner, position, seq, changes, finished=False)
                    if written is None:
                        return None
                    position, changes = written, []
        return await self.write(partner, position, until, changes)

    async def settled(self, partner: int) -> Position | None:
        """Derives until the position is finished and the sessions contain no withdrawn events.

        Returns this position, or None if there is no such partner.
        """
        while (position := await self.derivations.position(partner)) is not None:
            withdrawn = await self.derivations.withdrawn_since(partner, position)
            if not position.unfinished and not withdrawn:
                return position
            await self.portion(partner)
            await asyncio.sleep(RETRY_S)
        return None

    def _another_is_faster(self, partner: int, position: Position) -> bool:
        """Whether another process was faster the last time, and has made progress since.

        Then this process leaves the events to it. Otherwise both would derive the same events.
        """
        last = self._lost_at.pop(partner, None)
        if last is None or last == position.mark:
            return False
        self._lost_at[partner] = position.mark
        return True

    async def write(
        self,
        partner: int,
        position: Position,
        seq: int,
        changes: list[Change],
        *,
        finished: bool = True,
        snapshots: Sequence[Snapshot] = (),
    ) -> Position | None:
        """Stores the changes, the snapshots, and the new position: the sessions contain all events
        up to `seq`. Not `finished`: sessions of some vehicles contain later events.

        Returns the new position. Stops and returns None if another process has changed the sessions
        since `position`, or withdrawn events that the snapshots contain.
        """
        while len(changes) > WRITTEN_AT_ONCE:
            first, changes = changes[:WRITTEN_AT_ONCE], changes[WRITTEN_AT_ONCE:]
            written = await self.write(partner, position, position.seq, first, finished=False)
            if written is None:
                return None
            position = written
        mark = secrets.randbits(62) if finished else -1 - secrets.randbits(62)
        updated_ms = max(self._now_ms(), position.updated_ms + 1)
        to = Position(seq, updated_ms, mark)
        advanced, *_ = await self._engine.write_all(
            advancing(partner, position, to, unless_withdrawn=bool(snapshots)),
            *writing(partner, to, changes),
            *([putting(partner, snapshots, to.mark)] if snapshots else []),
        )
        return to if advanced else None
