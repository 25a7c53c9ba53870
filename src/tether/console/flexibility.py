"""Flexibility: what plugged-in vehicles could take and give, now, by area, and over time."""

import asyncio
from decimal import Decimal, localcontext
from heapq import nlargest
from operator import add
from typing import NamedTuple

import msgspec
from falcon.asgi import Request, Response

from tether.console.forms import choice, query_of
from tether.console.pages import Page
from tether.console.rendering import Renderer
from tether.console.users import partner_of
from tether.domain.errors import Unavailable
from tether.domain.flexibility import Figures, capacity_of
from tether.domain.models import AREA_SIDE, EXACT
from tether.domain.views import Capacity
from tether.projections.flexibility import CapacityQuery, Entry, IncompleteVehicle
from tether.server.store import Store
from tether.storage.turns import TimeSlice, Turns

WAIT_S = 30.0
MOST_NAMED = 20  # vehicles of which the same is not known
MOST_AREAS = 500  # in the table and on the map
HOUR_MS = 3_600_000
SPANS = {"day": range(-24 * HOUR_MS, 1, HOUR_MS), "week": range(-168 * HOUR_MS, 1, 6 * HOUR_MS)}


class Moment(NamedTuple):
    """What could be moved at a moment of the past."""

    at_ms: int
    capacity: Capacity

    @property
    def takeable(self) -> Decimal:
        """What the vehicles could have taken together, what they took included; in kW."""
        return self.capacity.charge_power + self.capacity.charge_power_available


class Area(NamedTuple):
    """What could be moved now in a box of a tenth of a degree; None: chargers without a position.

    `west` and `south` are its edges in degrees.
    """

    west: str | None
    south: str | None
    capacity: Capacity


class FlexibilityPage(Page):
    """`…/flexibility`: the page, which asks for its figures, as they may take a moment."""

    async def on_get(self, req: Request, resp: Response) -> None:
        spans = list(SPANS)
        await self._renderer.render(req, resp, "flexibility.html", span=_span(req), spans=spans)


class FiguresPage(Page):
    """`…/flexibility/figures`: what could be moved now, by area, and what is not known."""

    def __init__(self, store: Store, renderer: Renderer) -> None:
        super().__init__(store, renderer)
        self._turns = Turns(2, of_each=1)  # each may read much

    async def on_get(self, req: Request, resp: Response) -> None:
        partner, capacities = partner_of(req).id, self._store.capacities
        now_ms = self._renderer.now_ms()
        now: Capacity | None = None
        areas: list[Area] = []
        count = 0
        lacking: dict[str, list[IncompleteVehicle]] = {}
        try:
            async with asyncio.timeout(WAIT_S), self._turns.of(partner):
                places = await capacities.by_area(partner, CapacityQuery(), stale=True)
                now = capacity_of(await _together(places), now_ms)
                areas, count = _areas(places, now_ms), len(places)
                if any(msgspec.structs.astuple(now.unknown)):
                    lacking = await capacities.incomplete(partner, MOST_NAMED)
        except (TimeoutError, Unavailable):
            now = None  # the page says that it took too long
        await self._renderer.render(
            req,
            resp,
            "figures.html",
            now=now,
            areas=areas,
            others=count - len(areas),
            lacking=lacking,
            side=AREA_SIDE,
        )


class CoursePage(Page):
    """`…/flexibility/course`: what could have been moved over the last day or week."""

    def __init__(self, store: Store, renderer: Renderer) -> None:
        super().__init__(store, renderer)
        self._turns = Turns(2, of_each=1)  # each may read much

    async def on_get(self, req: Request, resp: Response) -> None:
        partner, span = partner_of(req).id, _span(req)
        now_ms = self._renderer.now_ms()
        last_ms = now_ms - now_ms % HOUR_MS
        moments = range(last_ms + SPANS[span].start, last_ms + 1, SPANS[span].step)
        course: list[Moment] = []
        try:
            async with asyncio.timeout(WAIT_S), self._turns.of(partner):
                found = await self._store.capacities.totals(
                    partner, CapacityQuery(moments=moments), stale=True
                )
                course = [
                    Moment(at_ms, capacity_of(figures, at_ms))
                    for at_ms, figures in zip(moments, found, strict=True)
                ]
        except (TimeoutError, Unavailable):
            pass  # the page says that it took too long
        await self._renderer.render(req, resp, "course.html", course=course, span=span)


def _span(req: Request) -> str:
    return choice(query_of(req), "span", SPANS, "day")


async def _together(places: list[Entry]) -> Figures:
    """The sums over all areas, which are those over all chargers."""
    total, time_slice = Figures(), TimeSlice()
    for place in places:
        with localcontext(EXACT):
            total = Figures._make(map(add, total, place.figures))
        await time_slice.yield_if_over()
    return total


def _areas(places: list[Entry], now_ms: int) -> list[Area]:
    """Those with the most that could be moved; the most first."""
    most = nlargest(MOST_AREAS, places, lambda one: one.figures.takeable + one.figures.giveable)
    areas = []
    for place, figures in most:
        west, south = place.name.split(",")[:2] if place.name else (None, None)
        areas.append(Area(west, south, capacity_of(figures, now_ms)))
    return areas
