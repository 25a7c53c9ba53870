"""Chargers and vehicles as they are now: all of a partner, and one of them with its history."""

from typing import Any, NamedTuple, TypeAlias

from falcon.asgi import Request, Response

from tether.console.forms import choice, query_of
from tether.console.pages import Page
from tether.console.rendering import Renderer, address
from tether.console.users import partner_of
from tether.domain.errors import Invalid, NotFound
from tether.domain.filters import EventFilter, SessionFilter
from tether.domain.models import (
    ENTITY_ID_RULE,
    Charger,
    Event,
    Vehicle,
    entity_id_from_path,
    from_json,
    is_entity_id,
)
from tether.domain.session_views import (
    FLAGS,
    LatestSession,
    charger_state,
    session_of,
    vehicle_state,
)
from tether.domain.views import ChargerState, Session, VehicleState
from tether.server.store import Store
from tether.storage.fleet_overview import ORDERS

PAGE = 50
HISTORY = 20  # sessions and events of one charger or vehicle
MOST_SKIPPED = 20_000
SHOWN = ("plugged", "charging", "all")
Kind: TypeAlias = type[Charger] | type[Vehicle]


class Flagged(NamedTuple):
    """A flag and the sentence that explains it."""

    name: str
    message: str


class EntityRow(NamedTuple):
    """A charger or vehicle in a table."""

    id: str
    state: ChargerState | VehicleState
    flags: list[Flagged]


class LiveWanted(NamedTuple):
    """What a table shows, and in which order."""

    show: str
    order: str
    begins: str
    after: str
    """The id behind which the page begins, in the order of ids."""
    skip: int
    """So many come before the page, in other orders."""

    def query(self, **changed: object) -> dict[str, object]:
        """The same as parameters of an address, which begins at the first page by default."""
        return {"show": self.show, "order": self.order, "q": self.begins, **changed}


class LivePage(Page):
    """`…/live`: chargers, `…/live/vehicles`: vehicles."""

    def __init__(self, kind: Kind, store: Store, renderer: Renderer) -> None:
        super().__init__(store, renderer)
        self._kind = kind

    async def on_get(self, req: Request, resp: Response) -> None:
        wanted = _wanted(req)
        partner = partner_of(req).id
        ids, following = await self._page(partner, wanted)
        await self._renderer.render(
            req,
            resp,
            "live.html",
            sums=await self._store.fleet.sums(partner),
            of_chargers=self._kind is Charger,
            wanted=wanted,
            rows=await _rows(self._kind, self._store, partner, ids, self._renderer.now_ms()),
            next_page=None
            if following is None
            else address(partner_of(req), *self._path, query=wanted.query(**following)),
            here=address(partner_of(req), *self._path),
        )

    @property
    def _path(self) -> tuple[str, ...]:
        return ("live",) if self._kind is Charger else ("live", "vehicles")

    async def _page(
        self, partner: int, wanted: LiveWanted
    ) -> tuple[list[str], dict[str, object] | None]:
        """The ids of the page, and where the next one begins, if there is one."""
        if wanted.show == "all":
            found = await self._store.entities.page(
                self._kind, partner, wanted.after, PAGE + 1, begins=wanted.begins
            )
            ids = [entity_id for entity_id, _ in found]
            return ids[:PAGE], {"after": ids[PAGE - 1]} if len(ids) > PAGE else None
        ids = await self._store.fleet.plugged_in(
            partner,
            of_chargers=self._kind is Charger,
            order=wanted.order,
            begins=wanted.begins,
            charging=wanted.show == "charging",
            limit=PAGE + 1,
            offset=wanted.skip,
        )
        return ids[:PAGE], {"skip": wanted.skip + PAGE} if len(ids) > PAGE else None


class EntityPage(Page):
    """`…/chargers/{id}`, `…/vehicles/{id}`: one charger or vehicle with its history."""

    def __init__(self, kind: Kind, store: Store, renderer: Renderer) -> None:
        super().__init__(store, renderer)
        self._kind = kind

    async def on_get(self, req: Request, resp: Response, id: str) -> None:
        entity_id, partner = entity_id_from_path(id), partner_of(req).id
        if entity_id is None:
            raise NotFound
        stored = await self._store.entities.get(self._kind, partner, entity_id)
        values: dict[str, Any]
        if self._kind is Charger:
            values = {"charger": from_json(Charger, stored.body)}
            events = EventFilter(charger_id=entity_id)
            sessions = SessionFilter(charger_ids=(entity_id,))
        else:
            values = {"vehicle": from_json(Vehicle, stored.body)}
            events = EventFilter(vehicle_id=entity_id)
            sessions = SessionFilter(vehicle_ids=(entity_id,))
        (row,) = await _rows(self._kind, self._store, partner, [entity_id], self._renderer.now_ms())
        await self._renderer.render(
            req,
            resp,
            f"{self._kind.__name__.lower()}.html",
            row=row,
            sessions=await _newest_sessions(self._store, partner, sessions),
            events=await _newest_events(self._store, partner, events),
            **values,
        )


# Reads from the store -----------------------------------------------------------------------------


async def _rows(
    kind: Kind, store: Store, partner: int, ids: list[str], now_ms: int
) -> list[EntityRow]:
    """The current states of these chargers or vehicles, as far as they are derived."""
    if kind is Vehicle:
        latest = await store.states.of_vehicles(partner, ids)
        return [
            EntityRow(id, vehicle_state(id, latest[id], now_ms), _flags([latest[id]])) for id in ids
        ]
    found, rows = await store.states.of_chargers(partner, ids), []
    for id in ids:
        state = charger_state(id, found[id], now_ms)
        rows.append(EntityRow(id, state, _flags(found[id].sessions)))
    return rows


def _flags(latest: list[LatestSession] | list[LatestSession | None]) -> list[Flagged]:
    """The flags of sessions that last, without those that compare with vehicle and charger."""
    names = {
        name
        for one in latest
        if one is not None and one.record.end_ms is None
        for name in one.record.flags
    }
    return [Flagged(name, FLAGS[name]) for name in sorted(names & FLAGS.keys())]


async def _newest_sessions(store: Store, partner: int, wanted: SessionFilter) -> list[Session]:
    """The newest of these sessions."""
    found, _ = await store.sessions.page(partner, wanted, None, HISTORY, descending=True)
    return [session_of(known) for known in found]


async def _newest_events(store: Store, partner: int, wanted: EventFilter) -> list[Event]:
    """The newest of these events."""
    page = await store.events.page(partner, wanted, after=None, limit=HISTORY, descending=True)
    return [from_json(Event, body) for _, body in page.found]


# Parameters of the address ------------------------------------------------------------------------


def _wanted(req: Request) -> LiveWanted:
    query = query_of(req)
    show = choice(query, "show", SHOWN, "plugged")
    order = choice(query, "order", ORDERS, "since")
    begins, after, skip = query.get("q", ""), query.get("after", ""), query.get("skip", "0")
    if after and not is_entity_id(after):
        raise Invalid("after", ENTITY_ID_RULE)
    if not skip.isdecimal() or len(skip) > 6 or int(skip) > MOST_SKIPPED:
        raise Invalid("skip", f"It must be a whole number up to {MOST_SKIPPED}.")
    if begins and not is_entity_id(begins):
        begins = "\x7f"  # no id begins so, and nothing is found
    return LiveWanted(show, order, begins, after, int(skip))
