"""All partners, for the operator: their activity; create, rename and delete them."""

import asyncio
from typing import NamedTuple
from urllib.parse import urlencode

import structlog
from falcon.asgi import Request

from tether.console.keys import CreatedKey
from tether.console.pages import FormPage, split_page
from tether.console.rendering import Renderer
from tether.console.request import actor_of, path_of, query_of
from tether.domain.audit import Actor
from tether.domain.errors import NotFound, SetupError, TetherError
from tether.domain.partners import Partner
from tether.domain.timestamps import DAY_MS, HOUR_MS
from tether.server import admin
from tether.server.store import Store
from tether.storage.fleet_overview import MAX_OF_EACH
from tether.storage.key_hours import Activity

log = structlog.get_logger()

PAGE = 50
NOTHING = Activity(0, 0, 0, 0)
KNOWN_H = 24  # active hours after which the usual pause of a partner is known


class PartnerRow(NamedTuple):
    """A partner in the table."""

    partner: Partner
    chargers: int
    vehicles: int
    events: int
    backlog: int
    """Events that are not derived yet."""
    keys: int
    """Keys that work."""
    last_used_ms: int | None
    activity: Activity
    silent_after_ms: int
    """A longer pause than this is unusual."""
    is_silent: bool
    is_being_deleted: bool


class PartnersPage(FormPage):
    """`/console/partners`."""

    of_operator = True
    template = "partners.html"

    def __init__(self, store: Store, renderer: Renderer) -> None:
        super().__init__(store, renderer)
        self._deleting: dict[int, asyncio.Task[None]] = {}
        self.changes = {"create": self._create, "rename": self._rename, "delete": self._delete}

    async def values(self, req: Request) -> dict[str, object]:
        now_ms, query = self._now_ms(), query_of(req)
        after, text = query.get("after", ""), query.get("q", "")
        found = await self._store.partners.after(after, PAGE + 1, text=text)
        partners, last = split_page(found, PAGE)
        uses = await self._store.keys.use_by_partner(now_ms)
        activities = await self._store.key_hours.of_partners(
            [partner.id for partner in partners], now_ms
        )
        return {
            "partners": [
                await self._row(
                    partner, *uses.get(partner.id, (0, None)), activities.get(partner.id, NOTHING)
                )
                for partner in partners
            ],
            "text": text,
            "following": last and urlencode({"q": text, "after": last.name}),
            "most": MAX_OF_EACH,
        }

    async def _row(
        self, partner: Partner, keys: int, last_ms: int | None, activity: Activity
    ) -> PartnerRow:
        head, derived = await self._store.derivations.progress(partner.id)
        silent_after_ms = _silent_after_ms(activity)
        silent_ms = self._now_ms() - (last_ms or 0)
        sizes = await self._store.fleet.sizes(partner.id)
        return PartnerRow(
            partner, *sizes, head, max(0, head - derived), keys, last_ms, activity, silent_after_ms,
            head > 0 and silent_ms > silent_after_ms, partner.id in self._deleting,
        )  # fmt: skip

    async def _create(self, req: Request, form: dict[str, str]) -> dict[str, object]:
        name, now_ms = form.get("name", ""), self._now_ms()
        if await self._store.partners.find(name) is not None:
            raise SetupError(f"There is a partner {name!r} already.")
        created = await admin.create_key(self._store, now_ms, name, by=actor_of(req))
        return {"created": CreatedKey(*created)}

    async def _rename(self, req: Request, form: dict[str, str]) -> str:
        partner = await self._find(form)
        now_ms, name = self._now_ms(), form.get("name", "")
        await admin.rename_partner(self._store, now_ms, partner.name, name, by=actor_of(req))
        return path_of(req)

    async def _delete(self, req: Request, form: dict[str, str]) -> str:
        partner = await self._find(form)
        if form.get("name") != partner.name:
            raise SetupError(f"Nothing was deleted: the name that you typed is not {partner.name}.")
        if partner.id not in self._deleting:
            self._deleting[partner.id] = asyncio.create_task(self._erase(partner, actor_of(req)))
        return path_of(req)

    async def _erase(self, partner: Partner, by: Actor) -> None:
        """Deletes the partner. It may take minutes, and can be repeated if it is interrupted."""
        try:
            await admin.erase_partner(
                self._store, self._now_ms(), partner, lambda events: None, by=by
            )
            log.info("partner deleted", partner=partner.name)
        except TetherError as error:
            log.error("partner not deleted", partner=partner.name, exc_info=error)
        finally:
            del self._deleting[partner.id]

    async def _find(self, form: dict[str, str]) -> Partner:
        number = form.get("partner", "")
        if not number.isdecimal() or len(number) > 15:
            raise NotFound
        return await self._store.partners.get(int(number))


def _silent_after_ms(activity: Activity) -> int:
    """The pause after which a partner counts as silent.

    It is twice the longest pause of the last seven days, or a day if that is not known.
    """
    if activity.active_hours < KNOWN_H:
        return DAY_MS
    return 2 * activity.longest_pause_h * HOUR_MS
