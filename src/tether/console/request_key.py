"""Asking for a key, which anybody may: the form, and the page at which the requester waits."""

from typing import Any

import structlog
from falcon.asgi import Request, Response

from tether.console.forms import read_form
from tether.console.keys import Made
from tether.console.pages import Page, redirect
from tether.console.rendering import Renderer
from tether.console.signing_in import SignInLimit, network_of
from tether.domain.console import digest_of_token, is_token
from tether.domain.errors import Invalid, RateLimited
from tether.domain.key_requests import LONGEST, KeyRequest, checked_form
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
