"""The pages of the capacity of plugged-in vehicles: now, by area and over time. Users read
"flexibility" there.
"""

import asyncio
from decimal import Decimal, localcontext
from heapq import nlargest
from operator import add
from typing import NamedTuple

import msgspec
from falcon.asgi import Request

from tether.console.pages import Page, SlowPage
from tether.console.request import choice, partner_of, query_of
from tether.domain.capacity import Figures, capacity_of
from tether.domain.errors import Invalid, Unavailable
from tether.domain.models import AREA_SIDE, EXACT
from tether.domain.timestamps import HOUR_MS
from tether.domain.views import Capacity
from tether.projections.capacity import CapacityQuery, Entry, IncompleteVehicle
from tether.storage.turns import TimeSlice

TIMEOUT_S = 30.0
MAX_NAMED = 20  # incomplete vehicles, for each missing figure
MAX_AREAS = 500  # in the table and on the map
SPANS = {"day": range(-24 * HOUR_MS, 1, HOUR_MS), "week": range(-168 * HOUR_MS, 1, 6 * HOUR_MS)}


class Area(NamedTuple):
    """The current capacity in a box of a tenth of a degree.

    `west` and `south` are its edges in degrees; None for chargers without a position.
    """

    west: str | None
    south: str | None
    capacity: Capacity


class CapacityPage(Page):
    """`…/flexibility`: the page. It loads its figures later, because they may take long."""

    template = "capacity.html"

    async def values(self, req: Request) -> dict[str, object]:
        return {"span": _span(req), "spans": SPANS}


class FiguresPage(SlowPage):
    """`…/flexibility/figures`: the current capacity, by area, and what is unknown."""

    template = "capacity-figures.html"

    async def values(self, req: Request) -> dict[str, object]:
        partner, capacities = partner_of(req).id, self._store.capacities
        now_ms = self._now_ms()
        now: Capacity | None = None
        areas: list[Area] = []
        count, is_too_many = 0, False
        incomplete: dict[str, list[IncompleteVehicle]] = {}
        try:
            async with asyncio.timeout(TIMEOUT_S), self._turns.of(partner):
                try:
                    entries = await capacities.by_area(partner, CapacityQuery(), stale=True)
                except Invalid:  # too many areas: the sums alone
                    (total,) = await capacities.totals(partner, CapacityQuery(), stale=True)
                    is_too_many = True
                else:
                    total = await _total(entries)
                    areas, count = _largest_areas(entries, now_ms), len(entries)
                now = capacity_of(total, now_ms)
                if any(msgspec.structs.astuple(now.unknown)):
                    incomplete = await capacities.incomplete(partner, MAX_NAMED)
        except (TimeoutError, Unavailable):
            now = None  # the page says that it took too long
        return {
            "now": now,
            "areas": areas,
            "others": count - len(areas),
            "is_too_many": is_too_many,
            "incomplete": incomplete,
            "side": AREA_SIDE,
        }


class HistoryPage(SlowPage):
    """`…/flexibility/course`: the capacity over the last day or week."""

    template = "capacity-history.html"

    async def values(self, req: Request) -> dict[str, object]:
        partner, span = partner_of(req).id, _span(req)
        now_ms = self._now_ms()
        last_ms = now_ms - now_ms % HOUR_MS
        moments = range(last_ms + SPANS[span].start, last_ms + 1, SPANS[span].step)
        history: list[tuple[int, Capacity]] = []
        try:
            async with asyncio.timeout(TIMEOUT_S), self._turns.of(partner):
                totals = await self._store.capacities.totals(
                    partner, CapacityQuery(moments=moments), stale=True
                )
                history = [
                    (at_ms, capacity_of(figures, at_ms))
                    for at_ms, figures in zip(moments, totals, strict=True)
                ]
        except (TimeoutError, Unavailable):
            pass  # the page says that it took too long
        return {"history": history, "span": span}


def _span(req: Request) -> str:
    return choice(query_of(req), "span", SPANS, "day")


async def _total(areas: list[Entry]) -> Figures:
    """The figures of all chargers: the sums of all areas."""
    total, time_slice = Figures(), TimeSlice()
    for area in areas:
        with localcontext(EXACT):
            total = Figures._make(map(add, total, area.figures))
        await time_slice.yield_if_over()
    return total


def _largest_areas(entries: list[Entry], now_ms: int) -> list[Area]:
    """The areas where most power could be added, the highest first."""
    areas = []
    for position, figures in nlargest(MAX_AREAS, entries, _power_available):
        west, south = position.name.split(",")[:2] if position.name else (None, None)
        areas.append(Area(west, south, capacity_of(figures, now_ms)))
    return areas


def _power_available(area: Entry) -> Decimal:
    return area.figures.charge_available + area.figures.discharge_available
