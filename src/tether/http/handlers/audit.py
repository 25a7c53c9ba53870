"""The audit trail over HTTP (an addition to the reference): who changed what of the partner."""

import re

from falcon.asgi import Request, Response

from tether.domain.audit import ACTION, audit_view
from tether.domain.errors import Invalid
from tether.domain.models import to_json
from tether.http import requests
from tether.server.store import Store
from tether.storage.audit import END_OF_TIME, AuditFilter

LIST_PARAMETERS = ("limit", "cursor", "order", "action", "from", "to")
_POSITION = re.compile(r"([0-9]{1,15}) ([0-9a-f]{16})")


class AuditResource:
    """`/audit`: the partner's entries in the order of time."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def on_get(self, req: Request, resp: Response) -> None:
        page = requests.Page(self._store, req, resp, LIST_PARAMETERS)
        query = page.query
        if "action" in query and not ACTION.fullmatch(query["action"]):
            raise Invalid("action", "It must be one such as key.revoke.")
        instants = requests.instants_of(query, ("from", "to"))
        from_ms, to_ms = instants.get("from", 0), instants.get("to", END_OF_TIME)
        position = await page.begin(_POSITION.fullmatch)
        at_ms, _, entry_id = (position or "").partition(" ")
        wanted = AuditFilter(page.partner, query.get("action"), from_ms, to_ms)
        async with self._store.entity_turns.of(page.partner):
            found = await self._store.audit.page(
                wanted, (int(at_ms), entry_id) if position else None, page.limit + 1,
                descending=page.descending,
            )  # fmt: skip
        entries = found[: page.limit]
        resp.data = to_json([audit_view(one, to_partner=True) for one in entries])
        if len(found) > page.limit:
            page.link_next(f"{entries[-1].at_ms} {entries[-1].id}")

    on_head = on_get
