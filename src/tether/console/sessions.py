"""Sessions: the list, one session with its events, and sums over time."""

import asyncio
import re
from datetime import date, datetime, time, timedelta
from importlib.util import find_spec
from typing import NamedTuple
from zoneinfo import ZoneInfo

from falcon.asgi import Request

from tether.console.pages import Page, SlowPage, split_page
from tether.console.rendering import address
from tether.console.request import choice, partner_of, position, problem_of, query_of
from tether.domain.calendar import Calendar, Unit, undivided, zone_of
from tether.domain.earlier_sessions import SessionContext
from tether.domain.errors import Invalid, Unavailable
from tether.domain.filters import SessionFilter
from tether.domain.models import is_entity_id, uuid_to_read
from tether.domain.session_causes import causes_of
from tether.domain.session_record import OrderedEvent
from tether.domain.session_views import FLAGS, StoredSession, session_of
from tether.domain.summary import Row, Sums
from tether.domain.timestamps import moment_of, ms_of
from tether.domain.views import Flag, Session
from tether.storage.sessions import SessionPosition
from tether.storage.turns import in_steps, map_in_steps

PAGE = 50
MAX_EVENTS = 1_000  # of one session
MAX_BARS = 400
SUM_TIMEOUT_S = 5.0
UNITS = (Unit.DAY, Unit.HOUR, Unit.MONTH)
FIRST_DAY, LAST_DAY = date(1970, 1, 2), date(8999, 12, 31)
NO_ID = "\x7f"  # no entity has it
_POSITION = re.compile(r"(-?[0-9]{1,15}) ([0-9a-f-]{36})")


class SessionQuery(NamedTuple):
    """The parameters of the address that select sessions."""

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
        """The filter for the store. Raises Invalid."""
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
    def is_chosen(self) -> bool:
        """Whether some sessions may be left out."""
        return self.is_narrow or bool(self.last or self.flag or self.status)

    @property
    def is_narrow(self) -> bool:
        """Whether the page loads the sums by itself, because the sessions are probably few."""
        return bool(self.first or self.vehicle or self.charger)

    @property
    def time_zone(self) -> ZoneInfo:
        """The time zone of the days. Raises Invalid."""
        return zone_of("zone", self.zone)

    def parameters(self, **changed: object) -> dict[str, object]:
        """The same as parameters of an address."""
        return {
            "from": self.first, "to": self.last, "vehicle": self.vehicle, "charger": self.charger,
            "flag": self.flag, "status": self.status, "unit": self.unit,
            "zone": "" if self.zone == "UTC" else self.zone, **changed,
        }  # fmt: skip


class SessionsPage(Page):
    """`…/sessions`: the newest first."""

    template = "sessions.html"

    async def values(self, req: Request) -> dict[str, object]:
        fields = query_of(req)
        query, problem = session_query(fields), ""
        found: list[Session] = []
        following: SessionPosition | None = None
        try:
            after = position(fields, "after", _POSITION)
            found, following = await self._page(partner_of(req).id, query.filter, after)
        except Invalid as error:
            problem = problem_of(error)
        downloads = [
            ("CSV", _link(req, query.parameters(), "sessions.csv")),
            ("CSV with decimal commas",
             _link(req, query.parameters(decimals="comma"), "sessions.csv")),
        ]  # fmt: skip
        if find_spec("pyarrow"):
            downloads.append(("Parquet", _link(req, query.parameters(), "sessions.parquet")))
        after_last = following and "{} {}".format(*following)
        return {
            "status": 400 if problem else 200,
            "problem": problem,
            "query": query,
            "sessions": found,
            "flags": FLAGS,
            "units": UNITS,
            "totals": _link(req, query.parameters(), "sessions", "totals"),
            "downloads": downloads,
            "here": _link(req, {}, "sessions"),
            "next_page": after_last and _link(req, query.parameters(after=after_last), "sessions"),
        }

    async def _page(
        self, partner: int, wanted: SessionFilter, after: SessionPosition | None
    ) -> tuple[list[Session], SessionPosition | None]:
        """The sessions of the page, and the position after which the next page begins."""
        found, stop = await self._store.sessions.page(
            partner, wanted, after, PAGE + 1, descending=True
        )
        rows, last = split_page(found, PAGE)
        if last is not None:
            stop = last.record.start_ms, last.id
        return await map_in_steps(session_of, rows), stop


class SessionPage(Page):
    """`…/sessions/{id}`: one session with its events, and the sessions before and after it."""

    template = "session.html"

    async def values(self, req: Request, id: str) -> dict[str, object]:
        session_id, partner = uuid_to_read(id), partner_of(req).id
        stored = await self._store.sessions.get(partner, session_id)
        session, record = session_of(stored), stored.record
        until_ms = max(record.last.at_ms, record.end_ms or 0)
        found = await self._store.events.of_vehicle(
            partner, record.vehicle_id, record.start_ms, MAX_EVENTS + 1, until_ms=until_ms
        )
        events, last = split_page(found, MAX_EVENTS)
        events.sort()  # those of one instant in the order in which they have happened
        position = record.start_ms, session_id
        vehicle = SessionFilter(vehicle_ids=(record.vehicle_id,))
        charger = SessionFilter(charger_ids=(record.charger_id,))
        return {
            "session": session,
            "vehicle": stored.vehicle,
            "charger": stored.charger,
            "events": [ordered.event for ordered in events],
            "causes": await self._causes(partner, stored, events) if session.flags else {},
            "is_cut": last is not None,
            "neighbours": [
                ("Vehicle before", await self._next(partner, vehicle, position, back=True)),
                ("Vehicle after", await self._next(partner, vehicle, position, back=False)),
                ("Charger before", await self._next(partner, charger, position, back=True)),
                ("Charger after", await self._next(partner, charger, position, back=False)),
            ],
        }

    async def _causes(
        self, partner: int, stored: StoredSession, events: list[OrderedEvent]
    ) -> dict[str, list[Flag]]:
        """The flags of the session, by the id of the event that caused them."""
        key = stored.record.vehicle_id, stored.record.start
        found = await self._store.session_records.of_starts(partner, [key])
        _, before = found.get(key, (None, SessionContext()))  # none if it was derived again
        return await in_steps(causes_of(stored, before, events))

    async def _next(
        self, partner: int, wanted: SessionFilter, position: SessionPosition, *, back: bool
    ) -> Session | None:
        """The next session by start, or the previous one (`back`)."""
        found, _ = await self._store.sessions.page(partner, wanted, position, 1, descending=back)
        return session_of(found[0]) if found else None


class TotalsPage(SlowPage):
    """`…/sessions/totals`: the sums of the selected sessions, in total and over time."""

    template = "totals.html"

    async def values(self, req: Request) -> dict[str, object]:
        partner, query = partner_of(req).id, session_query(query_of(req))
        wanted, zone, unit = query.filter, query.time_zone, Unit(query.unit)
        sums, bars, more, division = None, list[Row[Sums]](), None, Calendar(unit, zone).bucket
        try:
            async with asyncio.timeout(SUM_TIMEOUT_S), self._turns.of(partner):
                summaries = self._store.summaries
                rows, _ = await summaries.page(
                    partner, wanted, undivided, None, after=None, limit=1
                )
                sums = rows[0].total if rows else None
                while len(bars) < MAX_BARS:
                    rows, more = await summaries.page(
                        partner, wanted, division, None, after=more, limit=MAX_BARS - len(bars)
                    )
                    bars += rows
                    if more is None:
                        break
        except (TimeoutError, Unavailable):
            sums = None  # the page says that there are too many
        return {
            "total": sums,
            "is_too_much": sums is None and await self._any(partner, wanted),
            "bars": [(_bar_name(row.bucket.from_ms, zone, unit), row) for row in bars],
            "is_cut": more is not None,
            "unit": query.unit,
            "zone": query.zone,
            "back": _link(req, query.parameters(), "sessions"),
        }

    async def _any(self, partner: int, wanted: SessionFilter) -> bool:
        """Whether there are such sessions."""
        found, stop = await self._store.sessions.page(partner, wanted, None, 1)
        return bool(found) or stop is not None


# Parameters of the address ------------------------------------------------------------------------


def session_query(query: dict[str, str]) -> SessionQuery:
    """Reads the parameters of the address. Raises Invalid."""
    return SessionQuery(
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
    """The ids of the filter: one, or none for all. Text that is no id matches nothing."""
    if not text:
        return ()
    return (text if is_entity_id(text) else NO_ID,)


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
    return ms_of(datetime.combine(day, time(), zone))


def _bar_name(at_ms: int, zone: ZoneInfo, unit: Unit) -> str:
    at = moment_of(at_ms).astimezone(zone)
    form = {Unit.MONTH: "%Y-%m", Unit.HOUR: "%Y-%m-%d %H:%M"}.get(unit, "%Y-%m-%d")
    is_twice = at.replace(fold=1 - at.fold).utcoffset() != at.utcoffset()  # when summer time ends
    return at.strftime(f"{form} %z" if is_twice and unit is Unit.HOUR else form)
