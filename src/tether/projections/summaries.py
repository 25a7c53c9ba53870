"""Adds up sessions by parts of time and by groups, and their energy as a load curve.

Time is gone through from its first part on. What is in memory is the sessions that go on beyond the
part that is added up, and its groups; a page ends as soon as it is full.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from heapq import merge
from itertools import islice
from typing import Generic, NamedTuple, Protocol, TypeVar

from tether.domain.areas import area_of
from tether.domain.calendar import WHOLE, Bucket, Division
from tether.domain.filters import SessionFilter
from tether.domain.models import Charger, Vehicle, from_json
from tether.domain.session_views import StoredSession
from tether.domain.summary import Group, Keys, Measured, Sums, keys_of, measured_of
from tether.domain.timestamps import parse_instant
from tether.storage.entities import Entities
from tether.storage.plugged_in import PluggedIn, SessionKey
from tether.storage.session_sums import MOST_OTHERS as MOST_OF_PART
from tether.storage.session_sums import Part, PartSums, SessionSums
from tether.storage.sessions import SessionPosition, Sessions
from tether.storage.turns import Rest

AT_ONCE = 1_000  # sessions
PARTS = 50  # of time, that are added up at once
KEYS = 100  # of sessions, that are read at once
MOST_OTHERS = 20_000  # sessions of a page that the database does not add up
LAST_MS = parse_instant("9000-01-01T00:00:00Z")  # calendars end with the year 9999


class RowPosition(NamedTuple):
    """Where a row is: the beginning of its part of time, and its group."""

    from_ms: int
    key: str


class Total(Protocol):
    """What is added up."""

    def add(self, session: Measured, bucket: Bucket) -> None:
        """Takes in what the session has there."""


T = TypeVar("T", bound=Total)


class Row(NamedTuple, Generic[T]):
    """What a group has in a part of time."""

    bucket: Bucket
    key: str
    total: T

    @property
    def position(self) -> RowPosition:
        """Where it is."""
        return RowPosition(self.bucket.from_ms, self.key)


class SummaryPage(NamedTuple):
    """Rows; `stop` is the position behind them if more may follow."""

    rows: list[Row[Sums]]
    stop: RowPosition | None


class _Together:
    """The sums of some buckets that follow each other."""

    def __init__(self, buckets: list[Bucket]) -> None:
        self._buckets = buckets
        self._starts = [bucket.from_ms for bucket in buckets]
        self._sums = [Sums() for _ in buckets]
        self._used = [False] * len(buckets)
        self._rest = Rest()

    def add(self, place: int, part: PartSums) -> bool:
        """Takes in what began in the bucket of this place; whether something goes on behind all."""
        sums = self._sums[place]
        sums.count(part.sessions, part.vehicles, part.chargers)
        self._used[place] |= part.sessions > 0
        if not part.beyond:
            sums.add_whole(part.whole, part.power)
            return False
        pairs = zip(part.whole, part.beyond, strict=True)
        sums.add_whole([whole - beyond for whole, beyond in pairs], part.power)
        if place + 1 < len(self._sums):
            self._sums[place + 1].add_whole(part.beyond, part.power_beyond)
            self._used[place + 1] = True
            return False
        return True

    async def add_one(self, session: Measured) -> bool:
        """Takes in a session that was counted already; whether it goes on behind all."""
        place, last_ms = max(0, bisect_right(self._starts, session.start_ms) - 1), session.last_ms
        while place < len(self._buckets) and self._buckets[place].from_ms <= last_ms:
            self._sums[place].add_measures(session, self._buckets[place])
            self._used[place] = True
            place += 1
            await self._rest.if_long()
        return last_ms >= self._buckets[-1].to_ms

    def rows(self) -> list[Row[Sums]]:
        """Those of buckets in which something was."""
        found = zip(self._buckets, self._sums, self._used, strict=True)
        return [Row(bucket, "", sums) for bucket, sums, used in found if used]


class Summaries:
    """What sessions have together. Every method raises Unavailable."""

    def __init__(
        self, sessions: Sessions, entities: Entities, sums: SessionSums, plugged_in: PluggedIn
    ) -> None:
        self._sessions = sessions
        self._entities = entities
        self._sums = sums
        self._plugged_in = plugged_in

    async def page(
        self,
        partner: int,
        wanted: SessionFilter,
        division: Division,
        group: Group | None,
        *,
        after: RowPosition | None,
        limit: int,
    ) -> SummaryPage:
        """Up to `limit` rows behind a place, in the order of time and of groups."""
        if group is None and _is_simple(wanted):
            page = await self._together(partner, wanted, division, after, limit)
            if page is not None:
                return page
        part = WHOLE
        if after is not None:
            part = Bucket(after.from_ms, WHOLE.to_ms)
            wanted = _lasting(wanted, after.from_ms - 1)  # what charges at its very end, too
        found: list[Row[Sums]] = []
        sessions = self.measured(partner, wanted)
        async for row in swept(sessions, division, keys_of(group), Sums, part=part, after=after):
            if len(found) == limit:
                return SummaryPage(found, found[-1].position)
            found.append(row)
        return SummaryPage(found, None)

    async def _together(
        self,
        partner: int,
        wanted: SessionFilter,
        division: Division,
        after: RowPosition | None,
        limit: int,
    ) -> SummaryPage | None:
        """The same without groups, added up in the database; None if it leaves too much to us.

        A page is of so many buckets at most, so it may have fewer rows.
        """
        from_ms = 0 if wanted.from_ms is None else wanted.from_ms
        to_ms = WHOLE.to_ms if wanted.to_ms is None else wanted.to_ms
        begin_ms = 0 if after is None else division.bucket(after.from_ms).to_ms
        earlier = self._earlier(partner, wanted, begin_ms)
        # What had begun before lasts from the very beginning on; else time without any is skipped.
        carried = await anext(earlier, None)
        if carried is None:
            first_ms = await self._sums.first(partner, max(from_ms, begin_ms), to_ms)
            if first_ms is None:
                return SummaryPage([], None)
            begin_ms = first_ms
        buckets = await _buckets(division, begin_ms, limit)
        end_ms = buckets[-1].to_ms
        next_ms = division.bucket(end_ms).to_ms if end_ms < WHOLE.to_ms else end_ms
        parts = [
            Part(max(one.from_ms, from_ms), min(one.to_ms, to_ms), one.to_ms, following)
            for one, following in zip(
                buckets, [*(one.to_ms for one in buckets[1:]), next_ms], strict=True
            )
        ]
        sums, goes_on, others = _Together(buckets), False, 0
        for start in range(0, len(parts), PARTS):
            some = parts[start : start + PARTS]
            found = await self._sums.of_parts(partner, some, ended=wanted.active is False)
            keys = [key for one in found for key in one.others]
            others += len(keys)
            if others > MOST_OTHERS or any(len(one.others) > MOST_OF_PART for one in found):
                return None
            for place, one in enumerate(found, start=start):
                goes_on |= sums.add(place, one)
            for at in range(0, len(keys), KEYS):
                async for session in self._of_keys(partner, keys[at : at + KEYS]):
                    goes_on |= await sums.add_one(session)
        while carried is not None:
            goes_on |= await sums.add_one(carried)
            carried = await anext(earlier, None)
        more = goes_on or await self._sums.first(partner, max(from_ms, end_ms), to_ms) is not None
        return SummaryPage(sums.rows(), RowPosition(buckets[-1].from_ms, "") if more else None)

    async def _earlier(
        self, partner: int, wanted: SessionFilter, begin_ms: int
    ) -> AsyncIterator[Measured]:
        """The sessions that had begun before this instant and have something behind it."""
        if not begin_ms or begin_ms <= (wanted.from_ms or 0):
            return
        to_ms = begin_ms if wanted.to_ms is None else min(wanted.to_ms, begin_ms)
        async for session in self.measured(
            partner, _lasting(wanted._replace(to_ms=to_ms), begin_ms - 1)
        ):
            if session.last_ms >= begin_ms:
                yield session

    async def _of_keys(self, partner: int, keys: list[SessionKey]) -> AsyncIterator[Measured]:
        """Those of these sessions that still exist."""
        for record, vehicle, charger in await self._plugged_in.of_keys(partner, keys):
            yield measured_of(StoredSession(
                record.id, record, from_json(Vehicle, vehicle), from_json(Charger, charger), 0, 0
            ))  # fmt: skip

    async def chargers(
        self, partner: int, wanted: SessionFilter, group: Group | None
    ) -> Callable[[str], int]:
        """How many chargers each group has of those at which the wanted sessions can be."""
        if group is Group.CHARGER:
            return lambda _: 1
        ids = wanted.charger_ids
        if group is not Group.AREA:
            count = (
                len(await self._entities.get_many(Charger, partner, ids))
                if ids
                else await self._entities.count(Charger, partner)
            )
            return lambda _: count
        counts, rest = Counter[str](), Rest()
        async for body in self._bodies(partner, ids):
            counts[area_of(from_json(Charger, body)) or ""] += 1
            await rest.if_long()
        return counts.__getitem__

    async def _bodies(self, partner: int, ids: Sequence[str]) -> AsyncIterator[str]:
        """The JSON of these chargers, or of all."""
        if ids:
            for _, body in await self._entities.get_many(Charger, partner, ids):
                yield body
            return
        last = ""
        while page := await self._entities.page(Charger, partner, last, AT_ONCE):
            for last, body in page:  # noqa: B007
                yield body

    async def measured(self, partner: int, wanted: SessionFilter) -> AsyncIterator[Measured]:
        """The sessions in the order of their start."""
        after: SessionPosition | None = None
        while True:
            found, after = await self._sessions.page(partner, wanted, after, AT_ONCE)
            for known in found:
                yield measured_of(known)
            if after is None and len(found) < AT_ONCE:
                return
            if after is None:
                after = found[-1].record.start_ms, found[-1].id


async def _buckets(division: Division, begin_ms: int, limit: int) -> list[Bucket]:
    """So many buckets at most, from the one of this instant on."""
    found, rest = [division.bucket(begin_ms)], Rest()
    while len(found) < limit and found[-1].to_ms < LAST_MS:
        found.append(division.bucket(found[-1].to_ms))
        await rest.if_long()
    return found


def _is_simple(wanted: SessionFilter) -> bool:
    """Whether sessions are wanted by nothing but when they began, and by whether they ended."""
    return not wanted.active and SessionFilter() == wanted._replace(
        from_ms=None, to_ms=None, active=None
    )


def _lasting(wanted: SessionFilter, from_ms: int) -> SessionFilter:
    """Of these the ones that lasted after this instant."""
    given = wanted.overlapping_from_ms
    return wanted._replace(overlapping_from_ms=from_ms if given is None else max(given, from_ms))


class _Sweep(Generic[T]):
    """Goes through time, with sessions that are given in the order of their start."""

    def __init__(
        self,
        division: Division,
        keys: Keys,
        new: Callable[[], T],
        *,
        part: Bucket,
        after: RowPosition | None,
    ) -> None:
        self._division = division
        self._keys = keys
        self._new = new
        self._after = after
        self._end_ms = part.to_ms
        self._bucket = None if part == WHOLE else division.bucket(part.from_ms)
        self._groups: dict[str, T] = {}
        self._open: list[Measured] = []
        self._rest = Rest()

    async def before(self, at_ms: int | None) -> AsyncIterator[Row[T]]:
        """The rows of the parts of time that end before this instant, or of all."""
        while self._bucket is not None and (at_ms is None or at_ms >= self._bucket.to_ms):
            async for row in self._rows(self._bucket):
                yield row
            self._groups = {}
            goes_on = self._open and self._bucket.to_ms < self._end_ms
            bucket = self._bucket = self._division.bucket(self._bucket.to_ms) if goes_on else None
            if bucket is not None:
                going_on, self._open = self._open, []
                for session in going_on:
                    await self._take(session, bucket)

    async def add(self, session: Measured) -> None:
        """Takes in a session, which began after those that were taken in before."""
        if self._bucket is None:
            self._bucket = self._division.bucket(session.start_ms)
        await self._take(session, self._bucket)

    async def _take(self, session: Measured, bucket: Bucket) -> None:
        last_ms = session.last_ms
        if last_ms >= bucket.to_ms:
            self._open.append(session)
        if last_ms >= bucket.from_ms:
            for key in self._keys(session):
                if key not in self._groups:
                    self._groups[key] = self._new()
                self._groups[key].add(session, bucket)
        await self._rest.if_long()

    async def _rows(self, bucket: Bucket) -> AsyncIterator[Row[T]]:
        keys, runs = iter(self._groups), list[list[str]]()
        while run := sorted(islice(keys, AT_ONCE)):
            runs.append(run)
            await self._rest.if_long()
        for key in merge(*runs):
            row = Row(bucket, key, self._groups[key])
            if self._after is None or row.position > self._after:
                yield row
            await self._rest.if_long()


async def swept(
    sessions: AsyncIterator[Measured],
    division: Division,
    keys: Keys,
    new: Callable[[], T],
    *,
    part: Bucket,
    after: RowPosition | None,
) -> AsyncIterator[Row[T]]:
    """The rows behind a place, of a part of time, of sessions in the order of their start."""
    sweep = _Sweep(division, keys, new, part=part, after=after)
    async for session in sessions:
        async for row in sweep.before(session.start_ms):
            yield row
        await sweep.add(session)
    async for row in sweep.before(None):
        yield row
