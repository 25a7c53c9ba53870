"""Start: the first three calls of a partner, each ticked as it arrives; or a simulated day."""

from falcon.asgi import Request

from tether.console.pages import FormPage
from tether.console.rendering import Renderer
from tether.console.simulated_day import SimulatedDays
from tether.console.users import partner_of
from tether.domain.errors import SetupError
from tether.domain.models import Charger, Vehicle
from tether.server.store import Store


class StartPage(FormPage):
    """`…/start`."""

    template = "start.html"

    def __init__(self, store: Store, renderer: Renderer) -> None:
        super().__init__(store, renderer)
        self._days = SimulatedDays(store, renderer.now_ms)
        self.changes = {"simulate": self._simulate}

    async def values(self, req: Request) -> dict[str, object]:
        partner, entities = partner_of(req).id, self._store.entities
        head, _ = await self._store.feed.ends(partner)
        return {
            "day": self._days.progress(partner),
            "why_not": await self._days.why_not(partner),
            "has_charger": bool(await entities.page(Charger, partner, "", 1)),
            "has_vehicle": bool(await entities.page(Vehicle, partner, "", 1)),
            "events": head,
            "url": url_of(req),
        }

    async def _simulate(self, req: Request, form: dict[str, str]) -> str:
        """Sends a simulated day."""
        partner = partner_of(req)
        if reason := await self._days.why_not(partner.id):
            raise SetupError(reason)
        self._days.begin(partner)
        return req.path


def url_of(req: Request) -> str:
    """The server as the browser has it, to be pasted into a shell."""
    host = req.get_header("Host") or ""
    plain = host.replace("[", "").replace("]", "").replace(":", "").replace("-", "")
    if not plain.replace(".", "").isalnum() or not host.isascii():
        host = "127.0.0.1:8000"
    scheme = "https" if req.forwarded_scheme == "https" else "http"
    return f"{scheme}://{host}{req.context.base}"
