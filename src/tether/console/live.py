"""Current states of chargers and vehicles: the lists, one entity with its history, and the map."""

from typing import NamedTuple, TypeAlias

import msgspec
from falcon.asgi import Request, Response

from tether.console.pages import Page, split_page
from tether.console.rendering import Renderer, address
from tether.console.request import choice, partner_of, query_of
from tether.domain.charge_reports import with_reports
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
    flags_of,
    session_of,
    vehicle_state,
)
from tether.domain.views import ChargerState, Flag, VehicleState
from tether.server.store import Store
from tether.storage.fleet_overview import MAX_COUNTED, MAX_PLUGGED_IN, ORDERS
from tether.storage.turns import Turns, map_in_steps

PAGE = 50
HISTORY = 20  # sessions and events of one charger or vehicle
MAX_SKIPPED = 20_000
MAX_PLACES = 20_000  # on the map
PLACES_AT_ONCE = 1_000
DIGITS = 5  # of a degree, about a metre
SHOW = ("plugged", "charging", "all")
Kind: TypeAlias = type[Charger] | type[Vehicle]
StateRow: TypeAlias = tuple[ChargerState | VehicleState, list[Flag]]


class LiveQuery(NamedTuple):
    """The parameters of a list: its rows, and their order."""

    show: str
    order: str
    text: str
    """What the ids begin with, as it was typed."""
    after: str
    """The page begins after this id, if ids are the order."""
    skip: int
    """The number of rows before the page, in other orders."""

    def parameters(self, **changed: object) -> dict[str, object]:
        """The same as parameters of an address. The default is the first page."""
        return {"show": self.show, "order": self.order, "q": self.text, **changed}

    @property
    def begins(self) -> str:
        """The beginning of the ids. No id begins with a text that cannot be in one."""
        return self.text if not self.text or is_entity_id(self.text) else "\x7f"


class LivePage(Page):
    """`…/live`: chargers, `…/live/vehicles`: vehicles."""

    template = "live.html"

    def __init__(self, kind: Kind, store: Store, renderer: Renderer) -> None:
        super().__init__(store, renderer)
        self._kind = kind

    async def values(self, req: Request) -> dict[str, object]:
        query, partner = _live_query(req), partner_of(req)
        path: tuple[str, ...] = ("live",) if self._kind is Charger else ("live", "vehicles")
        ids, following = await self._page(partner.id, query)
        sums = await self._store.fleet.sums(partner.id)
        return {
            "sums": sums,
            "is_cut": sums.plugged_in == MAX_PLUGGED_IN,
            "most_counted": MAX_COUNTED,
            "of_chargers": self._kind is Charger,
            "query": query,
            "rows": await _states(self._kind, self._store, partner.id, ids, self._now_ms()),
            "next_page": following and address(partner, *path, query=query.parameters(**following)),
            "here": address(partner, *path),
        }

    async def _page(
        self, partner: int, query: LiveQuery
    ) -> tuple[list[str], dict[str, object] | None]:
        """The ids of the page, and the parameters of the next page, if there is one."""
        if query.show == "all":
            found = await self._store.entities.page(
                self._kind, partner, query.after, PAGE + 1, begins=query.begins
            )
            ids, last = split_page([entity_id for entity_id, _ in found], PAGE)
            return ids, {"after": last} if last else None
        found_ids = await self._store.fleet.plugged_in(
            partner,
            of_chargers=self._kind is Charger,
            order=query.order,
            begins=query.begins,
            charging=query.show == "charging",
            limit=PAGE + 1,
            offset=query.skip,
        )
        ids, last = split_page(found_ids, PAGE)
        return ids, {"skip": query.skip + PAGE} if last else None


class EntityPage(Page):
    """`…/chargers/{id}`, `…/vehicles/{id}`: one charger or vehicle, its sessions and events."""

    template = "entity.html"

    def __init__(self, kind: Kind, store: Store, renderer: Renderer) -> None:
        super().__init__(store, renderer)
        self._kind = kind

    async def values(self, req: Request, id: str) -> dict[str, object]:
        entity_id, partner = entity_id_from_path(id), partner_of(req).id
        if entity_id is None:
            raise NotFound
        stored = await self._store.entities.get(self._kind, partner, entity_id)
        entity: Charger | Vehicle
        if self._kind is Charger:
            entity = from_json(Charger, stored.body)
            events = EventFilter(charger_id=entity_id)
            sessions = SessionFilter(charger_ids=(entity_id,))
        else:
            entity = from_json(Vehicle, stored.body)
            events = EventFilter(vehicle_id=entity_id)
            sessions = SessionFilter(vehicle_ids=(entity_id,))
        states = await _states(self._kind, self._store, partner, [entity_id], self._now_ms())
        state, flags = states[0]
        newest_sessions, _ = await self._store.sessions.page(
            partner, sessions, None, HISTORY, descending=True
        )
        newest_events, _ = await self._store.events.page(
            partner, events, after=None, limit=HISTORY, descending=True
        )
        return {
            "is_charger": self._kind is Charger,
            "entity": entity,
            "state": state,
            "flags": flags,
            "sessions": [session_of(stored) for stored in newest_sessions],
            "events": [from_json(Event, body) for _, body in newest_events],
        }


async def _states(
    kind: Kind, store: Store, partner: int, ids: list[str], now_ms: int
) -> list[StateRow]:
    """The derived states of these chargers or vehicles, and the flags of their sessions."""
    if kind is Vehicle:
        latest = await store.states.of_vehicles(partner, ids)
        return [(vehicle_state(id, latest[id], now_ms), _flags([latest[id]])) for id in ids]
    found = await store.states.of_chargers(partner, ids)
    rows: list[StateRow] = []
    for id in ids:
        state = charger_state(id, found[id], now_ms)
        rows.append((state, _flags(found[id].sessions)))
    return rows


def _flags(latest: list[LatestSession] | list[LatestSession | None]) -> list[Flag]:
    """The flags of active sessions, except those that depend on the vehicle or charger."""
    names = {
        name
        for session in latest
        if session is not None and session.record.end_ms is None
        for name in flags_of(with_reports(session.record))
    }
    return [Flag(name=name, message=FLAGS[name]) for name in sorted(names & FLAGS.keys())]


def _live_query(req: Request) -> LiveQuery:
    query = query_of(req)
    show = choice(query, "show", SHOW, "plugged")
    order = choice(query, "order", ORDERS, "since")
    after, skip = query.get("after", ""), query.get("skip", "0")
    if after and not is_entity_id(after):
        raise Invalid("after", ENTITY_ID_RULE)
    if not skip.isdecimal() or len(skip) > 6 or int(skip) > MAX_SKIPPED:
        raise Invalid("skip", f"It must be a whole number up to {MAX_SKIPPED}.")
    return LiveQuery(show, order, query.get("q", ""), after, int(skip))


# The map ------------------------------------------------------------------------------------------


class _Position(msgspec.Struct):
    """The members of a charger that the map needs: decoding two is faster than decoding all."""

    latitude: float | None = None
    longitude: float | None = None


_position = msgspec.json.Decoder(_Position)


class PlacesResource:
    """`…/map/places`: the positions of chargers, as JSON.

    `places` have id, longitude and latitude; `without` counts chargers without a position; `more`
    says that there are more chargers than a map can show.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turns = Turns(4, per_partner=1)

    async def on_get(self, req: Request, resp: Response) -> None:
        partner, entities = partner_of(req).id, self._store.entities
        parts, count, without, after = [], 0, 0, ""
        async with self._turns.of(partner):
            while count < MAX_PLACES:
                limit = min(PLACES_AT_ONCE, MAX_PLACES - count)
                found = await entities.page(Charger, partner, after, limit)
                positions = await map_in_steps(_position.decode, [body for _, body in found])
                places = [
                    (charger_id, round(at.longitude, DIGITS), round(at.latitude, DIGITS))
                    for (charger_id, _), at in zip(found, positions, strict=True)
                    if at.latitude is not None and at.longitude is not None
                ]
                without += len(found) - len(places)
                if places:
                    parts.append(msgspec.json.encode(places)[1:-1])
                count += len(found)
                after = found[-1][0] if found else after
                if len(found) < limit:
                    break
        more = count >= MAX_PLACES and bool(await entities.page(Charger, partner, after, 1))
        end = msgspec.json.encode({"without": without, "more": more})[1:]
        resp.content_type = "application/json"
        resp.data = b'{"places":[' + b",".join(parts) + b"]," + end


class StatesResource:
    """`…/map/states`: the ids of chargers where vehicles are `charging` or only `plugged`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turns = Turns(4, per_partner=1)

    async def on_get(self, req: Request, resp: Response) -> None:
        async with self._turns.of(partner_of(req).id):
            found = await self._store.fleet.occupied(partner_of(req).id)
        resp.content_type = "application/json"
        resp.data = msgspec.json.encode(
            {
                "charging": [charger_id for charger_id, charging in found if charging],
                "plugged": [charger_id for charger_id, charging in found if not charging],
            }
        )
