"""Sessions of signed-in users, and the cookie with their token."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from ipaddress import ip_address
from typing import TypeVar

from falcon.asgi import Request, Response

from tether.console.rate_limit import RateLimit
from tether.console.request import actor_with
from tether.domain.audit import NOBODY
from tether.domain.errors import Abandoned, NotFound, RateLimited
from tether.domain.keys import (
    SESSION_MS,
    Key,
    Rate,
    digest_of,
    is_current,
    is_token,
    is_well_formed,
    new_token,
)
from tether.domain.partners import Partner
from tether.server.event_streams import wait_for_disconnect
from tether.server.store import Store
from tether.storage.audit import audit_entry
from tether.storage.console_sessions import ConsoleSession

T = TypeVar("T")
AUDITED_REFUSALS = Rate(60, 60)  # in each worker
_TOO_LARGE = 2**63  # for a number in the database


class UserSessions:
    """The sessions of the console.

    Each request reads its session from the database, so that revoking a key or signing out takes
    effect at once, in all processes. `now_ms` is a clock that does not go back.
    """

    def __init__(self, store: Store, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms
        self._refusals = RateLimit(AUDITED_REFUSALS, workers=1)

    async def find(self, req: Request) -> ConsoleSession | None:
        """The session of the request's cookie, if neither it nor its key has ended."""
        token = _cookie(req)
        if not is_token(token):
            return None
        session = await self._store.console_sessions.find(digest_of(token))
        now_ms = self._now_ms()
        if session is None or not is_current(session.expires_ms, now_ms, SESSION_MS):
            return None
        return session if session.key is None or session.key.works_at(now_ms) else None

    async def begin(self, req: Request, resp: Response, key: Key | None) -> None:
        """Signs in the owner of this key, or the operator."""
        token, now_ms = new_token(), self._now_ms()
        session = ConsoleSession(digest_of(token), now_ms + SESSION_MS, key)
        partner, actor = key.partner if key else NOBODY, actor_with(req, key)
        entry = audit_entry(partner, now_ms, actor, "console.sign_in", "console")
        await self._store.console_sessions.add(session, now_ms, entry)
        _set_cookie(req, resp, token, SESSION_MS // 1000)

    async def refuse(self, req: Request, secret: str | None) -> None:
        """Adds a refused sign-in, with this key or by a link (None), to the audit trail.

        If the key belongs to a partner but has ended, the entry belongs to the partner. If there
        are many, only the first ones are added.
        """
        try:
            await self._refusals.check("")
        except RateLimited:
            return
        key = None
        if secret and is_well_formed(secret):
            key = await self._store.keys.find(digest_of(secret))
        actor = actor_with(req, key)
        if secret is not None:
            actor = actor._replace(kind="key")
        what = "link" if secret is None else "key" if key else "unknown key"
        partner = key.partner if key else NOBODY
        await self._store.audit.add(
            audit_entry(partner, self._now_ms(), actor, "console.sign_in_refused", what)
        )

    async def end(self, req: Request, resp: Response, session: ConsoleSession) -> None:
        """Signs out."""
        await self._store.console_sessions.end(session.digest)
        _set_cookie(req, resp, "", 0)

    async def while_signed_in(self, req: Request, parts: AsyncGenerator[T]) -> AsyncGenerator[T]:
        """The parts of a file, while the client is connected and signed in.

        Raises Abandoned otherwise, so that nobody takes the beginning of the file for all of it.
        """
        leaving = asyncio.create_task(wait_for_disconnect(req))
        try:
            async with aclosing(parts):
                async for part in parts:
                    if leaving.done() or await self.find(req) is None:
                        raise Abandoned
                    yield part
        finally:
            leaving.cancel()

    async def partner(self, user: ConsoleSession, partner_id: int) -> Partner:
        """The partner, if the user may see it. Raises NotFound."""
        if user.key is not None and user.key.partner != partner_id:
            raise NotFound
        if not 0 < partner_id < _TOO_LARGE:
            raise NotFound
        return await self._store.partners.get(partner_id)


# The cookie ---------------------------------------------------------------------------------------


def _cookie_name(req: Request) -> str:
    """`__Host-` binds the cookie to this host and to TLS.

    Browsers do not accept that prefix over plain HTTP, which is only used on this machine. There
    the name contains the port, because all ports of a host share their cookies.
    """
    return f"tether-console-{_port(req)}" if _is_local(req) else "__Host-tether-console"


def _cookie(req: Request) -> str:
    """The value of our cookie; empty if there is none.

    Falcon reads all cookies with a function of Python whose time is quadratic in the length of a
    quoted value (CVE-2024-7592).
    """
    name = _cookie_name(req)
    for cookie in (req.get_header("Cookie") or "").split(";"):
        found, _, value = cookie.strip().partition("=")
        if found == name:
            return value
    return ""


def _set_cookie(req: Request, resp: Response, token: str, max_age_s: int) -> None:
    secure = "" if _is_local(req) else "; Secure"
    resp.append_header(
        "Set-Cookie",
        f"{_cookie_name(req)}={token}; Max-Age={max_age_s}; Path=/; HttpOnly{secure}; "
        "SameSite=Strict",
    )


def _is_local(req: Request) -> bool:
    """Whether the browser runs on this machine and does not use TLS."""
    if req.forwarded_scheme != "http":
        return False
    name = (req.get_header("Host") or "").rpartition(":")[0] or req.get_header("Host") or ""
    if name == "localhost":
        return True
    try:
        return ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _port(req: Request) -> str:
    port = (req.get_header("Host") or "").rpartition(":")[2]
    return port if port.isdecimal() and len(port) < 6 else "80"
