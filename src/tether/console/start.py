"""Start: the first three calls of a partner, each ticked as it arrives."""

from falcon.asgi import Request, Response

from tether.console.views import Views
from tether.console.visits import partner_of
from tether.domain.models import Charger, Vehicle
from tether.server.store import Store


class StartPage:
    """`…/start`."""

    def __init__(self, store: Store, views: Views) -> None:
        self._store = store
        self._views = views

    async def on_get(self, req: Request, resp: Response) -> None:
        partner, entities = partner_of(req).id, self._store.entities
        head, _ = await self._store.feed.ends(partner)
        await self._views.show(
            req,
            resp,
            "start.html",
            has_charger=bool(await entities.page(Charger, partner, "", 1)),
            has_vehicle=bool(await entities.page(Vehicle, partner, "", 1)),
            events=head,
            url=url_of(req),
        )

    on_head = on_get


def url_of(req: Request) -> str:
    """The server as the browser has it, to be pasted into a shell."""
    host = req.get_header("Host") or ""
    plain = host.replace("[", "").replace("]", "").replace(":", "").replace("-", "")
    if not plain.replace(".", "").isalnum() or not host.isascii():
        host = "127.0.0.1:8000"
    scheme = "https" if req.forwarded_scheme == "https" else "http"
    return f"{scheme}://{host}{req.context.base}"
