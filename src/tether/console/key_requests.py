"""Who asked for a key, for the operator: approve with a partner's name and limits, or decline."""

from falcon.asgi import Request, Response

from tether.console.forms import change_of, read_form
from tether.console.keys import LIVES_MS, limits_of
from tether.console.views import Views
from tether.console.visits import actor_of, base_of, require_operator
from tether.domain.audit import Actor
from tether.domain.errors import Invalid, SetupError
from tether.domain.key_requests import Limits
from tether.domain.keys import DEFAULT_RATE
from tether.server import key_requests
from tether.server.store import Store


class KeyRequestsPage:
    """`/console/key-requests`."""

    def __init__(self, store: Store, views: Views) -> None:
        self._store = store
        self._views = views

    async def on_get(self, req: Request, resp: Response) -> None:
        require_operator(req)
        await self._show(req, resp)

    on_head = on_get

    async def on_post(self, req: Request, resp: Response) -> None:
        require_operator(req)
        form = await read_form(req)
        change = change_of(form, {"approve": self._approve, "decline": self._decline})
        try:
            await change(form, actor_of(req))
        except (SetupError, Invalid) as error:
            await self._show(req, resp, status=400, problem=error.message, form=form)
            return
        resp.status = 303
        resp.set_header("Location", f"{base_of(req)}/console/key-requests")

    async def _show(
        self,
        req: Request,
        resp: Response,
        *,
        status: int = 200,
        problem: str = "",
        form: dict[str, str] | None = None,
    ) -> None:
        await self._views.show(
            req,
            resp,
            "key-requests.html",
            status=status,
            requests=await self._store.key_requests.all(self._views.now_ms()),
            problem=problem,
            form=form or {},
            lives=[life for life in LIVES_MS if life],
            rate=DEFAULT_RATE,
        )

    async def _approve(self, form: dict[str, str], by: Actor) -> None:
        now_ms = self._views.now_ms()
        request = await key_requests.find(self._store, now_ms, form.get("request", ""))
        rate, burst = limits_of(form)
        lives = form.get("lives", "")
        if lives not in LIVES_MS:
            raise Invalid("lives", f"It must be one of {', '.join(filter(None, LIVES_MS))}.")
        limits = Limits(rate, burst or rate.requests, LIVES_MS[lives], "test" in form)
        await key_requests.approve(
            self._store,
            now_ms,
            request,
            form.get("name", ""),
            limits,
            is_known="known" in form,
            by=by,
        )

    async def _decline(self, form: dict[str, str], by: Actor) -> None:
        now_ms = self._views.now_ms()
        request = await key_requests.find(self._store, now_ms, form.get("request", ""))
        await key_requests.decline(self._store, now_ms, request, by)
