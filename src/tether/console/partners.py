"""All partners, for the operator."""

from falcon.asgi import Request, Response

from tether.console.views import Views
from tether.console.visits import visit_of
from tether.domain.errors import NotFound
from tether.server.store import Store

SHOWN = 500


class PartnersPage:
    """`/console/partners`."""

    def __init__(self, store: Store, views: Views) -> None:
        self._store = store
        self._views = views

    async def on_get(self, req: Request, resp: Response) -> None:
        if not visit_of(req).is_operator:
            raise NotFound
        partners = await self._store.partners.first(SHOWN + 1)
        await self._views.show(
            req, resp, "partners.html",
            partners=partners[:SHOWN], is_cut=len(partners) > SHOWN,
        )  # fmt: skip

    on_head = on_get
