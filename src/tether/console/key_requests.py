"""Requests for a key: anybody may ask for one, and the operator approves or declines."""

from typing import Any

import structlog
from falcon.asgi import Request, Response

from tether.console.forms import read_form
from tether.console.keys import LIFETIMES_MS, Made, lifetime_of, limits_of
from tether.console.pages import FormPage, Page, redirect
from tether.console.rendering import Renderer
from tether.console.signing_in import SignInLimit, network_of
from tether.console.users import actor_of
from tether.domain.console import digest_of_token, is_token
from tether.domain.errors import Invalid, RateLimited
from tether.domain.key_requests import LONGEST, KeyRequest, Limits, checked_form
from tether.domain.keys import DEFAULT_RATE
from tether.server import key_requests
from tether.server.store import Store

log = structlog.get_logger()

REQUEST_KEY = "/request-key"
MANY = "Too many keys were asked for of late, from your address or by all. Try again later."


class RequestKeyPage(Page):
    """`/request-key`: the form."""

    is_open = True

    def __init__(self, store: Store, renderer: Renderer, limit: SignInLimit) -> None:
        super().__init__(store, renderer)
        self._limit = limit

    async def on_get(self, req: Request, resp: Response) -> None:
        await self._show(req, resp)

    async def on_post(self, req: Request, resp: Response) -> None:
        form = await read_form(req)
        client = network_of(req.context.client)
        try:
            await self._limit.check(req.context.client)
            checked = checked_form(form)
            token = await key_requests.ask(self._store, self._renderer.now_ms(), checked, client)
        except Invalid as error:
            wrong = {"wrong": error.parameter, "mistake": error.hint}
            await self._show(req, resp, status=400, form=form, **wrong)
        except (RateLimited, key_requests.TooMany) as error:
            resp.set_header("Retry-After", str(error.retry_after_s))
            await self._show(req, resp, status=429, form=form, problem=MANY)
        else:
            log.info("key requested", organisation=checked.organisation, client=req.context.client)
            redirect(req, resp, f"{REQUEST_KEY}/{token}")

    async def _show(self, req: Request, resp: Response, **done: Any) -> None:
        values = {"form": {}, "wrong": "", "mistake": "", "problem": "", "longest": LONGEST}
        await self._renderer.render(req, resp, "request-key.html", **{**values, **done})


class RequestedKeyPage(Page):
    """`/request-key/{token}`: how the request stands; after approval it gives the key, once."""

    is_open = True

    def __init__(self, store: Store, renderer: Renderer, limit: SignInLimit) -> None:
        super().__init__(store, renderer)
        self._limit = limit

    async def on_get(self, req: Request, resp: Response, token: str) -> None:
        await self._show(req, resp, await self._find(token))

    async def on_post(self, req: Request, resp: Response, token: str) -> None:
        await self._limit.check(req.context.client)
        found, made = await self._find(token), None
        if found is not None:
            made = await key_requests.claim(self._store, self._renderer.now_ms(), found)
            if made is None:  # somebody was faster
                found = await self._find(token)
        await self._show(req, resp, found, made and Made(*made))

    async def _find(self, token: str) -> KeyRequest | None:
        if not is_token(token):
            return None
        return await self._store.key_requests.find(digest_of_token(token), self._renderer.now_ms())

    async def _show(
        self, req: Request, resp: Response, found: KeyRequest | None, made: Made | None = None
    ) -> None:
        status = 404 if found is None else 200
        await self._renderer.render(
            req, resp, "requested-key.html", status=status, request=found, made=made
        )


class KeyRequestsPage(FormPage):
    """`/console/key-requests`: the operator decides on requests."""

    of_operator = True
    template = "key-requests.html"

    def __init__(self, store: Store, renderer: Renderer) -> None:
        super().__init__(store, renderer)
        self.changes = {"approve": self._approve, "decline": self._decline}

    async def values(self, req: Request) -> dict[str, object]:
        return {
            "requests": await self._store.key_requests.all(self._renderer.now_ms()),
            "lifetimes": [name for name in LIFETIMES_MS if name],
            "rate": DEFAULT_RATE,
        }

    async def _approve(self, req: Request, form: dict[str, str]) -> str:
        request = await self._find(form)
        rate, burst = limits_of(form)
        limits = Limits(rate, burst or rate.requests, lifetime_of(form), "test" in form)
        await key_requests.approve(
            self._store,
            self._renderer.now_ms(),
            request,
            form.get("name", ""),
            limits,
            is_known="known" in form,
            by=actor_of(req),
        )
        return req.path

    async def _decline(self, req: Request, form: dict[str, str]) -> str:
        request = await self._find(form)
        await key_requests.decline(self._store, self._renderer.now_ms(), request, actor_of(req))
        return req.path

    async def _find(self, form: dict[str, str]) -> KeyRequest:
        return await key_requests.find(
            self._store, self._renderer.now_ms(), form.get("request", "")
        )
