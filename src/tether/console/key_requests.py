"""Who asked for a key, for the operator: approve with a partner's name and limits, or decline."""

from falcon.asgi import Request

from tether.console.keys import LIFETIMES_MS, lifetime_of, limits_of
from tether.console.pages import FormPage
from tether.console.rendering import Renderer
from tether.console.users import actor_of
from tether.domain.key_requests import KeyRequest, Limits
from tether.domain.keys import DEFAULT_RATE
from tether.server import key_requests
from tether.server.store import Store


class KeyRequestsPage(FormPage):
    """`/console/key-requests`."""

    of_operator = True
    template = "key-requests.html"

    def __init__(self, store: Store, renderer: Renderer) -> None:
        super().__init__(store, renderer)
        self.changes = {"approve": self._approve, "decline": self._decline}

    async def values(self, req: Request) -> dict[str, object]:
        return {
            "requests": await self._store.key_requests.all(self._renderer.now_ms()),
            "lifetimes": [name for name in LIFETIMES_MS if name],
            "rate": DEFAULT_RATE,
        }

    async def _approve(self, req: Request, form: dict[str, str]) -> str:
        request = await self._find(form)
        rate, burst = limits_of(form)
        limits = Limits(rate, burst or rate.requests, lifetime_of(form), "test" in form)
        await key_requests.approve(
            self._store,
            self._renderer.now_ms(),
            request,
            form.get("name", ""),
            limits,
            is_known="known" in form,
            by=actor_of(req),
        )
        return req.path

    async def _decline(self, req: Request, form: dict[str, str]) -> str:
        request = await self._find(form)
        await key_requests.decline(self._store, self._renderer.now_ms(), request, actor_of(req))
        return req.path

    async def _find(self, form: dict[str, str]) -> KeyRequest:
        return await key_requests.find(
            self._store, self._renderer.now_ms(), form.get("request", "")
        )
