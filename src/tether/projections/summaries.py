"""Adds up sessions by time and by group, for summaries and load curves.

It takes one bucket of time after the other. In memory are the groups of the bucket, and the
sessions that continue after it. A page ends when it is full.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from heapq import merge
from itertools import islice
from typing import Generic

from tether.domain.calendar import WHOLE, Bucket, Division
from tether.domain.filters import SessionFilter
from tether.domain.models import Charger
from tether.domain.summary import Group, Keys, Measured, Sums, keys_of, measured_of
from tether.projections.database_sums import DatabaseSums, areas_of, is_for_database
from tether.projections.rows import ALL_GROUPS, Page, Row, RowPosition, T
from tether.storage.entities import Entities
from tether.storage.plugged_in import PluggedIn
from tether.storage.session_sums import SessionSums
from tether.storage.sessions import SessionPosition, Sessions
from tether.storage.turns import TimeSlice

AT_ONCE = 1_000  # sessions


class Summaries:
    """Sums of sessions. Every method raises Unavailable."""

    def __init__(
        self, sessions: Sessions, entities: Entities, sums: SessionSums, plugged_in: PluggedIn
    ) -> None:
        self._sessions = sessions
        self._entities = entities
        self._by_database = DatabaseSums(sums, plugged_in, entities, self.measured)

    async def page(
        self,
        partner: int,
        wanted: SessionFilter,
        division: Division,
        group: Group | None,
        *,
        after: RowPosition | None,
        limit: int,
    ) -> Page[Sums]:
        """Up to `limit` rows after a position, in the order of time and of groups."""
        if is_for_database(wanted, group):
            page = await self._by_database.page(
                partner, wanted, division, group, after=after, limit=limit
            )
            if page is not None:
                return page
        part = WHOLE
        if after is not None and group is not None and after.key == ALL_GROUPS:
            after = RowPosition(division(after.from_ms).to_ms, "")
        if after is not None:
            part = Bucket(after.from_ms, WHOLE.to_ms)
            wanted = _lasting(wanted, after.from_ms - 1)  # includes a charge at the very end
        found: list[Row[Sums]] = []
        sessions = self.measured(partner, wanted)
        async for row in swept(sessions, division, keys_of(group), Sums, part=part, after=after):
            if len(found) == limit:
                return Page(found, found[-1].position)
            found.append(row)
        return Page(found, None)

    async def chargers(
        self, partner: int, wanted: SessionFilter, group: Group | None
    ) -> Callable[[str], int]:
        """How many chargers each group has, of the chargers that the filter names, or of all."""
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
        counts = Counter[str]()
        async for _, area in areas_of(self._entities, partner, ids):
            counts[area] += 1
        return counts.__getitem__

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


def _lasting(wanted: SessionFilter, from_ms: int) -> SessionFilter:
    """The filter, but only for sessions that lasted after this instant."""
    given = wanted.overlapping_from_ms
    return wanted._replace(overlapping_from_ms=from_ms if given is None else max(given, from_ms))


class _Sweep(Generic[T]):
    """Adds up one bucket after the other, from sessions in the order of their start."""

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
        self._bucket = None if part == WHOLE else division(part.from_ms)
        self._groups: dict[str, T] = {}
        self._open: list[Measured] = []
        self._time_slice = TimeSlice()

    async def before(self, at_ms: int | None) -> AsyncIterator[Row[T]]:
        """The rows of the buckets that end before this instant, or of all buckets."""
        while self._bucket is not None and (at_ms is None or at_ms >= self._bucket.to_ms):
            async for row in self._rows(self._bucket):
                yield row
            self._groups = {}
            more = self._open and self._bucket.to_ms < self._end_ms
            bucket = self._bucket = self._division(self._bucket.to_ms) if more else None
            if bucket is not None:
                continuing, self._open = self._open, []
                for session in continuing:
                    await self._take(session, bucket)

    async def add(self, session: Measured) -> None:
        """Adds a session, which began after the sessions before it."""
        if self._bucket is None:
            self._bucket = self._division(session.start_ms)
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
        await self._time_slice.yield_if_over()

    async def _rows(self, bucket: Bucket) -> AsyncIterator[Row[T]]:
        keys, runs = iter(self._groups), list[list[str]]()
        while run := sorted(islice(keys, AT_ONCE)):
            runs.append(run)
            await self._time_slice.yield_if_over()
        for key in merge(*runs):
            row = Row(bucket, key, self._groups[key])
            if self._after is None or row.position > self._after:
                yield row
            await self._time_slice.yield_if_over()


async def swept(
    sessions: AsyncIterator[Measured],
    division: Division,
    keys: Keys,
    new: Callable[[], T],
    *,
    part: Bucket,
    after: RowPosition | None,
) -> AsyncIterator[Row[T]]:
    """The rows of a part of time after a position. Sessions come in the order of their start."""
    sweep = _Sweep(division, keys, new, part=part, after=after)
    async for session in sessions:
        async for row in sweep.before(session.start_ms):
            yield row
        await sweep.add(session)
    async for row in sweep.before(None):
        yield row
