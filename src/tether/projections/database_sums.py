"""Sums of sessions that the database makes, of parts of time and of groups; it leaves us a few.

A page ends as soon as it is full. Groups are gone through in the order of their names, as many at a
time as may fill it, so that all pages together add up hardly more than one page of everything.
"""

from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Literal, NamedTuple

from tether.domain.areas import area_of
from tether.domain.calendar import WHOLE, Bucket, Division
from tether.domain.filters import SessionFilter
from tether.domain.models import Charger, Vehicle, from_json
from tether.domain.session_views import StoredSession
from tether.domain.summary import Group, Measured, Sums, keys_of, measured_of
from tether.domain.timestamps import parse_instant
from tether.projections.rows import BEHIND, Row, RowPosition, SummaryPage
from tether.storage.entities import Entities
from tether.storage.plugged_in import PluggedIn, SessionKey
from tether.storage.session_sums import MOST_OTHERS as MOST_OF_PART
from tether.storage.session_sums import (
    MOST_PAIRS,
    GroupSums,
    Part,
    PartSums,
    Selection,
    SessionSums,
)
from tether.storage.turns import Rest

PARTS = 50  # of time, that are added up at once
KEYS = 100  # of sessions, that are read at once
NAMES = 4_000  # of groups, that are looked at once
ROUNDS = 10  # of names or parts, for a page
MOST_AREAS = 50_000  # chargers that are told by where they stand
MOST_OTHERS = 20_000  # sessions of a page that the database does not add up
LAST_MS = parse_instant("9000-01-01T00:00:00Z")  # calendars end with the year 9999

Reader = Callable[[int, SessionFilter], AsyncIterator[Measured]]


class _TooMuch(Exception):
    """The database leaves too much to us."""


class _Names(NamedTuple):
    """Some of the groups: those behind a name, up to another; None: from the first, to the last.

    `areas` says where each charger stands, where the groups are areas.
    """

    after: str | None = None
    last: str | None = None
    areas: dict[str, str] | None = None

    def of(self, key: str) -> str:
        """The name of the group of what the database adds up by that."""
        return key if self.areas is None else self.areas.get(key, "")

    def have(self, name: str) -> bool:
        """Whether the name is among them."""
        return (self.after is None or name > self.after) and (
            self.last is None or name <= self.last
        )


class _Together:
    """The sums of some buckets that follow each other, by group."""

    def __init__(self, buckets: list[Bucket], *, counted: bool) -> None:
        """`counted`: the vehicles of a group are, else they are named."""
        self._buckets = buckets
        self._counted = counted
        self._starts = [bucket.from_ms for bucket in buckets]
        self._sums: list[dict[str, Sums]] = [{} for _ in buckets]
        self._rest = Rest()

    def _of(self, place: int, name: str) -> Sums:
        return self._sums[place].setdefault(name, Sums())

    async def add(self, place: int, part: PartSums, names: "_Names") -> bool:
        """Takes in what began in the bucket of this place; whether something goes on behind all."""
        goes_on = False
        for key, one in part.groups.items():
            name = names.of(key)
            if one.sessions and names.have(name):
                goes_on |= self._add(place, name, one)
        for charger_id, vehicle_id in part.pairs:
            if names.have(name := names.of(charger_id)):
                self._of(place, name).count_vehicle(vehicle_id)
            await self._rest.if_long()
        return goes_on

    def _add(self, place: int, name: str, one: GroupSums) -> bool:
        sums = self._of(place, name)
        sums.count(one.sessions, one.vehicles if self._counted else 0, one.chargers)
        if not one.beyond:
            sums.add_whole(one.whole, one.power)
            return False
        pairs = zip(one.whole, one.beyond, strict=True)
        sums.add_whole([whole - beyond for whole, beyond in pairs], one.power)
        if place + 1 < len(self._sums):
            self._of(place + 1, name).add_whole(one.beyond, one.power_beyond)
            return False
        return True

    async def add_one(self, session: Measured, names: Sequence[str]) -> bool:
        """Takes in a session that was counted already; whether it goes on behind all."""
        place, last_ms = max(0, bisect_right(self._starts, session.start_ms) - 1), session.last_ms
        while place < len(self._buckets) and self._buckets[place].from_ms <= last_ms:
            for name in names:
                self._of(place, name).add_measures(session, self._buckets[place])
            place += 1
            await self._rest.if_long()
        return bool(names) and last_ms >= self._buckets[-1].to_ms

    async def rows(self) -> list[Row[Sums]]:
        """Those of buckets and groups in which something was, in order."""
        found: list[Row[Sums]] = []
        for bucket, groups in zip(self._buckets, self._sums, strict=True):
            found += (Row(bucket, name, groups[name]) for name in sorted(groups))
            await self._rest.if_long()
        return found


class _Query(NamedTuple):
    """What is asked for; `areas` says where each charger stands, where groups are areas."""

    partner: int
    wanted: SessionFilter
    division: Division
    group: Group | None
    areas: dict[str, str] | None = None


class _Some(NamedTuple):
    """Rows of some buckets, of which none follow if there are none; `more` may follow behind."""

    rows: list[Row[Sums]]
    buckets: list[Bucket]
    more: bool = False


def is_for_database(wanted: SessionFilter, group: Group | None) -> bool:
    """Whether what is asked for depends on nothing but what the database can look at."""
    told_later = wanted.flag is not None or wanted.estimated is not None
    lasting = wanted.active or (wanted.ended_from_ms, wanted.overlapping_from_ms) != (None, None)
    return group is not Group.FLAG and not told_later and not lasting


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
        self,
        partner: int,
        wanted: SessionFilter,
        division: Division,
        group: Group | None,
        *,
        after: RowPosition | None,
        limit: int,
    ) -> SummaryPage | None:
        """Up to `limit` rows behind a place, or fewer though more follow; None if it leaves too
        much to us.
        """
        areas = await self._areas(partner) if group is Group.AREA else None
        if areas is not None and len(areas) > MOST_AREAS:
            return None
        try:
            return await self._page(_Query(partner, wanted, division, group, areas), after, limit)
        except _TooMuch:
            return None

    async def _areas(self, partner: int) -> dict[str, str]:
        """Where each charger stands, of MOST_AREAS and some more."""
        found, last, rest = dict[str, str](), "", Rest()
        while len(found) <= MOST_AREAS and (
            page := await self._entities.page(Charger, partner, last, 1_000)
        ):
            for id, body in page:
                found[id] = area_of(from_json(Charger, body)) or ""
                await rest.if_long()
            last = page[-1][0]
        return found

    async def _page(self, query: _Query, after: RowPosition | None, limit: int) -> SummaryPage:
        behind: str | None = None
        begin_ms = 0
        if after is not None:
            bucket = query.division.bucket(after.from_ms)
            begin_ms = bucket.to_ms
            if query.group is not None and after.key != BEHIND:
                begin_ms, behind = bucket.from_ms, after.key
        rows, place = list[Row[Sums]](), after
        size, count = limit + 1, limit if query.group is None else 1
        for _ in range(ROUNDS):
            names = await self._names(query, behind, size)
            one = behind is not None or names.last is not None
            found, buckets, more = await self._some(query, begin_ms, 1 if one else count, names)
            rows += found
            if len(rows) > limit:
                return SummaryPage(rows[:limit], rows[limit - 1].position)
            if not buckets or not (more or names.last is not None):
                return SummaryPage(rows, None)
            if names.last is not None:
                begin_ms, behind = buckets[0].from_ms, names.last
                place = RowPosition(begin_ms, behind)
            else:
                begin_ms, behind = buckets[-1].to_ms, None
                place = RowPosition(buckets[-1].from_ms, BEHIND)
            if query.group is None:
                break
            size, count = min(2 * size, NAMES), min(2 * count, PARTS)
        return SummaryPage(rows, place)

    async def _names(self, query: _Query, behind: str | None, size: int) -> _Names:
        """So many groups behind a name, whether they have sessions or not."""
        if query.group is None:
            return _Names()
        given = query.wanted.charger_ids
        if query.areas is not None:
            every = sorted(set(query.areas.values()))
            found = every[bisect_right(every, behind) if behind is not None else 0 :][:size]
            return _Names(behind, found[-1] if len(found) == size else None, query.areas)
        if query.group is Group.VEHICLE:
            given = query.wanted.vehicle_ids
        if given:
            found = [id for id in sorted(given) if id > (behind or "")][:size]
            return _Names(behind, found[-1] if len(found) == size else None)
        kind = Charger if query.group is Group.CHARGER else Vehicle
        page = await self._entities.page(kind, query.partner, behind or "", size)
        return _Names(behind, page[-1][0] if len(page) == size else None)

    async def _some(self, query: _Query, begin_ms: int, count: int, names: _Names) -> _Some:
        """The rows of so many buckets from this instant on, or from the first that has any."""
        partner, wanted, keys = query.partner, query.wanted, keys_of(query.group)
        from_ms = 0 if wanted.from_ms is None else wanted.from_ms
        bounds = (wanted.to_ms, wanted.overlapping_to_ms, wanted.ended_to_ms, WHOLE.to_ms)
        to_ms = min(bound for bound in bounds if bound is not None)
        earlier = self._earlier(partner, wanted, begin_ms)
        # What had begun before lasts from the very beginning on; else time without any is skipped.
        carried = await anext(earlier, None)
        if carried is None and names.after is None:
            first_ms = await self._sums.first(partner, max(from_ms, begin_ms), to_ms)
            if first_ms is None:
                return _Some([], [])
            begin_ms = first_ms
        buckets = await _buckets(query.division, begin_ms, count)
        end_ms = buckets[-1].to_ms
        next_ms = query.division.bucket(end_ms).to_ms if end_ms < WHOLE.to_ms else end_ms
        following = [*(one.to_ms for one in buckets[1:]), next_ms]
        parts = [
            Part(max(one.from_ms, from_ms), min(one.to_ms, to_ms), one.to_ms, then_ms)
            for one, then_ms in zip(buckets, following, strict=True)
        ]
        selection = _selection(query, names)
        sums = _Together(buckets, counted=not selection.pairs)
        goes_on, others = False, 0

        def named(session: Measured) -> list[str]:
            return [name for name in keys(session) if names.have(name)]

        for start in range(0, len(parts), PARTS):
            found = await self._sums.of_parts(partner, parts[start : start + PARTS], selection)
            known = [key for one in found for key in one.others]
            others += len(known)
            if others > MOST_OTHERS or any(
                len(one.others) > MOST_OF_PART or len(one.pairs) > MOST_PAIRS for one in found
            ):
                raise _TooMuch
            for place, one in enumerate(found, start=start):
                goes_on |= await sums.add(place, one, names)
            for at in range(0, len(known), KEYS):
                for session in await self._of_keys(partner, known[at : at + KEYS]):
                    goes_on |= await sums.add_one(session, named(session))
        while carried is not None:
            goes_on |= await sums.add_one(carried, named(carried))
            carried = await anext(earlier, None)
        more = goes_on or await self._sums.first(partner, max(from_ms, end_ms), to_ms) is not None
        if not more and names.after is not None and end_ms < WHOLE.to_ms:
            # What goes on may be of a group before these.
            more = await anext(self._earlier(partner, wanted, end_ms), None) is not None
        return _Some(await sums.rows(), buckets, more)

    async def _earlier(
        self, partner: int, wanted: SessionFilter, begin_ms: int
    ) -> AsyncIterator[Measured]:
        """The sessions that had begun before this instant and have something behind it."""
        if not begin_ms or begin_ms <= (wanted.from_ms or 0):
            return
        to_ms = begin_ms if wanted.to_ms is None else min(wanted.to_ms, begin_ms)
        # What charges at the very end of a part, too.
        lasting = wanted._replace(to_ms=to_ms, overlapping_from_ms=begin_ms - 1)
        async for session in self._measured(partner, lasting):
            if session.last_ms >= begin_ms:
                yield session

    async def _of_keys(self, partner: int, keys: list[SessionKey]) -> list[Measured]:
        """Those of these sessions that still exist."""
        return [
            measured_of(StoredSession(
                record.id, record, from_json(Vehicle, vehicle), from_json(Charger, charger), 0, 0
            ))
            for record, vehicle, charger in await self._plugged_in.of_keys(partner, keys)
        ]  # fmt: skip


def _selection(query: _Query, names: _Names) -> Selection:
    wanted = query.wanted
    chosen = Selection(
        charger_ids=wanted.charger_ids,
        vehicle_ids=wanted.vehicle_ids,
        ended=wanted.active is False,
        ended_to_ms=wanted.ended_to_ms,
    )
    if query.group is None:
        return chosen
    if query.group is Group.AREA:
        return chosen._replace(by="charger_id", pairs=True)
    by: Literal["charger_id", "vehicle_id"]
    by = "charger_id" if query.group is Group.CHARGER else "vehicle_id"
    return chosen._replace(by=by, after=names.after, last=names.last)


async def _buckets(division: Division, begin_ms: int, limit: int) -> list[Bucket]:
    """So many buckets at most, from the one of this instant on."""
    found, rest = [division.bucket(begin_ms)], Rest()
    while len(found) < limit and found[-1].to_ms < LAST_MS:
        found.append(division.bucket(found[-1].to_ms))
        await rest.if_long()
    return found
