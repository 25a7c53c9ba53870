"""Webhooks of a partner: make, test, change and replay them, and see what was answered."""

from typing import Any, NamedTuple

from falcon.asgi import Request, Response

from tether.console.forms import change_of, query_of, read_form
from tether.console.views import Views, address
from tether.console.visits import actor_of, base_of, partner_of, require_change
from tether.domain.errors import Conflict, Invalid, NotFound, Unavailable
from tether.domain.models import event_id_from_path, is_entity_id
from tether.domain.webhook_validation import Replay, new_webhook
from tether.domain.webhook_views import (
    Webhook,
    WebhookAttempt,
    WebhookOutcome,
    attempt_view,
    outcome_view,
    webhook_view,
)
from tether.domain.webhooks import MOST_ENDPOINTS, MessageType, message_id_in
from tether.server.store import Store
from tether.server.webhooks import WebhookService

ATTEMPTS = 50
OVERLAP_MS = 24 * 3_600_000
_NEWEST = "~"


class Made(NamedTuple):
    """A secret that has just been made: the only time that it is shown."""

    webhook: Webhook
    secret: str


class WebhooksPage:
    """`…/webhooks`: all of them, and a form for another one."""

    def __init__(self, store: Store, service: WebhookService, views: Views) -> None:
        self._store = store
        self._service = service
        self._views = views

    async def on_get(self, req: Request, resp: Response) -> None:
        await self._show(req, resp)

    on_head = on_get

    async def on_post(self, req: Request, resp: Response) -> None:
        require_change(req)
        form = await read_form(req)
        partner = partner_of(req)
        try:
            wanted = new_webhook(_document(form), allow_http=self._service.allow_http)
            endpoint, secret = await self._service.create(
                partner.id, wanted.fields, wanted.start or "now", actor_of(req)
            )
        except (Invalid, Conflict, Unavailable) as error:
            await self._show(req, resp, status=400, problem=error.message, form=form)
            return
        made = Made(webhook_view(endpoint, self._views.now_ms()), secret)
        await self._show(req, resp, made=made)

    async def _show(
        self,
        req: Request,
        resp: Response,
        *,
        status: int = 200,
        made: Made | None = None,
        problem: str = "",
        form: dict[str, str] | None = None,
    ) -> None:
        now_ms = self._views.now_ms()
        found = await self._store.webhooks.of_partner(partner_of(req).id)
        await self._views.show(
            req,
            resp,
            "webhooks.html",
            status=status,
            webhooks=[webhook_view(one, now_ms) for one in found],
            most=MOST_ENDPOINTS,
            types=list(MessageType),
            made=made,
            problem=problem,
            form=form or {},
        )


class WebhookPage:
    """`…/webhooks/{id}`: one of them, with the last requests to it."""

    def __init__(self, store: Store, service: WebhookService, views: Views) -> None:
        self._store = store
        self._service = service
        self._views = views

    async def on_get(self, req: Request, resp: Response, id: str) -> None:
        await self._show(req, resp, _id(id))

    on_head = on_get

    async def on_post(self, req: Request, resp: Response, id: str) -> None:
        require_change(req)
        form = await read_form(req)
        webhook_id, partner, by = _id(id), partner_of(req), actor_of(req)
        words = ("test", "enable", "disable", "rotate", "replay", "retry", "again", "delete")
        word = change_of(form, {word: word for word in words})
        outcome: WebhookOutcome | None = None
        made: Made | None = None
        service = self._service
        if word == "test":
            outcome = outcome_view(await service.test(partner.id, webhook_id))
        elif word in ("enable", "disable"):
            fields = {"enabled": word == "enable"}
            await service.change(partner.id, webhook_id, fields, None, by)
        elif word == "rotate":
            endpoint, secret = await service.rotate(partner.id, webhook_id, OVERLAP_MS, by)
            made = Made(webhook_view(endpoint, self._views.now_ms()), secret)
        elif word == "delete":
            await service.delete(partner.id, webhook_id, by)
            resp.status = 303
            resp.set_header("Location", base_of(req) + address(partner, "webhooks"))
            return
        else:
            replay, start = _replay(word, form)
            await service.replay(partner.id, webhook_id, replay, start, by)
        if outcome or made:
            await self._show(req, resp, webhook_id, outcome=outcome, made=made)
        else:
            resp.status = 303
            resp.set_header("Location", base_of(req) + address(partner, "webhooks", webhook_id))

    async def _show(
        self,
        req: Request,
        resp: Response,
        webhook_id: str,
        *,
        outcome: WebhookOutcome | None = None,
        made: Made | None = None,
    ) -> None:
        partner, failed = partner_of(req), "failed" in query_of(req)
        endpoint = await self._store.webhooks.get(partner.id, webhook_id)
        backlog = await self._store.webhooks.backlog(endpoint)
        attempts = await self._store.webhooks.attempts(
            partner.id, webhook_id, _NEWEST, ATTEMPTS, failed=failed
        )
        shown: list[WebhookAttempt] = [attempt_view(one) for one in attempts]
        await self._views.show(
            req,
            resp,
            "webhook.html",
            webhook=webhook_view(endpoint, self._views.now_ms(), backlog),
            attempts=shown,
            failed=failed,
            outcome=outcome,
            made=made,
        )


def _document(form: dict[str, str]) -> dict[str, Any]:
    """The endpoint that the form asks for, as the API has it."""
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


def _replay(word: str, form: dict[str, str]) -> tuple[Replay, str | None]:
    """What is to be sent once more, and from where if it is everything."""
    if word == "again":
        return Replay(None, None, "start"), "start"
    if word == "retry":
        return Replay(None, 0, None), None
    message_id = form.get("message", "")
    if message_id_in(message_id) is None:
        raise Invalid("message", "It must be the id of a message.")
    return Replay(message_id, None, None), None


def _id(segment: str) -> str:
    webhook_id = event_id_from_path(segment)
    if webhook_id is None:
        raise NotFound
    return webhook_id
