"""Pages to sign in and out: partners use a key, operators a link that works once."""

from typing import Any

from falcon.asgi import Request, Response

from tether.console.pages import Page, PublicPage, redirect
from tether.console.rate_limit import RateLimit
from tether.console.rendering import Renderer, address
from tether.console.request import HOME, local_path, query_of, read_form, user_of
from tether.console.user_sessions import UserSessions
from tether.domain.errors import Forbidden, RateLimited
from tether.domain.keys import Rate, digest_of, is_token
from tether.server.authenticator import Authenticator
from tether.server.store import Store

ATTEMPTS = Rate(20, 60)  # for each network


class HomePage(Page):
    """`/console`: redirects to the page that the user most likely wants."""

    async def on_get(self, req: Request, resp: Response) -> None:
        key = user_of(req).key
        if key is not None:
            head, _ = await self._store.derivations.progress(key.partner)
            path = f"/console/p/{key.partner}/{'live' if head else 'start'}"
        else:
            partners = await self._store.partners.after("", 2)
            path = address(partners[0], "live") if len(partners) == 1 else "/console/partners"
        redirect(req, resp, path)


class SignInPage(PublicPage):
    """`/console/sign-in`: a partner signs in with a key."""

    template = "sign-in.html"

    def __init__(
        self,
        store: Store,
        renderer: Renderer,
        limit: RateLimit,
        user_sessions: UserSessions,
        keys: Authenticator,
    ) -> None:
        super().__init__(store, renderer, limit)
        self._user_sessions = user_sessions
        self._keys = keys

    async def values(self, req: Request) -> dict[str, Any]:
        return {"is_wrong": False, "wait_s": 0, "lost": False, "unsent": False}

    async def on_get(self, req: Request, resp: Response) -> None:
        query = query_of(req)
        to = local_path(query.get("to"))
        if req.context.user is not None:
            redirect(req, resp, to)
        else:
            await self._show(req, resp, {}, to=to, lost="lost" in query, unsent="unsent" in query)

    async def on_post(self, req: Request, resp: Response) -> None:
        form = await read_form(req)
        to = local_path(form.get("to"))
        try:
            await self.check_limit(req)
            key = await self._keys.authenticate(form.get("key", ""))
        except RateLimited as error:
            resp.retry_after = error.retry_after_s
            await self._show(req, resp, {}, to=to, status=429, wait_s=error.retry_after_s)
        except Forbidden:
            await self._user_sessions.refuse(req, form.get("key", ""))
            await self._show(req, resp, {}, to=to, status=403, is_wrong=True)
        else:
            await self._user_sessions.begin(req, resp, key)
            # A browser without the cookie comes back to this page, which then gives the reason.
            redirect(req, resp, f"{HOME}/sign-in?lost=1&to={_quoted(to)}")


class SignInLinkPage(PublicPage):
    """`/console/enter/{token}`: signs in the operator by a link, once."""

    def __init__(
        self, store: Store, renderer: Renderer, limit: RateLimit, user_sessions: UserSessions
    ) -> None:
        super().__init__(store, renderer, limit)
        self._user_sessions = user_sessions

    async def on_get(self, req: Request, resp: Response, token: str) -> None:
        await self.check_limit(req)
        # A browser's prefetch must not use up the link.
        is_visit = not req.get_header("Sec-Purpose") and not req.get_header("Purpose")
        good = (
            is_visit
            and is_token(token)
            and await self._store.console_sessions.use_link(digest_of(token), self._now_ms())
        )
        if good:
            await self._user_sessions.begin(req, resp, None)
        elif is_visit:
            await self._user_sessions.refuse(req, None)
        # The page redirects, not this answer: if another site or program opened the link, the
        # browser would follow a redirect without the cookie.
        status = 200 if good else 403
        await self._renderer.render(req, resp, "enter.html", status=status, good=good)

    async def on_head(self, req: Request, resp: Response, **params: Any) -> None:
        """Does not use up the link."""


class SignOut:
    """`/console/sign-out`: ends the session."""

    def __init__(self, user_sessions: UserSessions) -> None:
        self._user_sessions = user_sessions

    async def on_post(self, req: Request, resp: Response) -> None:
        await self._user_sessions.end(req, resp, user_of(req))
        redirect(req, resp, f"{HOME}/sign-in")


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("&", "%26").replace("+", "%2B")
