"""Start: the first three calls of a partner, each ticked as it arrives; or a simulated day."""

from falcon.asgi import Request, Response

from tether.console.forms import change_of, read_form
from tether.console.simulated_day import SimulatedDays
from tether.console.views import Views, address
from tether.console.visits import base_of, partner_of, require_change
from tether.domain.errors import SetupError
from tether.domain.models import Charger, Vehicle
from tether.server.store import Store


class StartPage:
    """`…/start`."""

    def __init__(self, store: Store, views: Views) -> None:
        self._store = store
        self._views = views
        self._days = SimulatedDays(store, views.now_ms)

    async def on_get(self, req: Request, resp: Response) -> None:
        await self._show(req, resp)

    on_head = on_get

    async def on_post(self, req: Request, resp: Response) -> None:
        """Sends a simulated day."""
        require_change(req)
        change_of(await read_form(req), {"simulate": None})
        partner = partner_of(req)
        try:
            if reason := await self._days.why_not(partner.id):
                raise SetupError(reason)
            self._days.begin(partner)
        except SetupError as error:
            await self._show(req, resp, status=400, problem=error.message)
        else:
            resp.status = 303
            resp.set_header("Location", base_of(req) + address(partner, "start"))

    async def _show(
        self, req: Request, resp: Response, *, status: int = 200, problem: str = ""
    ) -> None:
        partner, entities = partner_of(req).id, self._store.entities
        head, _ = await self._store.feed.ends(partner)
        await self._views.show(
            req,
            resp,
            "start.html",
            status=status,
            problem=problem,
            day=self._days.progress(partner),
            why_not=await self._days.why_not(partner),
            has_charger=bool(await entities.page(Charger, partner, "", 1)),
            has_vehicle=bool(await entities.page(Vehicle, partner, "", 1)),
            events=head,
            url=url_of(req),
        )


def url_of(req: Request) -> str:
    """The server as the browser has it, to be pasted into a shell."""
    host = req.get_header("Host") or ""
    plain = host.replace("[", "").replace("]", "").replace(":", "").replace("-", "")
    if not plain.replace(".", "").isalnum() or not host.isascii():
        host = "127.0.0.1:8000"
    scheme = "https" if req.forwarded_scheme == "https" else "http"
    return f"{scheme}://{host}{req.context.base}"
