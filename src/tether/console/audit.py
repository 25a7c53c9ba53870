"""The audit trail of a partner, or of all partners for the operator; also as a file."""

import re
from collections.abc import AsyncGenerator, Callable

from falcon.asgi import Request, Response

from tether.console.pages import Page, split_page
from tether.console.request import base_of, partner_of, position, problem_of, query_of, user_of
from tether.console.user_sessions import UserSessions
from tether.domain.audit import ACTION, AuditEntry, AuditRow, audit_view
from tether.domain.errors import Invalid, NotFound
from tether.domain.models import to_json
from tether.files.csv_dialect import csv_line
from tether.files.csv_table import AUDIT_COLUMNS, audit_csv
from tether.server.store import Store
from tether.storage.audit import END_OF_TIME, AuditFilter, AuditPosition
from tether.storage.turns import Turns

PAGE = 50
ENTRIES_AT_ONCE = 500
_POSITION = re.compile(r"([0-9]{1,15}) ([0-9a-f]{16})")


class AuditPage(Page):
    """`/console/audit` and `…/audit`: the newest first."""

    template = "audit.html"

    async def values(self, req: Request) -> dict[str, object]:
        query = query_of(req)
        action, problem = query.get("action", ""), ""
        try:
            wanted = _wanted(req, action)
        except Invalid as error:
            wanted, problem = _wanted(req, ""), problem_of(error)
        before = position(query, "before", _POSITION)
        found = await self._store.audit.page(wanted, before, PAGE + 1, descending=True)
        rows, last = split_page([] if problem else found, PAGE)
        names = {}
        if wanted.partner is None:
            names = {partner.id: partner.name for partner in await self._store.partners.all()}
        return {
            "status": 400 if problem else 200,
            "problem": problem,
            "entries": [
                (stored, _entry(req, stored), names.get(stored.partner, "")) for stored in rows
            ],
            "is_all": wanted.partner is None,
            "here": base_of(req) + req.path,
            "action": action,
            "earlier": last and f"{last.at_ms} {last.id}",
            "text": _text,
        }


class AuditFile:
    """`/console/audit.csv`, `….ndjson` and the same of a partner: all entries, the oldest first."""

    def __init__(self, store: Store, user_sessions: UserSessions) -> None:
        self._store = store
        self._user_sessions = user_sessions
        self._turns = Turns(2, per_partner=1)

    async def on_get(self, req: Request, resp: Response, form: str) -> None:
        if form not in ("csv", "ndjson"):
            raise NotFound
        wanted = _wanted(req, query_of(req).get("action", ""))
        resp.content_type = "text/csv; charset=utf-8" if form == "csv" else "application/x-ndjson"
        resp.downloadable_as = f"audit.{form}"
        lines = self._lines(req, wanted, as_csv=form == "csv")
        resp.stream = self._user_sessions.while_signed_in(req, lines)

    async def _lines(
        self, req: Request, wanted: AuditFilter, *, as_csv: bool
    ) -> AsyncGenerator[bytes]:
        line: Callable[[AuditEntry], str] = audit_csv if as_csv else _ndjson
        if as_csv:
            yield csv_line(AUDIT_COLUMNS).encode()
        after: AuditPosition | None = None
        while True:
            async with self._turns.of(wanted.partner or 0):
                found = await self._store.audit.page(wanted, after, ENTRIES_AT_ONCE)
            if not found:
                return
            yield "".join(line(_entry(req, stored)) for stored in found).encode()
            after = found[-1].at_ms, found[-1].id


def _wanted(req: Request, action: str) -> AuditFilter:
    """The filter of the request. Raises Invalid, and NotFound if the user may not see all."""
    if action and not ACTION.fullmatch(action):
        raise Invalid("action", "It must be one such as key.revoke.")
    if req.context.partner is None and not user_of(req).is_operator:
        raise NotFound
    partner = None if req.context.partner is None else partner_of(req).id
    return AuditFilter(partner, action or None, 0, END_OF_TIME)


def _entry(req: Request, stored: AuditRow) -> AuditEntry:
    return audit_view(stored, to_partner=not user_of(req).is_operator)


def _text(value: object) -> str:
    """A value as text; the values of a list are separated by commas."""
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return value if isinstance(value, str) else to_json(value).decode()


def _ndjson(entry: AuditEntry) -> str:
    return to_json(entry).decode() + "\n"
