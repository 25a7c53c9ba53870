"""Sums of sessions and energy over HTTP (an addition to the reference)."""

import re
from collections.abc import Collection
from zoneinfo import ZoneInfo

from falcon.asgi import Response

from tether.domain.calendar import LAST_MS, Calendar, Division, Unit, steps, undivided, zone_of
from tether.domain.errors import Invalid, Missing
from tether.domain.filters import SessionFilter
from tether.domain.load_curve import step_of
from tether.domain.models import to_json
from tether.domain.summary import Group, RowPosition, keys_of, summary_of
from tether.domain.timestamps import format_instant
from tether.domain.validation import check_instant
from tether.http import pagination
from tether.http.handlers.sessions import LIST_PARAMETERS, REPEATED, filter_of, ids_of
from tether.http.requests import ApiRequest
from tether.projections.load_curve import Window
from tether.server.store import Store

PARAMETERS = (
    "limit", "cursor", "by", "bucket", "timeZone",
    *(name for name in LIST_PARAMETERS[2:] if name not in ("order", "updatedFrom")),
)  # fmt: skip
ENERGY_PARAMETERS = (
    "limit", "cursor", "from", "to", "step", "timeZone", "by", "chargerId", "vehicleId", "stale",
)  # fmt: skip
_UNITS = f"{', '.join(list(Unit)[:-1])} or {list(Unit)[-1]}"
_POSITION = re.compile(r"([0-9]{1,15}) ([!-~]{0,128})")


class SessionSummaryResource:
    """`/sessions/summary`: sums of sessions by time and by group."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turns = pagination.large_answer_turns()

    async def on_get(self, req: ApiRequest, resp: Response) -> None:
        page = pagination.Page(self._store, req, resp, PARAMETERS, REPEATED)
        query, partner = page.query, page.partner
        wanted, group, division = filter_of(query), _group(query, list(Group)), _division(query)
        after = await page.begin(_position, derived=True)
        async with self._turns.of(partner):
            rows, stop = await self._store.summaries.page(
                partner, wanted, division, group, after=after, limit=page.limit
            )
            chargers = await self._store.summaries.chargers(partner, wanted, group)
            resp.data = to_json([
                summary_of(total, bucket, group, key, chargers(key)) for bucket, key, total in rows
            ])  # fmt: skip
        if stop is not None:
            page.link_next("{} {}".format(*stop), partial=len(rows) < page.limit)


class EnergyResource:
    """`/energy`: the charged energy over time, in steps."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turns = pagination.large_answer_turns()

    async def on_get(self, req: ApiRequest, resp: Response) -> None:
        page = pagination.Page(self._store, req, resp, ENERGY_PARAMETERS, REPEATED)
        query, partner = page.query, page.partner
        window, group = _window(query), _group(query, (Group.CHARGER, Group.AREA))
        charger_ids, vehicle_ids = (ids_of(query, name) for name in REPEATED)
        wanted = SessionFilter(charger_ids, vehicle_ids)
        after = await page.begin(_position, derived=True)
        async with self._turns.of(partner):
            rows, stop = await self._store.load_curves.page(
                partner, wanted, window, keys_of(group) if group else None,
                after=after, limit=page.limit,
            )  # fmt: skip
            resp.data = to_json([step_of(total, bucket, group, key) for bucket, key, total in rows])
        if stop is not None:
            page.link_next("{} {}".format(*stop), partial=len(rows) < page.limit)


def _division(query: dict[str, str]) -> Division:
    if "bucket" not in query:
        if "timeZone" in query:
            raise Invalid("timeZone", "It can only be given together with bucket.")
        return undivided
    if query["bucket"] not in list(Unit):
        raise Invalid("bucket", f"It must be one of {', '.join(Unit)}.")
    return Calendar(Unit(query["bucket"]), _zone(query)).bucket


def _zone(query: dict[str, str]) -> ZoneInfo:
    return zone_of("timeZone", query.get("timeZone", "UTC"))


def _window(query: dict[str, str]) -> Window:
    for name in ("from", "to", "step"):
        if name not in query:
            raise Missing(name)
    from_ms, to_ms = check_instant("from", query["from"]), check_instant("to", query["to"])
    if to_ms > LAST_MS:
        raise Invalid("to", f"It must not be after {format_instant(LAST_MS)}.")
    if from_ms >= to_ms:
        raise Invalid("from", "It must be before to.")
    step = query["step"]
    if step in list(Unit):
        return Window(from_ms, to_ms, Calendar(Unit(step), _zone(query)).bucket)
    step_ms = pagination.seconds_of(query, "step", f", or {', '.join(Unit)}") * 1000
    if "timeZone" in query:
        raise Invalid("timeZone", f"It can only be given together with a step of {_UNITS}.")
    return Window(from_ms, to_ms, steps(from_ms, step_ms))


def _group(query: dict[str, str], known: Collection[Group]) -> Group | None:
    text = query.get("by")
    if text is None:
        return None
    if text not in known:
        raise Invalid("by", f"It must be one of {', '.join(known)}, or left out.")
    return Group(text)


def _position(text: str) -> RowPosition | None:
    match = _POSITION.fullmatch(text)
    if match is None or int(match[1]) >= LAST_MS:
        return None
    return RowPosition(int(match[1]), match[2])
