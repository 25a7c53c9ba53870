"""Webhooks of a partner: create, test, change and replay them, and see the last requests."""

from functools import partial
from typing import Any

from falcon.asgi import Request

from tether.console.pages import Change, FormPage
from tether.console.rendering import Renderer, address
from tether.console.request import actor_of, partner_of, query_of
from tether.domain.errors import Conflict, Invalid, Unavailable
from tether.domain.models import is_entity_id, uuid_to_read
from tether.domain.webhook_validation import Replay, new_webhook
from tether.domain.webhook_views import attempt_view, outcome_view, webhook_view
from tether.domain.webhooks import MAX_ENDPOINTS, OVERLAP_MS, MessageType, message_id_in
from tether.server.store import Store
from tether.server.webhooks import WebhookService

ATTEMPTS = 50


class WebhooksPage(FormPage):
    """`…/webhooks`: all webhooks, and a form for a new one."""

    template = "webhooks.html"
    shown_errors = (Invalid, Conflict, Unavailable)

    def __init__(self, store: Store, service: WebhookService, renderer: Renderer) -> None:
        super().__init__(store, renderer)
        self._service = service

    def chosen(self, form: dict[str, str]) -> Change:
        return self._create

    async def values(self, req: Request) -> dict[str, object]:
        now_ms = self._now_ms()
        found = await self._store.webhooks.of_partner(partner_of(req).id)
        return {
            "webhooks": [webhook_view(endpoint, now_ms) for endpoint in found],
            "most": MAX_ENDPOINTS,
            "types": MessageType,
        }

    async def _create(self, req: Request, form: dict[str, str]) -> dict[str, object]:
        wanted = new_webhook(_document(form), allow_http=self._service.allow_http)
        endpoint, secret = await self._service.create(
            partner_of(req).id, wanted.fields, wanted.start or "now", actor_of(req)
        )
        return {"created": {"webhook": webhook_view(endpoint, self._now_ms()), "secret": secret}}


class WebhookPage(FormPage):
    """`…/webhooks/{id}`: one webhook, with the last requests to it."""

    template = "webhook.html"
    shown_errors = ()

    def __init__(self, store: Store, service: WebhookService, renderer: Renderer) -> None:
        super().__init__(store, renderer)
        self._service = service
        self.changes = {
            "test": self._test,
            "enable": partial(self._switch, enabled=True),
            "disable": partial(self._switch, enabled=False),
            "rotate": self._rotate,
            "replay": self._replay_message,
            "retry": partial(self._replay, replay=Replay(None, 0, None)),
            "again": partial(self._replay, replay=Replay(None, None, "start")),
            "delete": self._delete,
        }

    async def values(self, req: Request, id: str) -> dict[str, object]:
        partner, webhook_id = partner_of(req).id, uuid_to_read(id)
        failed = "failed" in query_of(req)
        endpoint = await self._store.webhooks.get(partner, webhook_id)
        backlog = await self._store.webhooks.backlog(endpoint)
        attempts = await self._store.webhooks.attempts(
            partner, webhook_id, None, ATTEMPTS, failed=failed
        )
        return {
            "webhook": webhook_view(endpoint, self._now_ms(), backlog),
            "attempts": [attempt_view(attempt) for attempt in attempts],
            "failed": failed,
            "outcome": None,
        }

    async def _test(self, req: Request, form: dict[str, str], id: str) -> dict[str, object]:
        outcome = await self._service.test(partner_of(req).id, uuid_to_read(id))
        return {"outcome": outcome_view(outcome)}

    async def _switch(self, req: Request, form: dict[str, str], id: str, *, enabled: bool) -> str:
        fields = {"enabled": enabled}
        await self._service.change(
            partner_of(req).id, uuid_to_read(id), fields, None, actor_of(req)
        )
        return req.path

    async def _rotate(self, req: Request, form: dict[str, str], id: str) -> dict[str, object]:
        endpoint, secret = await self._service.rotate(
            partner_of(req).id, uuid_to_read(id), OVERLAP_MS, actor_of(req)
        )
        return {"created": {"webhook": webhook_view(endpoint, self._now_ms()), "secret": secret}}

    async def _replay(self, req: Request, form: dict[str, str], id: str, *, replay: Replay) -> str:
        await self._service.replay(
            partner_of(req).id, uuid_to_read(id), replay, replay.start, actor_of(req)
        )
        return req.path

    async def _replay_message(self, req: Request, form: dict[str, str], id: str) -> str:
        message_id = form.get("message", "")
        if message_id_in(message_id) is None:
            raise Invalid("message", "It must be the id of a message.")
        return await self._replay(req, form, id, replay=Replay(message_id, None, None))

    async def _delete(self, req: Request, form: dict[str, str], id: str) -> str:
        await self._service.delete(partner_of(req).id, uuid_to_read(id), actor_of(req))
        return address(partner_of(req), "webhooks")


def _document(form: dict[str, str]) -> dict[str, Any]:
    """The form as a document of the API."""
    types = [kind for kind in MessageType if kind in form]
    document: dict[str, Any] = {"url": form.get("url", "")}
    if types:
        document["types"] = types
    if form.get("description"):
        document["description"] = form["description"]
    if form.get("from") == "start":
        document["from"] = "start"
    for name in ("chargerId", "vehicleId"):
        if form.get(name):
            if not is_entity_id(form[name]):
                raise Invalid(name, "It must be the id of one of yours.")
            document[name] = form[name]
    return document
