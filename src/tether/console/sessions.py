"""Sessions: a list of those that are wanted, what they have together, and a file of them."""

import asyncio
import re
from datetime import UTC, date, datetime, timedelta
from importlib.util import find_spec
from typing import NamedTuple
from zoneinfo import ZoneInfo

from falcon.asgi import Request, Response

from tether.console.forms import choice, position, query_of
from tether.console.pages import Page
from tether.console.rendering import Renderer, address
from tether.console.users import partner_of
from tether.domain.calendar import Calendar, Unit, undivided, zone_of
from tether.domain.errors import Invalid, Unavailable
from tether.domain.filters import SessionFilter
from tether.domain.models import is_entity_id
from tether.domain.session_views import FLAGS, session_of
from tether.domain.summary import Sums
from tether.domain.views import Session
from tether.server.store import Store
from tether.storage.sessions import SessionPosition
from tether.storage.turns import TimeSlice, Turns

PAGE = 50
MOST_BARS = 400
ADD_UP_S = 5.0
UNITS = (Unit.DAY, Unit.HOUR, Unit.MONTH)
FIRST_DAY, LAST_DAY = date(1970, 1, 2), date(8999, 12, 31)
NOBODY = "\x7f"  # no id is so
_POSITION = re.compile(r"(-?[0-9]{1,15}) ([0-9a-f-]{36})")


class SessionsWanted(NamedTuple):
    """What is asked for, as it stands in the address."""

    first: str
    last: str
    vehicle: str
    charger: str
    flag: str
    status: str
    zone: str
    unit: str

    @property
    def filter(self) -> SessionFilter:
        """The same for the store. Raises Invalid."""
        zone = self.time_zone
        first, last = _day("from", self.first), _day("to", self.last)
        if first and last and first > last:
            raise Invalid("from", "It must not be after the last day.")
        return SessionFilter(
            _ids(self.charger),
            _ids(self.vehicle),
            from_ms=None if first is None else _begin_ms(first, zone),
            to_ms=None if last is None else _begin_ms(last + timedelta(days=1), zone),
            active={"active": True, "ended": False}.get(self.status),
            flag=self.flag or None,
        )

    @property
    def is_narrow(self) -> bool:
        """Whether these are few enough to be added up without being asked."""
        return bool(self.first or self.vehicle or self.charger)

    @property
    def time_zone(self) -> ZoneInfo:
        """Whose days these are. Raises Invalid."""
        return zone_of("zone", self.zone)

    def query(self, **changed: object) -> dict[str, object]:
        """The same as parameters of an address."""
        return {
            "from": self.first, "to": self.last, "vehicle": self.vehicle, "charger": self.charger,
            "flag": self.flag, "status": self.status, "unit": self.unit,
            "zone": "" if self.zone == "UTC" else self.zone, **changed,
        }  # fmt: skip


def forms_here() -> list[str]:
    """The forms in which sessions can be downloaded: Parquet needs an extra."""
    return ["csv", "parquet"] if find_spec("pyarrow") else ["csv"]


class SessionsPage(Page):
    """`…/sessions`: the newest first."""

    async def on_get(self, req: Request, resp: Response) -> None:
        query = query_of(req)
        wanted, problem = sessions_wanted(query), ""
        found: list[Session] = []
        following: SessionPosition | None = None
        try:
            after = position(query, "after", _POSITION)
            found, following = await self._page(partner_of(req).id, wanted, after)
        except Invalid as error:
            problem = error.message
        await self._renderer.render(
            req,
            resp,
            "sessions.html",
            status=400 if problem else 200,
            problem=problem,
            wanted=wanted,
            sessions=found,
            flags=list(FLAGS),
            units=[unit.value for unit in UNITS],
            totals=_link(req, wanted.query(), "sessions", "totals"),
            downloads=[
                (form, _link(req, wanted.query(), f"sessions.{form}")) for form in forms_here()
            ],
            here=_link(req, {}, "sessions"),
            again=_link(req, wanted.query(after=query.get("after")), "sessions"),
            next_page=None
            if following is None
            else _link(req, wanted.query(after="{} {}".format(*following)), "sessions"),
        )

    async def _page(
        self, partner: int, wanted: SessionsWanted, after: SessionPosition | None
    ) -> tuple[list[Session], SessionPosition | None]:
        found, stop = await self._store.sessions.page(
            partner, wanted.filter, after, PAGE + 1, descending=True
        )
        if len(found) > PAGE:
            stop = found[PAGE - 1].record.start_ms, found[PAGE - 1].id
        shown, time_slice = [], TimeSlice()
        for known in found[:PAGE]:
            shown.append(session_of(known))
            await time_slice.yield_if_over()
        return shown, stop


class Bar(NamedTuple):
    """A part of time, as the viewer's clocks call it, and what sessions have there."""

    name: str
    from_ms: int
    total: Sums


class TotalsPage(Page):
    """`…/sessions/totals`: what the wanted sessions have together, and their energy over time."""

    def __init__(self, store: Store, renderer: Renderer) -> None:
        super().__init__(store, renderer)
        self._turns = Turns(2, of_each=1)  # each may read much

    async def on_get(self, req: Request, resp: Response) -> None:
        partner, wanted = partner_of(req).id, sessions_wanted(query_of(req))
        chosen, zone, unit = wanted.filter, wanted.time_zone, Unit(wanted.unit)
        whole: list[Sums] = []
        bars: list[Bar] = []
        is_cut = False
        try:
            async with asyncio.timeout(ADD_UP_S), self._turns.of(partner):
                summaries = self._store.summaries
                rows, _ = await summaries.page(
                    partner, chosen, undivided, None, after=None, limit=1
                )
                whole = [row.total for row in rows]
                rows, more = await summaries.page(
                    partner, chosen, Calendar(unit, zone).bucket, None, after=None, limit=MOST_BARS
                )
                is_cut = more is not None
                bars = [
                    Bar(_name(row.bucket.from_ms, zone, unit), row.bucket.from_ms, row.total)
                    for row in rows
                ]
        except (TimeoutError, Unavailable):
            whole, bars = [], []
        await self._renderer.render(
            req,
            resp,
            "totals.html",
            total=whole[0] if whole else None,
            is_too_much=not whole and await self._any(partner, chosen),
            bars=bars,
            is_cut=is_cut,
            unit=wanted.unit,
            zone=wanted.zone,
            back=_link(req, wanted.query(), "sessions"),
        )

    async def _any(self, partner: int, chosen: SessionFilter) -> bool:
        found, stop = await self._store.sessions.page(partner, chosen, None, 1)
        return bool(found) or stop is not None


# What is asked for --------------------------------------------------------------------------------


def sessions_wanted(query: dict[str, str]) -> SessionsWanted:
    """What the parameters of an address ask for. Raises Invalid."""
    return SessionsWanted(
        query.get("from", ""),
        query.get("to", ""),
        query.get("vehicle", ""),
        query.get("charger", ""),
        choice(query, "flag", ("", *FLAGS)),
        choice(query, "status", ("", "active", "ended")),
        query.get("zone") or "UTC",
        choice(query, "unit", UNITS, Unit.DAY),
    )


def _link(req: Request, query: dict[str, object], *path: str) -> str:
    return address(partner_of(req), *path, query=query)


def _ids(text: str) -> tuple[str, ...]:
    """The one that is named, or all; of what can be no id there is nothing."""
    if not text:
        return ()
    return (text if is_entity_id(text) else NOBODY,)


def _day(name: str, text: str) -> date | None:
    if not text:
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise Invalid(name, "It must be a day such as 2026-01-31.") from None
    if not FIRST_DAY <= day <= LAST_DAY:
        raise Invalid(name, f"It must be from {FIRST_DAY} to {LAST_DAY}.")
    return day


def _begin_ms(day: date, zone: ZoneInfo) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp() * 1000)


def _name(at_ms: int, zone: ZoneInfo, unit: Unit) -> str:
    at = datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(zone)
    return at.strftime({Unit.MONTH: "%Y-%m", Unit.HOUR: "%Y-%m-%d %H:%M"}.get(unit, "%Y-%m-%d"))
