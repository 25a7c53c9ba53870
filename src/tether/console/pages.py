"""What pages have in common: HEAD is answered as GET, and a POST makes the change that the pressed
button names.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from falcon.asgi import Request, Response

from tether.console.forms import choice, read_form
from tether.console.rendering import Renderer
from tether.console.users import base_of, require_change
from tether.domain.errors import Invalid, SetupError, TetherError
from tether.server.store import Store

Change: TypeAlias = Callable[..., Awaitable[str | dict[str, object]]]
"""Makes the change that a form asks for, of the request, the form and the parameters of the path.

Returns the path of the page to which it leads, or what this page shows of it.
"""


class Page:
    """A page of the console. `is_open` if nobody has to sign in, `of_operator` if it is there for
    the operator alone: the middleware looks at both.
    """

    is_open = False
    of_operator = False

    def __init__(self, store: Store, renderer: Renderer) -> None:
        self._store = store
        self._renderer = renderer

    on_get: Callable[..., Awaitable[None]]

    async def on_head(self, req: Request, resp: Response, **params: Any) -> None:
        await self.on_get(req, resp, **params)


class FormPage(Page):
    """A page with forms. What a change refuses is shown above them."""

    template: str
    changes: Mapping[str, Change]
    """By the value of the button, whose name is `do`."""
    values: Callable[..., Awaitable[dict[str, object]]]
    """What the template shows: of the request and the parameters of the path."""
    shown_errors: tuple[type[TetherError], ...] = (SetupError, Invalid)
    """Errors of changes that the page shows, with status 400."""

    async def on_get(self, req: Request, resp: Response, **params: Any) -> None:
        await self._show(req, resp, params)

    async def on_post(self, req: Request, resp: Response, **params: Any) -> None:
        require_change(req)
        form = await read_form(req)
        change = self.chosen(form)
        try:
            done = await change(req, form, **params)
        except self.shown_errors as error:
            await self._show(req, resp, params, status=400, problem=error.message, form=form)
            return
        if isinstance(done, str):
            redirect(req, resp, done)
        else:
            await self._show(req, resp, params, **done)

    def chosen(self, form: dict[str, str]) -> Change:
        """The change that the form asks for. Raises Invalid."""
        return self.changes[choice(form, "do", self.changes)]

    async def _show(
        self, req: Request, resp: Response, params: dict[str, Any], **done: Any
    ) -> None:
        """`done`: what came of a form: `problem` and `form`, or what was `made`."""
        values = {"problem": "", "form": {}, "made": None, **await self.values(req, **params)}
        await self._renderer.render(req, resp, self.template, **{**values, **done})


def redirect(req: Request, resp: Response, path: str) -> None:
    """Leads the browser to this page of ours, which it asks for by GET."""
    resp.status = 303
    resp.set_header("Location", base_of(req) + path)
