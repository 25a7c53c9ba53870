"""Webhooks over HTTP (an addition to the reference)."""

import re
from collections.abc import Callable
from typing import Any

import msgspec
from falcon.asgi import Response

from tether.domain.errors import EpochChanged, Invalid
from tether.domain.models import to_json, uuid_to_read
from tether.domain.timestamps import format_instant
from tether.domain.webhook_validation import (
    START_RULE,
    changes_of_webhook,
    new_webhook,
    overlap_of,
    replay_of,
)
from tether.domain.webhook_views import Webhook, attempt_view, outcome_view, webhook_view
from tether.http import pagination, requests
from tether.http.requests import ApiRequest
from tether.server.store import Store
from tether.server.webhooks import WebhookService

_POSITION = re.compile(r"([0-9]{1,18})(?: [0-9]{1,18})?")
_ATTEMPT = re.compile(r"[0-9a-f-]{36}")


class _Resource:
    def __init__(self, store: Store, service: WebhookService, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._service = service
        self._now_ms = now_ms

    async def _start(self, text: str | None) -> str | int | None:
        """The start that `from` gives; the number of an event if it is a cursor. Raises Invalid."""
        if text in (None, "now", "start"):
            return text
        epoch = await self._store.epochs.current()
        epoch_id, position = pagination.position_in(text or "")
        match = _POSITION.fullmatch(position)
        if match is None:
            raise Invalid("from", START_RULE)
        if epoch_id != epoch.id:
            raise EpochChanged("from", format_instant(epoch.began_ms), "with from=start")
        return int(match[1])

    async def _view(self, partner: int, webhook_id: str, **more: Any) -> Webhook:
        endpoint = await self._store.webhooks.get(partner, webhook_id)
        backlog = await self._store.webhooks.backlog(endpoint)
        view = webhook_view(endpoint, self._now_ms(), backlog)
        return msgspec.structs.replace(view, **more) if more else view


class WebhookListResource(_Resource):
    """`/webhooks`: creates an endpoint; lists all endpoints of the partner, the oldest first."""

    async def on_post(self, req: ApiRequest, resp: Response) -> None:
        document = await requests.read_document(req)
        wanted = new_webhook(document, allow_http=self._service.allow_http)
        start = await self._start(wanted.start)
        assert start is not None
        partner = req.context.partner
        webhook, secret = await self._service.create(
            partner, wanted.fields, start, requests.actor_of(req)
        )
        resp.status = 201
        resp.data = to_json(await self._view(partner, webhook.id, **_secret(secret)))

    async def on_get(self, req: ApiRequest, resp: Response) -> None:
        pagination.query_of(req, ())
        now_ms = self._now_ms()
        webhooks = await self._store.webhooks.of_partner(req.context.partner)
        resp.data = to_json([webhook_view(webhook, now_ms) for webhook in webhooks])


class WebhookResource(_Resource):
    """`/webhooks/{id}`: one endpoint."""

    async def on_get(self, req: ApiRequest, resp: Response, id: str) -> None:
        resp.data = to_json(await self._view(req.context.partner, uuid_to_read(id)))

    async def on_patch(self, req: ApiRequest, resp: Response, id: str) -> None:
        document = await requests.read_document(req)
        wanted = changes_of_webhook(document, allow_http=self._service.allow_http)
        start = await self._start(wanted.start)
        partner, webhook_id = req.context.partner, uuid_to_read(id)
        await self._service.change(
            partner, webhook_id, wanted.fields, start, requests.actor_of(req)
        )
        resp.data = to_json(await self._view(partner, webhook_id))

    async def on_delete(self, req: ApiRequest, resp: Response, id: str) -> None:
        await self._service.delete(req.context.partner, uuid_to_read(id), requests.actor_of(req))
        resp.status = 204


class WebhookTestResource(_Resource):
    """`/webhooks/{id}/test`: sends a test message and returns its outcome."""

    async def on_post(self, req: ApiRequest, resp: Response, id: str) -> None:
        outcome = await self._service.test(req.context.partner, uuid_to_read(id))
        resp.data = to_json(outcome_view(outcome))


class WebhookAttemptsResource(_Resource):
    """`/webhooks/{id}/attempts`: the requests to the endpoint, the newest first."""

    async def on_get(self, req: ApiRequest, resp: Response, id: str) -> None:
        page = pagination.Page(self._store, req, resp, ("limit", "cursor", "failed"))
        failed = page.query.get("failed", "false")
        if failed not in ("true", "false"):
            raise Invalid("failed", "It must be true or false.")
        webhook_id = uuid_to_read(id)
        before = await page.begin(lambda text: text if _ATTEMPT.fullmatch(text) else None)
        await self._store.webhooks.get(page.partner, webhook_id)
        found = await self._store.webhooks.attempts(
            page.partner, webhook_id, before, page.limit + 1, failed=failed == "true"
        )
        attempts = page.finish(found, lambda attempt: attempt.id)
        resp.data = to_json([attempt_view(attempt) for attempt in attempts])


class WebhookReplayResource(_Resource):
    """`/webhooks/{id}/replay`: sends messages again."""

    async def on_post(self, req: ApiRequest, resp: Response, id: str) -> None:
        replay = replay_of(await requests.read_document(req))
        start = await self._start(replay.start)
        partner, webhook_id = req.context.partner, uuid_to_read(id)
        count = await self._service.replay(
            partner, webhook_id, replay, start, requests.actor_of(req)
        )
        resp.status = 202
        known = {} if start is not None else {"replayed": count}
        resp.data = to_json(await self._view(partner, webhook_id, **known))


class WebhookSecretResource(_Resource):
    """`/webhooks/{id}/rotate-secret`: a new secret. The old one also signs for a while."""

    async def on_post(self, req: ApiRequest, resp: Response, id: str) -> None:
        # All members are optional, and so is the body.
        overlap_ms = overlap_of(await requests.read_document(req, if_empty=b"{}"))
        partner, webhook_id = req.context.partner, uuid_to_read(id)
        _, secret = await self._service.rotate(
            partner, webhook_id, overlap_ms, requests.actor_of(req)
        )
        resp.data = to_json(await self._view(partner, webhook_id, **_secret(secret)))


def _secret(text: str) -> dict[str, str]:
    return {"public_key" if text.startswith("whpk_") else "secret": text}
