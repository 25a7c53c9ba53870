"""Requests for a key: anybody may make one, and the operator approves or declines it."""

from typing import Any

import structlog
from falcon.asgi import Request, Response

from tether.console.keys import LIFETIMES_MS, CreatedKey, lifetime_of, limits_of
from tether.console.pages import FormPage, PublicPage, redirect
from tether.console.rate_limit import network_of
from tether.console.rendering import Renderer
from tether.console.request import actor_of, read_form
from tether.domain.errors import Invalid, RateLimited
from tether.domain.key_requests import LONGEST, KeyRequest, Limits, checked_form
from tether.domain.keys import DEFAULT_RATE, digest_of, is_token
from tether.server import key_requests
from tether.server.store import Store

log = structlog.get_logger()

REQUEST_KEY = "/request-key"
TOO_MANY = "Too many keys were asked for of late, from your address or by all. Try again later."


class RequestKeyPage(PublicPage):
    """`/request-key`: the form."""

    template = "request-key.html"

    async def values(self, req: Request) -> dict[str, Any]:
        return {"form": {}, "wrong": "", "mistake": "", "problem": "", "longest": LONGEST}

    async def on_post(self, req: Request, resp: Response) -> None:
        form = await read_form(req)
        try:
            await self.check_limit(req)
            checked = checked_form(form)
            network = network_of(req.context.client)
            token = await key_requests.add(self._store, self._now_ms(), checked, network)
        except Invalid as error:
            wrong = {"wrong": error.parameter, "mistake": error.hint}
            await self._show(req, resp, {}, status=400, form=form, **wrong)
        except (RateLimited, key_requests.TooMany) as error:
            resp.retry_after = error.retry_after_s
            await self._show(req, resp, {}, status=429, form=form, problem=TOO_MANY)
        else:
            log.info("key requested", organisation=checked.organisation, client=req.context.client)
            redirect(req, resp, f"{REQUEST_KEY}/{token}")


class RequestedKeyPage(PublicPage):
    """`/request-key/{token}`: the state of a request; after approval it shows the key, once."""

    template = "requested-key.html"

    async def values(self, req: Request, token: str) -> dict[str, Any]:
        request = await self._find(token)
        return {"request": request, "created": None, "status": 200 if request else 404}

    async def on_post(self, req: Request, resp: Response, token: str) -> None:
        await self.check_limit(req)
        request, claimed = await self._find(token), None
        if request is not None:
            claimed = await key_requests.claim(self._store, self._now_ms(), request)
        created = claimed and CreatedKey(*claimed)
        await self._show(req, resp, {"token": token}, created=created)

    async def _find(self, token: str) -> KeyRequest | None:
        if not is_token(token):
            return None
        return await self._store.key_requests.find(digest_of(token), self._now_ms())


class KeyRequestsPage(FormPage):
    """`/console/key-requests`: the operator decides on requests."""

    of_operator = True
    template = "key-requests.html"

    def __init__(self, store: Store, renderer: Renderer) -> None:
        super().__init__(store, renderer)
        self.changes = {"approve": self._approve, "decline": self._decline}

    async def values(self, req: Request) -> dict[str, object]:
        return {
            "requests": await self._store.key_requests.all(self._now_ms()),
            "lifetimes": LIFETIMES_MS,
            "rate": DEFAULT_RATE,
        }

    async def _approve(self, req: Request, form: dict[str, str]) -> str:
        now_ms = self._now_ms()
        request = await key_requests.find(self._store, now_ms, form.get("request", ""))
        rate, burst = limits_of(form)
        limits = Limits(rate, burst or rate.requests, lifetime_of(form), "test" in form)
        await key_requests.approve(
            self._store, now_ms, request, form.get("name", ""), limits,
            is_known="known" in form, by=actor_of(req),
        )  # fmt: skip
        return req.path

    async def _decline(self, req: Request, form: dict[str, str]) -> str:
        now_ms = self._now_ms()
        request = await key_requests.find(self._store, now_ms, form.get("request", ""))
        await key_requests.decline(self._store, now_ms, request, actor_of(req))
        return req.path
