"""All partners, for the operator: how each does; create, rename and delete them."""

import asyncio
from typing import NamedTuple

import structlog
from falcon.asgi import Request

from tether.console.forms import query_of
from tether.console.keys import Made
from tether.console.pages import FormPage
from tether.console.rendering import Renderer
from tether.console.users import actor_of
from tether.domain.audit import Actor
from tether.domain.errors import NotFound, SetupError, TetherError
from tether.domain.partners import Partner
from tether.server import admin
from tether.server.store import Store
from tether.storage.fleet_overview import MOST_OF_EACH
from tether.storage.key_hours import Activity

log = structlog.get_logger()

PAGE = 50
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
NOTHING = Activity(0, 0, 0, 0)
KNOWN_H = 24  # hours in which a partner did something, from which on it is known what is usual


class Shown(NamedTuple):
    """A partner in the table."""

    partner: Partner
    chargers: int
    vehicles: int
    events: int
    backlog: int
    """Events that wait to be derived."""
    keys: int
    """Those that work."""
    last_used_ms: int | None
    activity: Activity
    silent_after_ms: int
    """So long without a request is longer than usual."""
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
        found = await self._store.partners.after(query_of(req).get("after", ""), PAGE + 1)
        now_ms, shown = self._renderer.now_ms(), found[:PAGE]
        used = await self._store.keys.use_by_partner(now_ms)
        did = await self._store.key_hours.of_partners([one.id for one in shown], now_ms)
        return {
            "partners": [await self._shown(one, used, did.get(one.id, NOTHING)) for one in shown],
            "following": found[PAGE - 1].name if len(found) > PAGE else None,
            "most": MOST_OF_EACH,
        }

    async def _shown(
        self, partner: Partner, used: dict[int, tuple[int, int | None]], activity: Activity
    ) -> Shown:
        head, derived = await self._store.feed.ends(partner.id)
        keys, last_ms = used.get(partner.id, (0, None))
        silent_after_ms = _silent_after_ms(activity)
        silent_ms = self._renderer.now_ms() - (last_ms or 0)
        sizes = await self._store.fleet.sizes(partner.id)
        return Shown(
            partner, *sizes, head, max(0, head - derived), keys, last_ms, activity, silent_after_ms,
            head > 0 and silent_ms > silent_after_ms, partner.id in self._deleting,
        )  # fmt: skip

    async def _create(self, req: Request, form: dict[str, str]) -> dict[str, object]:
        name, now_ms = form.get("name", ""), self._renderer.now_ms()
        if await self._store.partners.find(name) is not None:
            raise SetupError(f"There is a partner {name!r} already.")
        made = await admin.create_key(self._store, now_ms, name, by=actor_of(req))
        return {"made": Made(*made)}

    async def _rename(self, req: Request, form: dict[str, str]) -> str:
        partner = await self._find(form)
        now_ms, name = self._renderer.now_ms(), form.get("name", "")
        await admin.rename_partner(self._store, now_ms, partner.name, name, by=actor_of(req))
        return req.path

    async def _delete(self, req: Request, form: dict[str, str]) -> str:
        partner = await self._find(form)
        if form.get("name") != partner.name:
            raise SetupError(f"Nothing was deleted: the name that you typed is not {partner.name}.")
        if partner.id not in self._deleting:
            self._deleting[partner.id] = asyncio.create_task(self._erase(partner, actor_of(req)))
        return req.path

    async def _erase(self, partner: Partner, by: Actor) -> None:
        """Deletes the partner, which may take minutes; it can be done again if it does not end."""
        try:
            await admin.erase_partner(
                self._store, self._renderer.now_ms(), partner, lambda events: None, by=by
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
    """After so long without a request a partner is silent for longer than usual: twice its longest
    pause of the last seven days; a day where that is not known.
    """
    if activity.active_hours < KNOWN_H:
        return DAY_MS
    return 2 * activity.longest_pause_h * HOUR_MS
