"""The audit trail of a partner over HTTP (an addition to the reference)."""

import re

from falcon.asgi import Response

from tether.domain.audit import ACTION, audit_view
from tether.domain.errors import Invalid
from tether.domain.models import to_json
from tether.http import pagination
from tether.http.requests import ApiRequest
from tether.server.store import Store
from tether.storage.audit import END_OF_TIME, AuditFilter

LIST_PARAMETERS = ("limit", "cursor", "order", "action", "from", "to")
_POSITION = re.compile(r"([0-9]{1,15}) ([0-9a-f]{16})")


class AuditResource:
    """`/audit`: the partner's entries by time."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def on_get(self, req: ApiRequest, resp: Response) -> None:
        page = pagination.Page(self._store, req, resp, LIST_PARAMETERS)
        query = page.query
        if "action" in query and not ACTION.fullmatch(query["action"]):
            raise Invalid("action", "It must be one such as key.revoke.")
        instants = pagination.instants_of(query, ("from", "to"))
        from_ms, to_ms = instants.get("from", 0), instants.get("to", END_OF_TIME)
        after = await page.begin(_position)
        wanted = AuditFilter(page.partner, query.get("action"), from_ms, to_ms)
        async with self._store.entity_turns.of(page.partner):
            found = await self._store.audit.page(
                wanted, after, page.limit + 1, descending=page.descending
            )
        entries = page.finish(found, lambda entry: f"{entry.at_ms} {entry.id}")
        resp.data = to_json([audit_view(entry, to_partner=True) for entry in entries])


def _position(text: str) -> tuple[int, str] | None:
    match = _POSITION.fullmatch(text)
    return (int(match[1]), match[2]) if match else None
