"""Capacity over HTTP (an addition to the reference)."""

import re
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterable
from decimal import Decimal
from operator import itemgetter

from falcon.asgi import Response

from tether.domain.capacity import Box, Figures, capacity_of
from tether.domain.errors import Invalid, Missing
from tether.domain.models import ENTITY_ID_RULE, is_entity_id, to_json
from tether.domain.validation import check_instant
from tether.http import pagination
from tether.http.requests import ApiRequest
from tether.projections.capacity import CapacityQuery, Entry, EntryPosition
from tether.server.store import Store
from tether.storage.turns import map_in_steps

LIST_PARAMETERS = (
    "limit", "cursor", "chargerId", "bbox", "at", "by", "from", "to", "step", "maxAge", "stale",
)  # fmt: skip
MAX_MOMENTS = 1000  # of an answer that is not streamed
MAX_STREAMED = 10_000
READ_AT_ONCE = 4_000  # lines, about 2 MB
SENT_AT_ONCE = 500  # lines
NDJSON = "application/x-ndjson"
_OF_PAGES, _OF_SERIES = ("limit", "cursor"), ("from", "to", "step")
_POSITION = re.compile(r"([A-Za-z0-9._~*+@:,-]{0,128})(?: ([0-9]{1,5}))?")
_BOX_RULE = (
    "It must be minLongitude,minLatitude,maxLongitude,maxLatitude in degrees, such as "
    "17.4,62.3,17.5,62.4."
)


class CapacityResource:
    """`/capacity`: the power and energy of plugged-in vehicles, and how much more is possible."""

    def __init__(self, store: Store, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms
        self._turns = pagination.large_answer_turns()

    async def on_get(self, req: ApiRequest, resp: Response) -> None:
        page = pagination.Page(self._store, req, resp, LIST_PARAMETERS)
        query = page.query
        now_ms, as_lines = self._now_ms(), NDJSON in (req.get_header("Accept") or "").lower()
        wanted = _capacity_query(query, now_ms, as_lines=as_lines)
        by, at_ms = query.get("by"), wanted.moments or range(now_ms, now_ms + 1)
        if as_lines:
            portions = self._portions(req, resp, query, wanted, at_ms)
            first = await anext(portions, b"")  # now, so that errors in it get an answer
            resp.content_type = NDJSON
            resp.stream = _chain(first, portions)
            return
        # An invalid cursor is refused before the request waits for its turn.
        after = None if by is None else await page.begin(_position)
        partner = page.partner
        async with self._turns.of(partner):
            stale = await pagination.accepts_stale(self._store, req, resp, query)
            if by is not None:
                found = await self._entries(partner, wanted, by, after, page.limit + 1, stale=stale)
                entries = page.finish(found, lambda entry: "{} {}".format(*entry.position))
                bodies = await _encoded(entries, by, at_ms)
                resp.data = b"[%b]" % b",".join(bodies)
                return
            totals = await self._store.capacities.totals(partner, wanted, stale=stale)
        bodies = await _encoded(_over_time(totals), None, at_ms)
        resp.data = b"[%b]" % b",".join(bodies) if "from" in query else bodies[0]

    async def _entries(
        self,
        partner: int,
        wanted: CapacityQuery,
        by: str | None,
        after: EntryPosition | None,
        limit: int,
        *,
        stale: bool,
    ) -> list[Entry]:
        """The next entries after the position."""
        capacities = self._store.capacities
        if by == "charger":
            return await capacities.by_charger(partner, wanted, after, limit, stale=stale)
        every = await capacities.by_area(partner, wanted, stale=stale)
        begin = 0 if after is None else bisect_right(every, after, key=itemgetter(0))
        return every[begin : begin + limit]

    async def _portions(
        self,
        req: ApiRequest,
        resp: Response,
        query: dict[str, str],
        wanted: CapacityQuery,
        at_ms: range,
    ) -> AsyncIterator[bytes]:
        """The lines of all figures, in portions. While the client reads a portion, no turn is taken
        and at most READ_AT_ONCE lines are in memory, because the client may never read on.
        """
        partner, by, after = req.context.partner, query.get("by"), None
        stale: bool | None = None
        while at_ms:
            async with self._turns.of(partner):
                if stale is None:
                    stale = await pagination.accepts_stale(self._store, req, resp, query)
                if by is None:
                    moments = at_ms[:READ_AT_ONCE]
                    part = wanted if wanted.moments is None else wanted._replace(moments=moments)
                    totals = await self._store.capacities.totals(partner, part, stale=stale)
                    lines = await _encoded(_over_time(totals), by, moments)
                    at_ms = at_ms[READ_AT_ONCE:]
                else:
                    entries = await self._entries(
                        partner, wanted, by, after, READ_AT_ONCE, stale=stale
                    )
                    lines = await _encoded(entries, by, at_ms)
                    if len(entries) < READ_AT_ONCE:
                        at_ms = range(0)
                    else:
                        after = entries[-1].position
                    del entries
            stale = True
            for start in range(0, len(lines), SENT_AT_ONCE):
                yield b"\n".join(lines[start : start + SENT_AT_ONCE]) + b"\n"


async def _chain(first: bytes, portions: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for portion in portions:
        yield portion


async def _encoded(entries: Iterable[Entry], by: str | None, at_ms: range) -> list[bytes]:
    def encode(entry: Entry) -> bytes:
        (name, moment), figures = entry
        charger_id = name if by == "charger" else None
        area = (name or None) if by == "area" else None
        return to_json(capacity_of(figures, at_ms[moment], charger_id=charger_id, area=area))

    return await map_in_steps(encode, entries)


def _over_time(totals: Iterable[Figures]) -> list[Entry]:
    return [Entry(EntryPosition("", moment), figures) for moment, figures in enumerate(totals)]


def _position(text: str) -> EntryPosition | None:
    """The position in a cursor; None if it is invalid. Old cursors have a charger only."""
    found = _POSITION.fullmatch(text)
    return None if found is None else EntryPosition(found[1], int(found[2] or MAX_STREAMED))


def _capacity_query(query: dict[str, str], now_ms: int, *, as_lines: bool) -> CapacityQuery:
    """The query for capacities. Raises Invalid."""
    by = query.get("by")
    if by not in (None, "charger", "area"):
        raise Invalid("by", "It must be charger or area, or left out.")
    for name in _OF_PAGES:
        if name in query and as_lines:
            raise Invalid(name, f"It does not go with {NDJSON}, which has all in one answer.")
        if name in query and by is None:
            raise Invalid(name, "It can only be given together with by.")
    most = MAX_STREAMED if as_lines or by is not None else MAX_MOMENTS
    charger_id = query.get("chargerId")
    if charger_id is not None and not is_entity_id(charger_id):
        raise Invalid("chargerId", ENTITY_ID_RULE)
    wanted = CapacityQuery(
        box=_box(query["bbox"]) if "bbox" in query else None,
        moments=_moments(query, now_ms, most),
        max_age_ms=pagination.seconds_of(query, "maxAge") * 1000 if "maxAge" in query else None,
        now_ms=now_ms,
    )
    return wanted if charger_id is None else wanted._replace(first=charger_id, last=charger_id)


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


def _moments(query: dict[str, str], now_ms: int, most: int) -> range | None:
    """The wanted moments in the past; None for now."""
    if not any(name in query for name in _OF_SERIES):
        if "at" not in query:
            return None
        at_ms = check_instant("at", query["at"])
        if at_ms > now_ms:
            raise Invalid("at", "It must not be in the future.")
        return range(at_ms, at_ms + 1)
    if "at" in query:
        raise Invalid("at", "It cannot be given together with from, to or step.")
    for name in ("from", "step"):
        if name not in query:
            raise Missing(name, "from and step must be given together.")
    from_ms = check_instant("from", query["from"])
    to_ms = check_instant("to", query["to"]) if "to" in query else now_ms
    if to_ms > now_ms:
        raise Invalid("to", "It must not be in the future.")
    if from_ms >= to_ms:
        raise Invalid("from", "It must be before to, which is now unless it is given.")
    moments = range(from_ms, to_ms, pagination.seconds_of(query, "step") * 1000)
    if len(moments) > most:
        least = -((from_ms - to_ms) // (most * 1000))
        more = "" if most == MAX_STREAMED else f" ({MAX_STREAMED} with Accept: {NDJSON})"
        raise Invalid(
            "step", f"It must be at least {least}: there are at most {most} moments{more}."
        )
    return moments
