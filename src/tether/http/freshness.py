"""Whether a client waits for what is not derived yet (an addition to the reference)."""

from collections.abc import Mapping

from falcon.asgi import Request, Response

from tether.domain.errors import Invalid
from tether.http import requests
from tether.server.store import Store

HEADER = "Tether-Derived-To"


async def takes_stale(
    store: Store, req: Request, resp: Response, query: Mapping[str, str] | None = None
) -> bool:
    """Whether the client takes what is derived by now; the answer then says up to which event.

    `query` has the parameters where they are read already. Raises Invalid.
    """
    if query is None:
        query = requests.query_of(req, ("stale",))
    wanted = query.get("stale")
    if wanted is None:
        return False
    if wanted != "allowed":
        raise Invalid("stale", "It must be allowed, or left out.")
    # Before anything is read: what is derived meanwhile is more than is promised, never less.
    epoch = await store.epochs.current()
    seq = await store.projector.derived_to(requests.partner_of(req))
    resp.set_header(HEADER, requests.opaque(epoch.id, str(seq)))
    return True
