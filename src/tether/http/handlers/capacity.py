"""Available flexibility over HTTP (an addition to the reference)."""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

from falcon.asgi import Request, Response

from tether.domain.errors import Invalid, Missing
from tether.domain.flexibility import Box, capacity_of
from tether.domain.models import ENTITY_ID_RULE, is_entity_id, to_json
from tether.domain.validation import check_instant
from tether.domain.views import Capacity
from tether.http import requests
from tether.projections.flexibility import Chargers, MaxAge
from tether.server.store import Store
from tether.storage.turns import Turns

LIST_PARAMETERS = (
    "limit",
    "cursor",
    "chargerId",
    "bbox",
    "at",
    "by",
    "from",
    "to",
    "step",
    "maxAge",
    "stale",
)
MOST_MOMENTS = 1000
AT_ONCE = 4  # of each partner one: each may read and hold a lot, so the others wait
PATIENCE_S = 120.0
_OF_PAGES, _OF_SERIES = ("limit", "cursor"), ("from", "to", "step")
_BOX_RULE = (
    "It must be minLongitude,minLatitude,maxLongitude,maxLatitude in degrees, such as "
    "17.4,62.3,17.5,62.4."
)


class Wanted(NamedTuple):
    """What is asked for: of which chargers, at which moments (None: now), how old at most."""

    chargers: Chargers
    moments: range | None
    max_age: MaxAge | None


class CapacityResource:
    """`/capacity`: what plugged-in vehicles take, give and store, and how much more they could."""

    def __init__(self, store: Store, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms
        self._turns = Turns(AT_ONCE, of_each=1, patience_s=PATIENCE_S)

    async def on_get(self, req: Request, resp: Response) -> None:
        query = requests.query_of(req, LIST_PARAMETERS)
        now_ms = self._now_ms()
        wanted = Wanted(_chargers(query), _moments(query, now_ms), _max_age(query, now_ms))
        async with self._turns.of(requests.partner_of(req)):
            await self._answer(req, resp, query, wanted)

    on_head = on_get

    async def _answer(
        self, req: Request, resp: Response, query: dict[str, str], wanted: Wanted
    ) -> None:
        chargers, moments, max_age = wanted
        partner = requests.partner_of(req)
        if _is_by_charger(query):
            await self._by_charger(req, resp, query, wanted)
            return
        stale = await requests.takes_stale(self._store, req, resp, query)
        if "from" in query and moments is not None:
            found = await self._store.capacities.totals(
                partner, chargers, moments, max_age=max_age, stale=stale
            )
            pairs = zip(found, moments, strict=True)
            resp.data = to_json([capacity_of(figures, at_ms) for figures, at_ms in pairs])
        else:
            (figures,) = await self._store.capacities.totals(
                partner, chargers, moments, max_age=max_age, stale=stale
            )
            resp.data = to_json(capacity_of(figures, moments[0] if moments else self._now_ms()))

    async def _by_charger(
        self, req: Request, resp: Response, query: dict[str, str], wanted: Wanted
    ) -> None:
        chargers, moments, max_age = wanted
        limit = requests.limit_of(query)
        epoch, after = await requests.begin_page(self._store, resp, query, is_entity_id)
        if after is not None:
            chargers = chargers.after(after)
        stale = await requests.takes_stale(self._store, req, resp, query)
        # One more than asked for, to know whether another page follows.
        found = await self._store.capacities.by_charger(
            requests.partner_of(req), chargers, moments, limit + 1, max_age=max_age, stale=stale
        )
        at_ms, page = moments[0] if moments else self._now_ms(), found[:limit]
        shown: list[Capacity] = [capacity_of(figures, at_ms, id) for id, figures in page]
        resp.data = to_json(shown)
        if len(found) > limit:
            resp.set_header("Link", requests.next_link(req, query, epoch, page[-1][0]))


def _is_by_charger(query: dict[str, str]) -> bool:
    if query.get("by", "charger") != "charger":
        raise Invalid("by", "It must be charger, or left out.")
    if "by" in query:
        return True
    for name in _OF_PAGES:
        if name in query:
            raise Invalid(name, "It can only be given together with by=charger.")
    return False


def _max_age(query: dict[str, str], now_ms: int) -> MaxAge | None:
    text = query.get("maxAge")
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) == 0:
        raise Invalid("maxAge", "It must be a whole number of seconds from 1 to 999999999.")
    return MaxAge(int(text) * 1000, now_ms)


def _chargers(query: dict[str, str]) -> Chargers:
    chargers = Chargers()
    if (charger_id := query.get("chargerId")) is not None:
        if not is_entity_id(charger_id):
            raise Invalid("chargerId", ENTITY_ID_RULE)
        chargers = chargers._replace(first=charger_id, last=charger_id)
    return chargers._replace(box=_box(query["bbox"])) if "bbox" in query else chargers


def _box(text: str) -> Box:
    numbers = text.split(",")
    if len(numbers) != 4 or not all(
        re.fullmatch(r"-?[0-9]{1,3}(?:\.[0-9]+)?", number) for number in numbers
    ):
        raise Invalid("bbox", _BOX_RULE)
    box = Box(*map(Decimal, numbers))
    if max(abs(box.west), abs(box.east)) > 180 or max(abs(box.south), abs(box.north)) > 90:
        raise Invalid("bbox", "Longitudes must be from -180 to 180, latitudes from -90 to 90.")
    if box.south > box.north:
        raise Invalid("bbox", "minLatitude must not be above maxLatitude.")
    return box


def _moments(query: dict[str, str], now_ms: int) -> range | None:
    """The past moments that are asked for; None if none is, which means now."""
    if not any(name in query for name in _OF_SERIES):
        if "at" not in query:
            return None
        at_ms = check_instant("at", query["at"])
        if at_ms > now_ms:
            raise Invalid("at", "It must not be in the future.")
        return range(at_ms, at_ms + 1)
    for name in ("at", "by"):
        if name in query:
            raise Invalid(name, "It cannot be given together with from, to or step.")
    for name in ("from", "step"):
        if name not in query:
            raise Missing(name, "from and step must be given together.")
    from_ms = check_instant("from", query["from"])
    to_ms = check_instant("to", query["to"]) if "to" in query else now_ms
    if to_ms > now_ms:
        raise Invalid("to", "It must not be in the future.")
    if from_ms >= to_ms:
        raise Invalid("from", "It must be before to, which is now unless it is given.")
    if not re.fullmatch(r"[0-9]{1,9}", query["step"]) or int(query["step"]) == 0:
        raise Invalid("step", "It must be a whole number of seconds from 1 to 999999999.")
    moments = range(from_ms, to_ms, int(query["step"]) * 1000)
    if len(moments) > MOST_MOMENTS:
        least = -((from_ms - to_ms) // (MOST_MOMENTS * 1000))
        raise Invalid("step", f"It must be at least {least}: there are at most 1000 moments.")
    return moments
