"""The energy of charges over time: as it came by the readings of their power, where there are any.

A page is of some steps. What is read is the sessions that lasted then, and their events.
"""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from tether.domain.calendar import Bucket, Division
from tether.domain.filters import SessionFilter
from tether.domain.load_curve import Profile
from tether.domain.session_record import STARTED, UPDATED, OrderedEvent
from tether.domain.summary import Keys, Load, Measured
from tether.projections.rows import BEHIND, Row, RowPosition
from tether.projections.summaries import Summaries, swept
from tether.storage.events import Events
from tether.storage.plugged_in import EventsWanted, PluggedIn
from tether.storage.session_records import ordered_events_in
from tether.storage.turns import Rest

SESSIONS = 100  # whose events are read at once
EVENTS = 50  # of each charge: those of one with more are read by themselves
READINGS = 1_000  # events of such a charge


class Window(NamedTuple):
    """The part of time that is asked for, in steps of which the first and the last may be cut."""

    from_ms: int
    to_ms: int
    division: Division

    def bucket(self, at_ms: int) -> Bucket:
        """The step that has this instant, or what follows the last one."""
        from_ms, to_ms = self.division.bucket(at_ms)
        if at_ms >= self.to_ms:
            return Bucket(max(from_ms, self.to_ms), to_ms)
        return Bucket(max(from_ms, self.from_ms), min(to_ms, self.to_ms))


class CurvePage(NamedTuple):
    """Rows; `stop` is the place behind them if more may follow."""

    rows: list[Row[Load]]
    stop: RowPosition | None


class LoadCurves:
    """What was charged when. Every method raises Unavailable."""

    def __init__(self, summaries: Summaries, plugged_in: PluggedIn, events: Events) -> None:
        self._summaries = summaries
        self._plugged_in = plugged_in
        self._of_vehicles = events

    async def page(
        self,
        partner: int,
        wanted: SessionFilter,
        window: Window,
        keys: Keys | None,
        *,
        after: RowPosition | None,
        limit: int,
    ) -> CurvePage:
        """Up to `limit` rows behind a place, in the order of time and of groups.

        Without keys all steps of the window, with them those of groups that had a vehicle plugged
        in. A page has as many steps at most, so it may have fewer rows, or none.
        """
        steps = await _steps(window, after, limit)
        if not steps:
            return CurvePage([], None)
        begin_ms, end_ms = steps[0].from_ms, steps[-1].to_ms
        lasting = wanted._replace(overlapping_from_ms=begin_ms - 1, overlapping_to_ms=end_ms)
        sessions = self._with_curves(partner, lasting, (*(step.from_ms for step in steps), end_ms))
        rows: list[Row[Load]] = []
        part = Bucket(begin_ms, end_ms)
        behind = after if keys else None  # without keys the steps tell
        async for row in swept(sessions, window, keys or _together, Load, part=part, after=behind):
            if len(rows) == limit:  # only with keys
                return CurvePage(rows, rows[-1].position)
            rows.append(row)
        if keys is None:
            known = {row.bucket: row for row in rows}
            rows = [known.get(step) or Row(step, "", Load()) for step in steps]
        stop = None if end_ms == window.to_ms else RowPosition(steps[-1].from_ms, BEHIND)
        return CurvePage(rows, stop)

    async def _with_curves(
        self, partner: int, wanted: SessionFilter, bounds: Sequence[int]
    ) -> AsyncIterator[Measured]:
        """The sessions, and how the energy of their charges came."""
        some: list[Measured] = []
        async for session in self._summaries.measured(partner, wanted):
            some.append(session)
            if len(some) == SESSIONS:
                for one in await self._read(partner, some, bounds):
                    yield one
                some = []
        for one in await self._read(partner, some, bounds):
            yield one

    async def _read(
        self, partner: int, sessions: Sequence[Measured], bounds: Sequence[int]
    ) -> list[Measured]:
        window = Bucket(bounds[0], bounds[-1])
        charges = [list(session.charges) for session in sessions]
        places = [
            (number, place)
            for number, some in enumerate(charges)
            if any(charge.power is not None for charge in some)
            for place, charge in enumerate(some)
            if charge.energy and charge.touches(window)
        ]
        for start in range(0, len(places), SESSIONS):
            some = places[start : start + SESSIONS]
            wanted: list[EventsWanted] = []
            for number, place in some:
                session, charge = sessions[number], charges[number][place]
                ids = session.vehicle_id, session.charger_id
                wanted.append(EventsWanted(len(wanted), *ids, charge.start_ms, charge.end_ms))
            profiles = [Profile(charges[number][place], bounds) for number, place in some]
            await self._profile(partner, wanted, profiles)
            for (number, place), profile in zip(some, profiles, strict=True):
                charge = charges[number][place]
                charges[number][place] = charge._replace(curve=profile.curve())
        return [
            session._replace(charges=some) for session, some in zip(sessions, charges, strict=True)
        ]

    async def _profile(
        self, partner: int, wanted: Sequence[EventsWanted], profiles: Sequence[Profile]
    ) -> None:
        """Has the profiles read the events of these charges; many of one charge in portions."""
        rest = Rest()
        for one, text in await self._plugged_in.events(partner, wanted, EVENTS):
            events = ordered_events_in(text)
            if len(events) < EVENTS:
                _tell(profiles[one.number], one, events)
            else:
                async for some in self._of_vehicles.portions_of_vehicle(
                    partner, one.vehicle_id, one.from_ms, READINGS, until_ms=one.until_ms
                ):
                    _tell(profiles[one.number], one, some)
                    await rest.if_long()
            await rest.if_long()


def _together(_: Measured) -> Sequence[str]:
    return ("",)


async def _steps(window: Window, after: RowPosition | None, limit: int) -> list[Bucket]:
    """The steps of a page: they begin with that of the place, or the next if it is done."""
    at_ms = window.from_ms
    if after is not None:
        step = window.bucket(max(at_ms, after.from_ms))
        at_ms = step.to_ms if after.key == BEHIND else step.from_ms
    steps, rest = list[Bucket](), Rest()
    while at_ms < window.to_ms and len(steps) < limit:
        steps.append(window.bucket(at_ms))
        at_ms = steps[-1].to_ms
        await rest.if_long()
    return steps


def _tell(profile: Profile, wanted: EventsWanted, events: Sequence[OrderedEvent]) -> None:
    for position, event in sorted(events):
        power = event.charge_power
        if power is None or position.charger_id != wanted.charger_id:
            continue
        # A start at the instant of the stop is that of the next charge.
        is_next = position.rank == STARTED and position.at_ms == wanted.until_ms
        if position.rank in (STARTED, UPDATED) and not is_next:
            profile.read(position.at_ms, power)
