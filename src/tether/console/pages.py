"""Base classes of pages. HEAD is answered as GET. A POST makes the change of the pressed button."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias, TypeVar

from falcon.asgi import Request, Response

from tether.console.rate_limit import RateLimit, network_of
from tether.console.rendering import Renderer
from tether.console.request import base_of, choice, problem_of, read_form, require_change
from tether.domain.errors import Invalid, SetupError, TetherError, Unavailable
from tether.server.store import Store
from tether.storage.turns import Turns

PATIENCE_S = 5.0  # with the database, for a page
NO_CHANGE: dict[str, Any] = {"problem": "", "form": {}, "created": None}
T = TypeVar("T")
Change: TypeAlias = Callable[..., Awaitable[str | dict[str, object]]]
"""Makes a change. Its arguments are the request, the form and the parameters of the path.

Returns the path of the next page, or values for the template of this page.
"""


class Page:
    """A page of the console.

    The middleware reads `is_public` (without sign-in) and `of_operator` (for the operator only).
    """

    is_public = False
    of_operator = False
    template: str
    values: Callable[..., Awaitable[dict[str, Any]]]
    """The values for the template, and perhaps the `status` of the response.

    Its arguments are the request and the parameters of the path.
    """

    def __init__(self, store: Store, renderer: Renderer) -> None:
        self._store = store
        self._renderer = renderer
        self._now_ms = renderer.now_ms

    async def _get(self, req: Request, resp: Response, **params: Any) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._show(req, resp, params)
        except TimeoutError as error:
            raise Unavailable from error

    on_get: Callable[..., Awaitable[None]] = _get

    async def _show(
        self, req: Request, resp: Response, params: dict[str, Any], **more: Any
    ) -> None:
        """Renders the page; `more` replaces some of its values."""
        values = {**await self.values(req, **params), **more}
        await self._renderer.render(req, resp, self.template, **values)

    async def on_head(self, req: Request, resp: Response, **params: Any) -> None:
        await self.on_get(req, resp, **params)


class SlowPage(Page):
    """A page that may read much, and bounds the time itself. Two are made at a time, for different
    partners.
    """

    def __init__(self, store: Store, renderer: Renderer) -> None:
        super().__init__(store, renderer)
        self._turns = Turns(2, per_partner=1)

    async def _get(self, req: Request, resp: Response, **params: Any) -> None:
        await self._show(req, resp, params)

    on_get = _get


class PublicPage(Page):
    """A page that needs no sign-in. It limits how often each network may send its form."""

    is_public = True

    def __init__(self, store: Store, renderer: Renderer, limit: RateLimit) -> None:
        super().__init__(store, renderer)
        self._limit = limit

    async def check_limit(self, req: Request) -> None:
        """Raises RateLimited."""
        await self._limit.check(network_of(req.context.client))


class FormPage(Page):
    """A page with forms. An error of a change is shown above them."""

    changes: Mapping[str, Change]
    """The changes by the value of the pressed button. The name of all buttons is `do`."""
    shown_errors: tuple[type[TetherError], ...] = (SetupError, Invalid)
    """Errors of changes that the page shows, with status 400."""

    async def on_post(self, req: Request, resp: Response, **params: Any) -> None:
        require_change(req)
        form = await read_form(req)
        change = self.chosen(form)
        try:
            done = await change(req, form, **params)
        except self.shown_errors as error:
            await self._show(req, resp, params, status=400, problem=problem_of(error), form=form)
            return
        if isinstance(done, str):
            redirect(req, resp, done)
        else:
            await self._show(req, resp, params, **done)

    def chosen(self, form: dict[str, str]) -> Change:
        """The change that the form asks for. Raises Invalid."""
        return self.changes[choice(form, "do", self.changes)]

    async def _show(
        self, req: Request, resp: Response, params: dict[str, Any], **more: Any
    ) -> None:
        """`more` is the result of a change: `problem` and `form`, or what was `created`."""
        await super()._show(req, resp, params, **{**NO_CHANGE, **more})


def split_page(rows: list[T], size: int) -> tuple[list[T], T | None]:
    """The first `size` rows, and the last of them if more rows follow, on another page."""
    return rows[:size], rows[size - 1] if len(rows) > size else None


def redirect(req: Request, resp: Response, path: str) -> None:
    """Redirects the browser to this page of ours."""
    resp.status = 303
    resp.set_header("Location", base_of(req) + path)
