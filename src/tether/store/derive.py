"""Derives the sessions from the events, as a follower of the event log.

What the sessions contain is all events up to a sequence number, which stands beside them and moves
with them in one transaction. So it does not matter who derives, when, or how often: after a crash
it goes on from there, and of several nodes that derive the same events one is admitted and the
others see that it was done. Events wait for none of this.
"""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from time import monotonic
from typing import NamedTuple

import msgspec
import structlog

from tether.errors import Unavailable
from tether.model import Event, from_json
from tether.stays import Before, Fact, Place, Stay, Timeline, fact_of
from tether.store import session_queries as queries
from tether.store.engine import Engine, Row, Statement

log = structlog.get_logger()

AT_ONCE = 500  # events
PAUSE_S = 0.05  # gathers what arrives meanwhile; nobody waits for it who asks
OTHER_S = 0.4  # so long without progress makes another node take over
TROUBLE_S = 1.0
PATIENCE_S = 5.0  # how long a reader waits for its events to be derived
PAGE = 1000  # events of one vehicle
STAYS = 100

Start = tuple[int, int, str]


class Position(NamedTuple):
    """How far the sessions of a partner are."""

    seq: int
    updated_ms: int
    mark: int


class Change(NamedTuple):
    """A stay that differs from what is stored. Not `visible`: only in what it knows of before."""

    stay: Stay
    before: Before
    live: bool = True
    visible: bool = True


class Deriver:
    """Keeps the sessions of all partners up to date."""

    def __init__(self, engine: Engine, now_ms: Callable[[], int]) -> None:
        self._engine = engine
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
        changes = await self._derive(partner, rows)
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
        if changes:
            rows = numbered(_row(change) for change in changes)
            statements.append(Statement(queries.WRITE_SESSIONS, (partner, rows, mark)))
        if seen := [change.stay.id for change in changes if change.visible]:
            ids = numbered([id] for id in seen)
            statements.append(Statement(queries.WRITE_VERSIONS, (partner, ids, mark, updated_ms)))
        advanced, *_ = await self._engine.write_all(*statements)
        return advanced == 1

    # What changes ---------------------------------------------------------------------------------

    async def _derive(self, partner: int, rows: Iterable[Row]) -> list[Change]:
        """What these new events change."""
        facts: defaultdict[str, list[Fact]] = defaultdict(list)
        for seq, at_ms, vehicle_id, body in rows:
            facts[vehicle_id].append(fact_of(seq, at_ms, from_json(Event, body)))
        known = await self._engine.scan(
            queries.LAST_STAYS, partner, numbered([vehicle] for vehicle in facts)
        )
        changes: list[Change] = []
        for vehicle, last in known:
            new = sorted(facts[vehicle])
            stay, before = read_stay(last) if last else (None, Before())
            if stay is None or new[0].place > stay.last:
                was = (stay.last, stay.end_ms) if stay is not None else None
                timeline = Timeline(stay, before).take(new)
                if stay is not None and (stay.last, stay.end_ms) != was:
                    changes.append(Change(stay, before))
                changes += (Change(*begun) for begun in timeline.begun)
            else:
                changes += await self.again(partner, vehicle, new[0].place, new[-1].place)
        return changes

    async def again(
        self, partner: int, vehicle: str, first: Place | None = None, last: Place | None = None
    ) -> list[Change]:
        """What changes in a vehicle's stays when they are derived again from the events.

        With `first` from the stay on which that place lies, and with `last` up to where the stays
        behind that place are again as they are stored.
        """
        begin, before = await self._begin(partner, vehicle, first)
        timeline, end = Timeline(before=before), None
        async for fact in self._facts(partner, vehicle, begin):
            count = len(timeline.begun)
            timeline.take([fact])
            if last is not None and len(timeline.begun) > count and fact.place > last:
                begun = timeline.begun[-1]
                stored = await self._stored(partner, vehicle, start_of(begun[0]), 1)
                start = start_of(begun[0])
                if any(
                    start_of(stay) == start and _text(known) == _text(begun[1])
                    for stay, known in stored
                ):
                    timeline.begun.pop()
                    end = start
                    break
        return await self._compare(partner, vehicle, begin, end, timeline)

    async def _begin(self, partner: int, vehicle: str, first: Place | None) -> tuple[Start, Before]:
        """The start of the stay on which the place lies, and what that knows of before."""
        if first is None:
            return (-(2**62), 0, ""), Before()
        rows = await self._engine.scan(queries.STAY_AT, partner, vehicle, *first[:3])
        if not rows:
            return first[:3], Before()
        stay, before = read_stay(rows[0][0])
        return start_of(stay), before

    async def _facts(self, partner: int, vehicle: str, begin: Start) -> AsyncIterator[Fact]:
        """The facts of a vehicle from there on, in order, not all at once."""
        from_ms, waiting, limit = begin[0], [], PAGE
        while True:
            rows = await self._engine.scan(
                queries.EVENTS_OF_VEHICLE, partner, vehicle, from_ms, limit
            )
            facts = [fact_of(seq, at_ms, from_json(Event, body)) for seq, at_ms, body in rows]
            more = len(rows) == limit
            # Of the last instant there may be more, and they would have to be put in order.
            until = rows[-1][1] if more else None
            waiting = sorted(fact for fact in facts if until is None or fact.place.at_ms < until)
            for fact in waiting:
                if fact.place[:3] >= begin:
                    yield fact
            if until is None:
                return
            limit = PAGE if waiting else 2 * limit
            from_ms = until

    async def _stored(
        self, partner: int, vehicle: str, begin: Start, limit: int
    ) -> list[tuple[Stay, Before]]:
        rows = await self._engine.scan(queries.STAYS_FROM, partner, vehicle, *begin, limit)
        return [read_stay(text) for (text,) in rows]

    async def _compare(
        self, partner: int, vehicle: str, begin: Start, end: Start | None, timeline: Timeline
    ) -> list[Change]:
        """What of the stays that begin from `begin` to before `end` is not stored as it should."""
        wanted = {start_of(stay): (stay, before) for stay, before in timeline.begun}
        changes = []
        while stored := await self._stored(partner, vehicle, begin, STAYS):
            for stay, before in stored:
                start = start_of(stay)
                if end is not None and start >= end:
                    break
                found = wanted.pop(start, None)
                if found is None:
                    changes.append(Change(stay, before, live=False))
                elif _text(found[0]) != _text(stay):
                    changes.append(Change(*found))
                elif _text(found[1]) != _text(before):
                    changes.append(Change(*found, visible=False))
            else:
                if len(stored) == STAYS:
                    begin = (*start[:2], start[2] + "\0")
                    continue
            break
        return changes + [Change(*begun) for begun in wanted.values()]


def start_of(stay: Stay) -> Start:
    """What tells the stay from the vehicle's others, and orders them."""
    return stay.start_ms, stay.start_rank, stay.charger_id


def read_stay(text: str) -> tuple[Stay, Before]:
    """The stay, and what it knows of before, as they are stored."""
    return _stays.decode(text)


_stays = msgspec.json.Decoder(tuple[Stay, Before])
_encoder = msgspec.json.Encoder(decimal_format="number")


def _text(value: Stay | Before) -> str:
    return _encoder.encode(value).decode()


def _row(change: Change) -> tuple[object, ...]:
    stay = change.stay
    ended = stay.end_ms is not None
    return (
        stay.vehicle_id,
        stay.start_ms,
        stay.start_rank,
        stay.charger_id,
        stay.id,
        int(change.live),
        stay.end_ms,
        (stay.end_ms - stay.start_ms).bit_length() if stay.end_ms is not None else None,
        stay.last.at_ms if ended else None,
        stay.last.seq,
        _text(stay),
        _text(change.before),
    )


def numbered(rows: Iterable[object]) -> str:
    """The JSON object of these arrays that statements take as a batch."""
    return msgspec.json.encode({str(place): row for place, row in enumerate(rows, 1)}).decode()
