"""Sums of sessions by time and by group, added up by the database, except for a few sessions.

A page ends when it is full. It takes the groups in the order of their names, only as many at once
as may fill the page. So all pages together add up little more than a single page would.
"""

from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Sequence
from decimal import Decimal
from typing import NamedTuple

from tether.domain.calendar import LAST_MS, WHOLE, Bucket, Division
from tether.domain.filters import SessionFilter
from tether.domain.models import Charger, Vehicle, area_of, from_json
from tether.domain.session_views import StoredSession
from tether.domain.summary import (
    ALL_GROUPS,
    ENERGY_PLACES,
    TIME_PLACES,
    Charge,
    Group,
    MeasuredSession,
    Page,
    Row,
    RowPosition,
    Sums,
    measured_of,
)
from tether.storage.entities import Entities
from tether.storage.plugged_in import PluggedIn, SessionKey
from tether.storage.session_sums import MAX_OTHERS as MAX_OF_PART
from tether.storage.session_sums import (
    MAX_PAIRS,
    Grouping,
    GroupSums,
    OtherSession,
    Part,
    PartSums,
    SessionSums,
)
from tether.storage.turns import TimeSlice

PARTS = 50  # parts of time that are added up at once
KEYS = 100  # sessions that are read at once
NAMES = 4_000  # groups of a round
ROUNDS = 10  # rounds of groups or parts for a page
MAX_AREA_CHARGERS = 50_000  # if the groups are areas
MAX_OTHERS = 20_000  # sessions of a page that the database does not add up
CHARGERS = 1_000  # that are read at once

Reader = Callable[[int, SessionFilter], AsyncIterator[MeasuredSession]]


class _TooMuch(Exception):
    """The database leaves too much to us."""


class _GroupRange(NamedTuple):
    """The groups after a name, up to another; None: from the first, to the last.

    `areas` has the area of each charger, if the groups are areas.
    """

    after: str | None = None
    last: str | None = None
    areas: dict[str, str] | None = None

    def of(self, key: str) -> str:
        """The name of the group for a key of the database's sums."""
        return key if self.areas is None else self.areas.get(key, "")

    def has(self, name: str) -> bool:
        """Whether the name is in the range."""
        return (self.after is None or name > self.after) and (
            self.last is None or name <= self.last
        )


class _BucketSums:
    """The sums of consecutive buckets, by group. `continues`: a session continues after them."""

    def __init__(self, buckets: list[Bucket], groups: _GroupRange, group: Group | None) -> None:
        self.continues = False
        self._buckets = buckets
        self._groups = groups
        self._group = group
        self._counts_vehicles = group is not Group.AREA  # for an area the database returns them
        self._starts = [bucket.from_ms for bucket in buckets]
        self._sums: list[dict[str, Sums]] = [{} for _ in buckets]
        self._time_slice = TimeSlice()

    def _of(self, index: int, name: str) -> Sums:
        return self._sums[index].setdefault(name, Sums())

    async def add(self, index: int, part: PartSums) -> None:
        """Adds the sessions that began in this bucket."""
        for key, group in part.groups.items():
            name = self._groups.of(key)
            if group.sessions and self._groups.has(name):
                self._add(index, name, group)
        for charger_id, vehicle_id in part.pairs:
            if self._groups.has(name := self._groups.of(charger_id)):
                self._of(index, name).count_vehicle(vehicle_id)
            await self._time_slice.yield_if_over()

    def _add(self, index: int, name: str, group: GroupSums) -> None:
        sums, within = self._of(index, name), group.whole
        sums.count(group.sessions, group.vehicles if self._counts_vehicles else 0, group.chargers)
        if group.beyond:
            both = zip(group.whole, group.beyond, strict=True)
            within = [whole - beyond for whole, beyond in both]
            if index + 1 < len(self._sums):
                self._of(index + 1, name).add_whole(group.beyond, group.power_beyond)
            else:
                self.continues = True
        sums.add_whole(within, group.power)

    async def add_session(self, session: MeasuredSession) -> None:
        """Adds a session that is already counted."""
        if not self._groups.has(name := self._name_of(session)):
            return
        index, last_ms = max(0, bisect_right(self._starts, session.start_ms) - 1), session.last_ms
        while index < len(self._buckets) and self._buckets[index].from_ms <= last_ms:
            self._of(index, name).add_measures(session, self._buckets[index])
            index += 1
            await self._time_slice.yield_if_over()
        self.continues |= last_ms >= self._buckets[-1].to_ms

    def _name_of(self, session: MeasuredSession) -> str:
        if self._group is None:
            return ""
        is_vehicle = self._group is Group.VEHICLE
        return session.vehicle_id if is_vehicle else self._groups.of(session.charger_id)

    async def rows(self) -> list[Row[Sums]]:
        """The rows of all buckets and groups that have a session, in order."""
        found: list[Row[Sums]] = []
        for bucket, groups in zip(self._buckets, self._sums, strict=True):
            found += (Row(bucket, name, groups[name]) for name in sorted(groups))
            await self._time_slice.yield_if_over()
        return found


class SumsQuery(NamedTuple):
    """The query for a page. `areas` has the area of each charger, if the groups are areas."""

    partner: int
    wanted: SessionFilter
    division: Division
    group: Group | None
    areas: dict[str, str] | None = None


class _BucketRows(NamedTuple):
    """The rows of some buckets. No buckets: nothing follows. `more`: later buckets may follow."""

    rows: list[Row[Sums]]
    buckets: list[Bucket]
    more: bool = False


def is_for_database(wanted: SessionFilter, group: Group | None) -> bool:
    """Whether the database has all that the filter and the group need."""
    by_view = wanted.flag is not None or wanted.estimated is not None
    lasting = wanted.active or (wanted.ended_from_ms, wanted.overlapping_from_ms) != (None, None)
    return group is not Group.FLAG and not by_view and not lasting


async def areas_of(
    entities: Entities, partner: int, charger_ids: Sequence[str] = ()
) -> AsyncIterator[tuple[str, str]]:
    """The id and the area of each of these chargers, or of all; "" without a position."""
    time_slice, last = TimeSlice(), ""
    while True:
        if charger_ids:
            page = await entities.get_many(Charger, partner, charger_ids)
        else:
            page = await entities.page(Charger, partner, last, CHARGERS)
        for id, body in page:
            yield id, area_of(from_json(Charger, body)) or ""
            await time_slice.yield_if_over()
        if charger_ids or not page:
            return
        last = page[-1][0]


class DatabaseSums:
    """Pages of sums. Every method raises Unavailable."""

    def __init__(
        self, sums: SessionSums, plugged_in: PluggedIn, entities: Entities, measured: Reader
    ) -> None:
        self._sums = sums
        self._plugged_in = plugged_in
        self._entities = entities
        self._measured = measured

    async def page(
        self, query: SumsQuery, after: RowPosition | None, limit: int
    ) -> Page[Sums] | None:
        """Up to `limit` rows after a position, or fewer though more follow; None if the database
        leaves too many sessions to us.
        """
        if query.group is Group.AREA:
            areas: dict[str, str] = {}
            async for charger_id, area in areas_of(self._entities, query.partner):
                areas[charger_id] = area
                if len(areas) > MAX_AREA_CHARGERS:
                    return None
            query = query._replace(areas=areas)
        try:
            return await self._page(query, after, limit)
        except _TooMuch:
            return None

    async def _page(self, query: SumsQuery, after: RowPosition | None, limit: int) -> Page[Sums]:
        begin_ms, last_name = 0, None
        if after is not None:
            bucket = query.division(after.from_ms)
            begin_ms = bucket.to_ms
            if query.group is not None and after.key != ALL_GROUPS:
                begin_ms, last_name = bucket.from_ms, after.key
        rows, position = list[Row[Sums]](), after
        size, count = limit + 1, limit if query.group is None else 1
        for _ in range(ROUNDS):
            groups = await self._groups(query, last_name, size)
            is_range = last_name is not None or groups.last is not None
            found, buckets, more = await self._buckets(
                query, begin_ms, 1 if is_range else count, groups
            )
            rows += found
            if len(rows) > limit:
                return Page(rows[:limit], rows[limit - 1].position)
            if not buckets or not (more or groups.last is not None):
                return Page(rows, None)
            if groups.last is not None:
                begin_ms, last_name = buckets[0].from_ms, groups.last
                position = RowPosition(begin_ms, last_name)
            else:
                begin_ms, last_name = buckets[-1].to_ms, None
                position = RowPosition(buckets[-1].from_ms, ALL_GROUPS)
            if query.group is None:
                break
            size, count = min(2 * size, NAMES), min(2 * count, PARTS)
        return Page(rows, position)

    async def _groups(self, query: SumsQuery, after: str | None, size: int) -> _GroupRange:
        """The next groups after a name, whether they have sessions or not."""
        if query.group is None:
            return _GroupRange()
        of_vehicles = query.group is Group.VEHICLE
        given = query.wanted.vehicle_ids if of_vehicles else query.wanted.charger_ids
        if query.areas is not None:
            every = sorted(set(query.areas.values()))
            names = every[bisect_right(every, after) if after is not None else 0 :][:size]
        elif given:
            names = [id for id in sorted(given) if id > (after or "")][:size]
        else:
            kind = Vehicle if of_vehicles else Charger
            page = await self._entities.page(kind, query.partner, after or "", size)
            names = [id for id, _ in page]
        return _GroupRange(after, names[-1] if len(names) == size else None, query.areas)

    async def _buckets(
        self, query: SumsQuery, begin_ms: int, count: int, groups: _GroupRange
    ) -> _BucketRows:
        """The rows of up to `count` buckets from this instant on, or from the first session on."""
        partner, wanted = query.partner, query.wanted
        from_ms = 0 if wanted.from_ms is None else wanted.from_ms
        bounds = (wanted.to_ms, wanted.overlapping_to_ms, wanted.ended_to_ms, WHOLE.to_ms)
        to_ms = min(bound for bound in bounds if bound is not None)
        earlier = self._earlier(partner, wanted, begin_ms)
        # A session that has begun earlier is in the first bucket. Without one, skip empty time.
        carried = await anext(earlier, None)
        if carried is None and groups.after is None:
            first_ms = await self._sums.first(partner, max(from_ms, begin_ms), to_ms)
            if first_ms is None:
                return _BucketRows([], [])
            begin_ms = first_ms
        buckets = await buckets_from(query.division, begin_ms, count)
        end_ms = buckets[-1].to_ms
        next_ms = query.division(end_ms).to_ms if end_ms < WHOLE.to_ms else end_ms
        following = [*(bucket.to_ms for bucket in buckets[1:]), next_ms]
        parts = [
            Part(max(bucket.from_ms, from_ms), min(bucket.to_ms, to_ms), bucket.to_ms, then_ms)
            for bucket, then_ms in zip(buckets, following, strict=True)
        ]
        grouping = _grouping(query, groups)
        sums, others = _BucketSums(buckets, groups, query.group), 0
        for start in range(0, len(parts), PARTS):
            portion = parts[start : start + PARTS]
            found = await self._sums.of_parts(partner, portion, wanted, grouping)
            other = [session for part in found for session in part.others]
            keys = [session.key for session in other if session.charge_ms is None]
            others += len(keys)
            if others > MAX_OTHERS or any(
                len(part.others) > MAX_OF_PART or len(part.pairs) > MAX_PAIRS for part in found
            ):
                raise _TooMuch
            for index, part in enumerate(found, start=start):
                await sums.add(index, part)
            for session in filter(None, map(_measured_of, other)):
                await sums.add_session(session)
            for at in range(0, len(keys), KEYS):
                for session in await self._of_keys(partner, keys[at : at + KEYS]):
                    await sums.add_session(session)
        while carried is not None:
            await sums.add_session(carried)
            carried = await anext(earlier, None)
        later_ms = max(from_ms, end_ms)
        more = sums.continues or await self._sums.first(partner, later_ms, to_ms) is not None
        if not more and groups.after is not None and end_ms < WHOLE.to_ms:
            # A session of an earlier group may continue.
            more = await anext(self._earlier(partner, wanted, end_ms), None) is not None
        return _BucketRows(await sums.rows(), buckets, more)

    async def _earlier(
        self, partner: int, wanted: SessionFilter, begin_ms: int
    ) -> AsyncIterator[MeasuredSession]:
        """The sessions that began before this instant and continue after it."""
        if not begin_ms or begin_ms <= (wanted.from_ms or 0):
            return
        to_ms = begin_ms if wanted.to_ms is None else min(wanted.to_ms, begin_ms)
        # Includes a charge at the very end of a part.
        lasting = wanted._replace(to_ms=to_ms, overlapping_from_ms=begin_ms - 1)
        async for session in self._measured(partner, lasting):
            if session.last_ms >= begin_ms:
                yield session

    async def _of_keys(self, partner: int, keys: list[SessionKey]) -> list[MeasuredSession]:
        """The sessions with these keys that still exist."""
        return [
            measured_of(StoredSession(
                record.id, record, from_json(Vehicle, vehicle), from_json(Charger, charger), 0, 0
            ))
            for record, vehicle, charger in await self._plugged_in.of_keys(partner, keys)
        ]  # fmt: skip


def _measured_of(session: OtherSession) -> MeasuredSession | None:
    """The session in numbers; None if its columns do not tell them."""
    begin_ms, stop_ms, end_ms = session.charge_ms, session.stop_ms, session.end_ms
    if begin_ms is None or stop_ms is None or end_ms is None:
        return None
    charge = Charge(
        begin_ms,
        stop_ms,
        None if session.unmeasured else Decimal(session.energy or 0).scaleb(-ENERGY_PLACES),
        Decimal(session.charged or 0).scaleb(-TIME_PLACES),
        bool(session.estimated),
        None if session.power is None else Decimal(session.power).scaleb(-ENERGY_PLACES),
    )
    charger = Charger(id=session.charger_id)
    return MeasuredSession(
        session.vehicle_id, session.charger_id, charger, (), session.start_ms, end_ms, [charge]
    )


def _grouping(query: SumsQuery, groups: _GroupRange) -> Grouping:
    if query.group is None:
        return Grouping()
    if query.group is Group.AREA:
        return Grouping("charger_id", pairs=True)
    of_chargers = query.group is Group.CHARGER
    return Grouping("charger_id" if of_chargers else "vehicle_id", groups.after, groups.last)


async def buckets_from(
    division: Division, begin_ms: int, limit: int, end_ms: int = LAST_MS
) -> list[Bucket]:
    """Up to `limit` buckets, from the one that contains `begin_ms` to the one before `end_ms`."""
    found, time_slice = [division(begin_ms)], TimeSlice()
    while len(found) < limit and found[-1].to_ms < end_ms:
        found.append(division(found[-1].to_ms))
        await time_slice.yield_if_over()
    return found
