"""Adds up sessions by time and by group, for summaries and load curves.

It takes one bucket of time after the other. In memory are the groups of the bucket and the sessions
that continue after it. A page ends when it is full, or after many sessions.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from heapq import merge
from itertools import islice

from tether.domain.calendar import WHOLE, Bucket, Division
from tether.domain.filters import SessionFilter
from tether.domain.models import Charger
from tether.domain.summary import (
    ALL_GROUPS,
    Group,
    Keys,
    MeasuredSession,
    Page,
    Row,
    RowPosition,
    Sums,
    T,
    keys_of,
    measured_of,
)
from tether.projections.database_sums import DatabaseSums, SumsQuery, areas_of, is_for_database
from tether.storage.entities import Entities
from tether.storage.plugged_in import PluggedIn
from tether.storage.session_sums import SessionSums
from tether.storage.sessions import SessionPosition, Sessions
from tether.storage.turns import TimeSlice

AT_ONCE = 1_000  # sessions
MAX_READ = 5_000  # sessions for a page: a client waits for some seconds only


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
            query = SumsQuery(partner, wanted, division, group)
            page = await self._by_database.page(query, after, limit)
            if page is not None:
                return page
        part = WHOLE
        if after is not None:
            begin_ms = after.from_ms
            if after.key == ALL_GROUPS:
                begin_ms, after = division(begin_ms).to_ms, None
            part = Bucket(begin_ms, WHOLE.to_ms)
            wanted = _lasting(wanted, begin_ms - 1)  # includes a charge at the very end
        return await summed_page(
            self.measured(partner, wanted), division, keys_of(group), Sums,
            part=part, after=after, limit=limit,
        )  # fmt: skip

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

    async def measured(self, partner: int, wanted: SessionFilter) -> AsyncIterator[MeasuredSession]:
        """The sessions in the order of their start."""
        after: SessionPosition | None = None
        while True:
            found, after = await self._sessions.page(partner, wanted, after, AT_ONCE)
            for known in found:
                yield measured_of(known)
            if after is None:
                return


def _lasting(wanted: SessionFilter, from_ms: int) -> SessionFilter:
    """The filter, but only for sessions that lasted after this instant."""
    given = wanted.overlapping_from_ms
    return wanted._replace(overlapping_from_ms=from_ms if given is None else max(given, from_ms))


async def summed_page(
    sessions: AsyncIterator[MeasuredSession],
    division: Division,
    keys: Keys,
    new: Callable[[], T],
    *,
    part: Bucket,
    after: RowPosition | None,
    limit: int,
) -> Page[T]:
    """Up to `limit` rows of a part of time after a position. Sessions come in the order of their
    start. The page ends sooner, after a bucket, if it has read many sessions.
    """
    found: list[Row[T]] = []
    bucket = None if part == WHOLE else division(part.from_ms)
    groups: dict[str, T] = {}
    continuing: list[MeasuredSession] = []  # sessions that continue after the bucket
    read, time_slice = 0, TimeSlice()

    async def add(session: MeasuredSession, bucket: Bucket) -> None:
        last_ms = session.last_ms
        if last_ms >= bucket.to_ms:
            continuing.append(session)
        if last_ms >= bucket.from_ms:
            for key in keys(session):
                if key not in groups:
                    groups[key] = new()
                groups[key].add(session, bucket)
        await time_slice.yield_if_over()

    async for session in _with_end(sessions):
        while bucket is not None and (session is None or session.start_ms >= bucket.to_ms):
            async for key in _in_order(groups):
                row = Row(bucket, key, groups[key])
                if after is None or row.position > after:
                    if len(found) == limit:
                        return Page(found, found[-1].position)
                    found.append(row)
            if found and read > MAX_READ:
                return Page(found, RowPosition(bucket.from_ms, ALL_GROUPS))
            groups.clear()
            more = continuing and bucket.to_ms < part.to_ms
            bucket = division(bucket.to_ms) if more else None
            if bucket is not None:
                begun = continuing.copy()
                continuing.clear()
                for earlier in begun:
                    await add(earlier, bucket)
        if session is not None:
            read += 1
            bucket = bucket or division(session.start_ms)
            await add(session, bucket)
    return Page(found, None)


async def _with_end(
    sessions: AsyncIterator[MeasuredSession],
) -> AsyncIterator[MeasuredSession | None]:
    """The sessions, and None at the end."""
    async for session in sessions:
        yield session
    yield None


async def _in_order(groups: Iterable[str]) -> AsyncIterator[str]:
    """The names in their order, sorted a few at a time: there may be very many."""
    names, runs, time_slice = iter(groups), list[list[str]](), TimeSlice()
    while run := sorted(islice(names, AT_ONCE)):
        runs.append(run)
        await time_slice.yield_if_over()
    for name in merge(*runs):
        yield name
        await time_slice.yield_if_over()
