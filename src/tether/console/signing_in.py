"""Signing in and out: partners with a key, operators with a link that is good once."""

from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from falcon.asgi import Request, Response

from tether.console.forms import query_of, read_form
from tether.console.pages import Page, redirect
from tether.console.rate_limit import RateLimit
from tether.console.rendering import Renderer, address
from tether.console.users import HOME, UserSessions, local_path, user_of
from tether.domain.audit import NOBODY, Actor
from tether.domain.console import digest_of_token, is_token
from tether.domain.errors import Forbidden, RateLimited
from tether.domain.keys import Rate, digest_of, is_well_formed
from tether.server.authenticator import Authenticator
from tether.server.store import Store
from tether.storage.audit import audit_entry

ATTEMPTS = Rate(20, 60)  # of each address
NOTED = Rate(60, 60)  # refused ones that a worker notes in the audit trail


class SignInLimit:
    """How often an address may try to sign in; of IPv6 all that are given out together."""

    def __init__(self, workers: int) -> None:
        self._limit = RateLimit(ATTEMPTS, ATTEMPTS.requests, workers)

    async def check(self, client: str | None) -> None:
        """Raises RateLimited if it tried too often."""
        await self._limit.check(network_of(client))


def network_of(client: str | None) -> str:
    """The address; of IPv6 the network that is given out as a whole; nothing if there is none."""
    try:
        found = ip_address(client or "")
    except ValueError:
        return ""
    if isinstance(found, IPv6Address):
        return str(ip_network((found, 64), strict=False))
    return str(found)


class RefusedSignIns:
    """Notes refused ones in the audit trail: of a flood, which is like its beginning, only some."""

    def __init__(self, store: Store, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms
        self._limit = RateLimit(NOTED, NOTED.requests, 1)

    async def note(self, req: Request, secret: str | None) -> None:
        """This one was refused: with a key, which may be one of a partner that works no more, or
        with a link.
        """
        try:
            await self._limit.check("")
        except RateLimited:
            return
        known = None
        if secret and is_well_formed(secret):
            known = await self._store.keys.find(digest_of(secret))
        by = Actor(
            "operator" if secret is None else "key",
            known.prefix if known else "",
            req.context.request_id,
            req.context.client or "",
        )
        what = "link" if secret is None else "key" if known else "unknown key"
        partner = known.partner if known else NOBODY
        await self._store.audit.add(
            audit_entry(partner, self._now_ms(), by, "console.sign_in_refused", what)
        )


class HomePage(Page):
    """`/console`: leads to what the visitor most likely wants to see."""

    async def on_get(self, req: Request, resp: Response) -> None:
        key = user_of(req).key
        if key is not None:
            head, _ = await self._store.feed.ends(key.partner)
            path = f"/console/p/{key.partner}/{'live' if head else 'start'}"
        else:
            partners = await self._store.partners.after("", 2)
            path = address(partners[0], "live") if len(partners) == 1 else "/console/partners"
        redirect(req, resp, path)


class SignInPage(Page):
    """`/console/sign-in`: a partner signs in with a key."""

    is_open = True

    def __init__(
        self,
        store: Store,
        renderer: Renderer,
        user_sessions: UserSessions,
        limit: SignInLimit,
        refused: RefusedSignIns,
        *,
        keys: Authenticator,
    ) -> None:
        super().__init__(store, renderer)
        self._user_sessions = user_sessions
        self._keys = keys
        self._limit = limit
        self._refused = refused

    async def on_get(self, req: Request, resp: Response) -> None:
        query = query_of(req)
        to = local_path(query.get("to"))
        if req.context.user is not None:
            redirect(req, resp, to)
        else:
            await self._show(req, resp, to, lost="lost" in query)

    async def on_post(self, req: Request, resp: Response) -> None:
        form = await read_form(req)
        to = local_path(form.get("to"))
        try:
            await self._limit.check(req.context.client)
            key = await self._keys.recognise(form.get("key", ""))
        except RateLimited as error:
            resp.set_header("Retry-After", str(error.retry_after_s))
            await self._show(req, resp, to, status=429, wait_s=error.retry_after_s)
        except Forbidden:
            await self._refused.note(req, form.get("key", ""))
            await self._show(req, resp, to, status=403, is_wrong=True)
        else:
            await self._user_sessions.begin(req, resp, key)
            # A browser that has not kept the cookie comes to the sign-in, which then says why.
            redirect(req, resp, f"{HOME}/sign-in?lost=1&to={_quoted(to)}")

    async def _show(self, req: Request, resp: Response, to: str, **done: Any) -> None:
        values = {"is_wrong": False, "wait_s": 0, "lost": False}
        await self._renderer.render(req, resp, "sign-in.html", to=to, **{**values, **done})


class EnterPage(Page):
    """`/console/enter/{token}`: an operator comes in by a link, once."""

    is_open = True

    def __init__(
        self,
        store: Store,
        renderer: Renderer,
        user_sessions: UserSessions,
        limit: SignInLimit,
        refused: RefusedSignIns,
    ) -> None:
        super().__init__(store, renderer)
        self._refused = refused
        self._user_sessions = user_sessions
        self._limit = limit

    async def on_get(self, req: Request, resp: Response, token: str) -> None:
        await self._limit.check(req.context.client)
        # What a browser fetches on suspicion must not use the link up.
        is_meant = not req.get_header("Sec-Purpose") and not req.get_header("Purpose")
        good = (
            is_meant
            and is_token(token)
            and await self._store.console.use_link(digest_of_token(token), self._renderer.now_ms())
        )
        if good:
            await self._user_sessions.begin(req, resp, None)
        elif is_meant:
            await self._refused.note(req, None)
        # The page, not this answer, leads on: a link that another site or program opened would
        # arrive without the cookie.
        status = 200 if good else 403
        await self._renderer.render(req, resp, "enter.html", status=status, good=good)

    async def on_head(self, req: Request, resp: Response, **params: Any) -> None:
        """Uses nothing up."""


class SignOut:
    """`/console/sign-out`: ends the session."""

    def __init__(self, user_sessions: UserSessions) -> None:
        self._user_sessions = user_sessions

    async def on_post(self, req: Request, resp: Response) -> None:
        await self._user_sessions.end(req, resp, user_of(req))
        redirect(req, resp, f"{HOME}/sign-in")


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("&", "%26").replace("+", "%2B")
