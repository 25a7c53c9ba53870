"""What new events change in the sessions that are stored, and whether these are as they should be.

Nothing here writes, and the events beyond a given sequence number are not looked at.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from tether.model import Event, from_json
from tether.stays import Before, Fact, Place, Stay, Timeline, fact_of
from tether.store import session_queries as queries
from tether.store.engine import Engine, Row

PAGE = 1000  # events of one vehicle
VEHICLES = 10_000  # of which is looked up at once what waits
STAYS = 100  # stays of one vehicle
LATE_AT_ONCE = 100  # vehicles of which events came late …
LATE_EVENTS = 5_000  # … and so many events, as they are in memory together
LATE_MOST = 200  # events or stays of such a vehicle; with more it is looked at by itself
TURN = 100  # events or vehicles after which others have theirs
END_OF_TIME = 2**62

Start = tuple[int, int, str]
BEGINNING: Start = (-END_OF_TIME, 0, "")


class Change(NamedTuple):
    """A stay that differs from what is stored. Not `visible`: only in what it knows of before.

    `grown`: it lasts, and is stored as one that lasts.
    """

    stay: Stay
    before: Before
    live: bool = True
    visible: bool = True
    grown: bool = False


class Portion(NamedTuple):
    """Some of a vehicle's stays: how many there are, and which of them differ."""

    stays: int
    changes: list[Change]


class Late(NamedTuple):
    """A vehicle of which events came late, and where the first and the last of them lie."""

    vehicle: str
    first: Place
    last: Place
    events: int


class Changes:
    """Finds out what is to be changed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def of_events(self, partner: int, rows: list[Row]) -> tuple[list[Change], list[Late]]:
        """What these events change, the next ones behind those that the sessions contain.

        What those change that came late is left to `of_late`. Empties `rows`: they are megabytes.
        """
        facts: defaultdict[str, list[Fact]] = defaultdict(list)
        for place, (seq, at_ms, vehicle_id, body) in enumerate(rows):
            facts[vehicle_id].append(fact_of(seq, at_ms, from_json(Event, body)))
            await let_others(place)
        rows.clear()
        known = await self._engine.scan(
            queries.LAST_STAYS, partner, numbered([vehicle] for vehicle in facts)
        )
        changes: list[Change] = []
        late: list[Late] = []
        for place, (vehicle, last) in enumerate(known):
            await let_others(place)
            new = sorted(facts.pop(vehicle))
            stay, before = read_stay(last) if last else (None, Before())
            if stay is None:
                changes += (Change(*begun) for begun in Timeline().take(new).begun)
            elif new[0].place > stay.last:
                was = stay.last, stay.end_ms
                timeline = Timeline(stay, before).take(new)
                if was != (stay.last, stay.end_ms):  # else the next stay has begun after its end
                    lasts = was[1] is None and stay.end_ms is None
                    changes.append(Change(stay, before, grown=lasts))
                changes += (Change(*begun) for begun in timeline.begun)
            else:
                late.append(Late(vehicle, new[0].place, new[-1].place, len(new)))
        return changes, late

    async def waiting(self, partner: int, after: int, until: int) -> AsyncIterator[list[Late]]:
        """Of which vehicles events come behind the number `after`, up to `until`, as if all of
        them were late; many vehicles at a time, in the order of their ids.
        """
        last = ""
        while rows := await self._engine.scan(
            queries.VEHICLES_AFTER, partner, after, until, last, VEHICLES
        ):
            yield [
                Late(vehicle, Place(first_ms, -1, "", 0), Place(last_ms, END_OF_TIME, "", 0), count)
                for vehicle, count, first_ms, last_ms in rows
            ]
            last = rows[-1][0]

    async def of_vehicle(
        self, partner: int, vehicle: str, seq: int, late: Late | None = None
    ) -> AsyncIterator[Portion]:
        """What changes in a vehicle's stays when they are derived again from the events to `seq`.

        With `late` only those that these events can have changed: from the stay on which the first
        lies, up to where the stays behind the last are again as they are stored.
        """
        begin, before = BEGINNING, Before()
        if late is not None:
            rows = await self._engine.scan(queries.STAY_AT, partner, vehicle, *late.first[:3])
            begin, before = _begin(late, rows[0][0] if rows else None)
        timeline = Timeline(before=before)
        async for fact in self._facts(partner, vehicle, seq, begin):
            count = len(timeline.begun)
            timeline.take([fact])
            if len(timeline.begun) == count:
                continue
            start = start_of(timeline.begun[-1][0])
            if late is not None and fact.place > late.last:
                rows = await self._stored(partner, vehicle, start, 1)
                if rows and _is_again(timeline.begun[-1], rows[0]):
                    timeline.begun.pop()
                    yield await self._portion(partner, vehicle, begin, start, timeline.begun)
                    return
            if count == STAYS:
                last = timeline.begun.pop()
                yield await self._portion(partner, vehicle, begin, start, timeline.begun)
                begin, timeline.begun = start, [last]
        yield await self._portion(partner, vehicle, begin, None, timeline.begun)

    async def _facts(
        self, partner: int, vehicle: str, seq: int, begin: Start
    ) -> AsyncIterator[Fact]:
        """The facts of a vehicle from there on, in order, not all at once."""
        from_ms, waiting, limit = begin[0], [], PAGE
        while True:
            rows = await self._engine.scan(
                queries.EVENTS_OF_VEHICLE, partner, vehicle, from_ms, limit, seq
            )
            # Of the last instant there may be more, and they would have to be put in order.
            until = rows[-1][1] if len(rows) == limit else None
            waiting = [fact_in(row) for row in rows if until is None or row[1] < until]
            for fact in sorted(waiting):
                if fact.place[:3] >= begin:
                    yield fact
            if until is None:
                return
            limit = PAGE if waiting else 2 * limit
            from_ms = until

    async def _portion(
        self,
        partner: int,
        vehicle: str,
        begin: Start,
        end: Start | None,
        wanted: list[tuple[Stay, Before]],
    ) -> Portion:
        """What is not stored as it should of the stays that begin from `begin` to before `end`."""
        known: list[Row] = []
        while rows := await self._stored(partner, vehicle, begin, STAYS):
            known += (row for row in rows if end is None or _start(row) < end)
            if len(rows) < STAYS or (end is not None and _start(rows[-1]) >= end):
                break
            last = _start(rows[-1])
            begin = (*last[:2], last[2] + "\x01")  # no id has a smaller character
        return Portion(len(wanted), _compared(wanted, known))

    async def _stored(self, partner: int, vehicle: str, begin: Start, limit: int) -> list[Row]:
        return await self._engine.scan(queries.STAYS_FROM, partner, vehicle, *begin, limit)

    # Many vehicles at once ------------------------------------------------------------------------

    async def of_late(
        self, partner: int, seq: int, late: Sequence[Late]
    ) -> AsyncIterator[list[Change]]:
        """What changes with late events: as a rule two statements do for many vehicles."""
        for one in late:
            if one.events >= LATE_MOST:
                async for portion in self.of_vehicle(partner, one.vehicle, seq, one):
                    yield portion.changes
        for some in _grouped(one for one in late if one.events < LATE_MOST):
            bounds = await self._bounds(partner, some)
            wanted = numbered((one.vehicle, *bounds[one.vehicle][1:]) for one in some)
            contents = await self._engine.scan(
                queries.LATE_CONTENTS, partner, wanted, seq, LATE_MOST
            )
            late_of = {one.vehicle: one for one in some}
            for place, (vehicle, events, stays) in enumerate(contents):
                await let_others(place)
                one = late_of[vehicle]
                differing = _between(one, bounds[vehicle], facts_in(events), _rows(stays))
                if differing is None:
                    async for portion in self.of_vehicle(partner, vehicle, seq, one):
                        yield portion.changes
                else:
                    yield differing

    async def _bounds(self, partner: int, late: Iterable[Late]) -> dict[str, "_Bounds"]:
        """Of each vehicle where it is to be derived again."""
        late_of = {one.vehicle: one for one in late}
        places = ((one.vehicle, *one.first[:3], one.last.at_ms) for one in late)
        found = await self._engine.scan(queries.LATE_BOUNDS, partner, numbered(places))
        bounds = {}
        for vehicle, stay, until_ms in found:
            begin, before = _begin(late_of[vehicle], stay)
            bounds[vehicle] = _Bounds(before, *begin, END_OF_TIME if until_ms is None else until_ms)
        return bounds


def _grouped(late: Iterable[Late]) -> Iterator[list[Late]]:
    """Those which are looked at together."""
    group: list[Late] = []
    events = 0
    for one in late:
        if group and (len(group) == LATE_AT_ONCE or events + one.events > LATE_EVENTS):
            yield group
            group, events = [], 0
        group.append(one)
        events += one.events
    if group:
        yield group


class _Bounds(NamedTuple):
    """From where on a vehicle is derived again, what is known of before, and to where at least."""

    before: Before
    start_ms: int
    start_rank: int
    charger_id: str
    until_ms: int


def _between(
    late: Late, bounds: _Bounds, facts: list[Fact], known: list[Row]
) -> list[Change] | None:
    """What changes between the bounds; None if it goes on beyond them, or there is too much."""
    if LATE_MOST in (len(facts), len(known)):
        return None
    timeline = Timeline(before=bounds.before)
    stored = {_start(row): row for row in known}
    for fact in facts:
        if fact.place[:3] < bounds[1:4]:
            continue
        count = len(timeline.begun)
        timeline.take([fact])
        if len(timeline.begun) > count and fact.place > late.last:
            start = start_of(timeline.begun[-1][0])
            if start in stored and _is_again(timeline.begun[-1], stored[start]):
                timeline.begun.pop()
                return _compared(timeline.begun, [row for row in known if _start(row) < start])
    return _compared(timeline.begun, known) if bounds.until_ms == END_OF_TIME else None


def _compared(wanted: Iterable[tuple[Stay, Before]], known: Iterable[Row]) -> list[Change]:
    """What of the wanted stays is not stored just so, and what is stored beyond."""
    missing = {start_of(stay): (stay, before) for stay, before in wanted}
    changes = []
    for *row, version in known:
        found = missing.pop(_start(row), None)
        if found is None:
            changes.append(Change(*read_stay(f"[{row[-2]},{row[-1]}]"), live=False))
            continue
        should = row_of(Change(*found))
        if version is None or should[:-1] != tuple(row[:-1]):
            changes.append(Change(*found))
        elif should[-1] != row[-1]:
            changes.append(Change(*found, visible=False))
    return changes + [Change(*begun) for begun in missing.values()]


def _begin(late: Late, stored: str | None) -> tuple[Start, Before]:
    """The start of the stay on which the first event lies, and what that knows of before."""
    if stored is None:
        return late.first[:3], Before()
    stay, before = read_stay(stored)
    return start_of(stay), before


def _is_again(begun: tuple[Stay, Before], row: Row) -> bool:
    """Whether the stay begins as it is stored: then all that follows is as it is stored."""
    stay, before = begun
    return start_of(stay) == _start(row) and _text(before) == row[-2]


async def let_others(place: int) -> None:
    """Lets requests have their turn now and then: much is computed here without a pause."""
    if place % TURN == TURN - 1:
        await asyncio.sleep(0)


def fact_in(row: Row) -> Fact:
    """The fact of a row with an event's number, its instant and itself."""
    seq, at_ms, body = row
    return fact_of(seq, at_ms, from_json(Event, body))


def facts_in(text: str | None) -> list[Fact]:
    """The facts of a list of JSON arrays, in order."""
    return sorted(fact_of(*one) for one in _events.decode(f"[{text or ''}]"))


def _rows(text: str | None) -> list[Row]:
    """The columns of stays of a list of JSON arrays."""
    return [
        (*row, bytes(body).decode(), bytes(before).decode(), version)
        for *row, body, before, version in _stored.decode(f"[{text or ''}]")
    ]


_events = msgspec.json.Decoder(list[tuple[int, int, Event]])
_stored = msgspec.json.Decoder(
    list[
        tuple[
            str, int, int, str, str, int, int | None, int | None, int | None, int, int,
            msgspec.Raw, msgspec.Raw, int | None,
        ]
    ]
)  # fmt: skip


# As they are stored -------------------------------------------------------------------------------


def start_of(stay: Stay) -> Start:
    """What tells the stay from the vehicle's others, and orders them."""
    return stay.start_ms, stay.start_rank, stay.charger_id


def _start(row: Row) -> Start:
    _, start_ms, start_rank, charger_id, *_ = row
    return start_ms, start_rank, charger_id


def read_stay(text: str) -> tuple[Stay, Before]:
    """The stay, and what it knows of before, as they are stored."""
    return _stays.decode(text)


_stays = msgspec.json.Decoder(tuple[Stay, Before])
_encoder = msgspec.json.Encoder(decimal_format="number")


def _text(value: Stay | Before) -> str:
    return _encoder.encode(value).decode()


ID = 4
"""Where the id stands among the columns."""


def row_of(change: Change) -> Row:
    """The columns of a stay as they are stored, but for the partner."""
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
        stay.newest_here.at_ms if ended else None,
        stay.last.seq,
        stay.newest_here.seq,
        _text(stay),
        _text(change.before),
    )


def numbered(rows: Iterable[object]) -> str:
    """The JSON object of these arrays that statements take as a batch."""
    return _encoder.encode({str(place): row for place, row in enumerate(rows, 1)}).decode()
