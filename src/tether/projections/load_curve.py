"""Load curves: the energy of charges over time, by the readings of their power if there are any.

A page has some steps of time. It reads the sessions of that time, and their events.
"""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from tether.domain.calendar import Bucket, Division
from tether.domain.filters import SessionFilter
from tether.domain.load_curve import Load, Profile
from tether.domain.session_record import STARTED, UPDATED, OrderedEvent
from tether.domain.summary import ALL_GROUPS, Keys, MeasuredSession, Page, Row, RowPosition, keys_of
from tether.projections.database_sums import buckets_from
from tether.projections.summaries import Summaries, summed_page
from tether.storage.plugged_in import EventsWanted, PluggedIn

SESSIONS = 100  # their curves are in memory together


class Window(NamedTuple):
    """A part of time in steps. It may cut the first and the last step."""

    from_ms: int
    to_ms: int
    division: Division

    def bucket(self, at_ms: int) -> Bucket:
        """The step of this instant, or the time after the last step."""
        from_ms, to_ms = self.division(at_ms)
        if at_ms >= self.to_ms:
            return Bucket(max(from_ms, self.to_ms), to_ms)
        return Bucket(max(from_ms, self.from_ms), min(to_ms, self.to_ms))


class LoadCurves:
    """Load curves. Every method raises Unavailable."""

    def __init__(self, summaries: Summaries, plugged_in: PluggedIn) -> None:
        self._summaries = summaries
        self._plugged_in = plugged_in

    async def page(
        self,
        partner: int,
        wanted: SessionFilter,
        window: Window,
        keys: Keys | None,
        *,
        after: RowPosition | None,
        limit: int,
    ) -> Page[Load]:
        """Up to `limit` rows after a position, in the order of time and of groups.

        Without keys there is a row for each step of the window. With keys there is a row for each
        step and group with a plugged-in vehicle. A page has at most `limit` steps, so it may have
        fewer rows, or none.
        """
        steps = await _steps(window, after, limit)
        if not steps:
            return Page([], None)
        begin_ms, end_ms = steps[0].from_ms, steps[-1].to_ms
        lasting = wanted._replace(overlapping_from_ms=begin_ms - 1, overlapping_to_ms=end_ms)
        sessions = self._with_curves(partner, lasting, (*(step.from_ms for step in steps), end_ms))
        last = after if keys else None  # without keys the steps begin after it
        rows, stop = await summed_page(
            sessions, window.bucket, keys or keys_of(None), Load,
            part=Bucket(begin_ms, end_ms), after=last, limit=limit,
        )  # fmt: skip
        if keys is None:
            known = {row.bucket: row for row in rows}
            rows = [
                known.get(step) or Row(step, "", Load())
                for step in steps if stop is None or step.from_ms <= stop.from_ms
            ]  # fmt: skip
        if stop is None and end_ms < window.to_ms:
            stop = RowPosition(steps[-1].from_ms, ALL_GROUPS)
        return Page(rows, stop)

    async def _with_curves(
        self, partner: int, wanted: SessionFilter, bounds: Sequence[int]
    ) -> AsyncIterator[MeasuredSession]:
        """The sessions, with the curves of their charges."""
        batch: list[MeasuredSession] = []
        async for session in self._summaries.measured(partner, wanted):
            batch.append(session)
            if len(batch) == SESSIONS:
                for measured in await self._add_curves(partner, batch, bounds):
                    yield measured
                batch = []
        for measured in await self._add_curves(partner, batch, bounds):
            yield measured

    async def _add_curves(
        self, partner: int, sessions: Sequence[MeasuredSession], bounds: Sequence[int]
    ) -> list[MeasuredSession]:
        window = Bucket(bounds[0], bounds[-1])
        charges = [list(session.charges) for session in sessions]
        measured = [
            (session, own, index)
            for session, own in zip(sessions, charges, strict=True)
            if any(charge.power is not None for charge in own)
            for index, charge in enumerate(own)
            if charge.energy and charge.touches(window)
        ]
        for start in range(0, len(measured), SESSIONS):
            batch = measured[start : start + SESSIONS]
            wanted, profiles = list[EventsWanted](), list[Profile]()
            for session, own, index in batch:
                ids, charge = (session.vehicle_id, session.charger_id), own[index]
                wanted.append(EventsWanted(len(wanted), *ids, charge.start_ms, charge.end_ms))
                profiles.append(Profile(charge, bounds))
            async for query, events in self._plugged_in.events(partner, wanted):
                _read_powers(profiles[query.number], query, events)
            for (_, own, index), profile in zip(batch, profiles, strict=True):
                own[index] = own[index]._replace(curve=profile.curve())
        return [
            session._replace(charges=own) for session, own in zip(sessions, charges, strict=True)
        ]


async def _steps(window: Window, after: RowPosition | None, limit: int) -> list[Bucket]:
    """The steps of a page. They begin at the position, or after it if its step is done."""
    at_ms = window.from_ms
    if after is not None:
        step = window.bucket(max(at_ms, after.from_ms))
        at_ms = step.to_ms if after.key == ALL_GROUPS else step.from_ms
    if at_ms >= window.to_ms:
        return []
    return await buckets_from(window.bucket, at_ms, limit, window.to_ms)


def _read_powers(profile: Profile, wanted: EventsWanted, events: Sequence[OrderedEvent]) -> None:
    for position, event in events:
        power = event.charge_power
        if power is None or position.charger_id != wanted.charger_id:
            continue
        # A start at the instant of the stop belongs to the next charge.
        is_next = position.rank == STARTED and position.at_ms == wanted.until_ms
        if position.rank in (STARTED, UPDATED) and not is_next:
            profile.read(position.at_ms, power)
