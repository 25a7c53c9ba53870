"""Users of the console: their sessions, the cookie that has the token, and what each may do."""

import re
from collections.abc import Callable
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import unquote

from falcon.asgi import Request, Response

from tether.domain.audit import NOBODY, Actor
from tether.domain.console import SESSION_MS, digest_of_token, is_token, new_token
from tether.domain.errors import Forbidden, NotFound
from tether.domain.keys import Key
from tether.domain.partners import Partner
from tether.server.store import Store
from tether.storage.audit import audit_entry
from tether.storage.console import SignedIn

HOME = "/console"
_LOCAL_PATH = re.compile(r"/console(?:/[A-Za-z0-9._~*+@:%-]+)*(?:\?[A-Za-z0-9._~*+@:%=&-]*)?")
_LONGEST_PATH = 1_000
_TOO_LARGE = 2**63  # for a number in the database


class User(NamedTuple):
    """Somebody who is signed in: a partner by one of its keys, or the operator."""

    session: SignedIn

    @property
    def key(self) -> Key | None:
        """The key that signed in; None for the operator."""
        return self.session.key

    @property
    def is_operator(self) -> bool:
        """Whether this is who runs the server."""
        return self.session.key is None

    @property
    def may_change(self) -> bool:
        """Whether it may do more than look."""
        return self.key is None or not self.key.read_only


class UserSessions:
    """The sessions of the console, read at every request: what ends one holds at once, everywhere.

    `now_ms` is a clock that does not go back.
    """

    def __init__(self, store: Store, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms

    async def of(self, req: Request) -> User | None:
        """Whose request this is, if the cookie's session lasts and its key works."""
        token = req.get_cookie_values(_cookie_name(req))
        if not token or not is_token(token[0]):
            return None
        found = await self._store.console.find(digest_of_token(token[0]))
        now_ms = self._now_ms()
        if found is None or found.expires_ms <= now_ms:
            return None
        return User(found) if found.key is None or found.key.works_at(now_ms) else None

    async def begin(self, req: Request, resp: Response, key: Key | None) -> None:
        """Signs in with this key, or the operator."""
        token, now_ms = new_token(), self._now_ms()
        session = SignedIn(digest_of_token(token), now_ms + SESSION_MS, key)
        actor = actor_of(req)._replace(
            kind="key" if key else "operator", key_prefix=key.prefix if key else ""
        )
        entry = audit_entry(
            key.partner if key else NOBODY, now_ms, actor, "console.sign_in", "console"
        )
        await self._store.console.add(session, now_ms, entry)
        _set_cookie(req, resp, token, SESSION_MS // 1000)

    async def end(self, req: Request, resp: Response, user: User) -> None:
        """Signs out."""
        await self._store.console.end(user.session.digest)
        _set_cookie(req, resp, "", 0)

    async def partner(self, user: User, partner_id: int) -> Partner:
        """The partner, if the user may see it. Raises NotFound."""
        if user.key is not None and user.key.partner != partner_id:
            raise NotFound
        if not 0 < partner_id < _TOO_LARGE:
            raise NotFound
        return await self._store.partners.get(partner_id)


def user_of(req: Request) -> User:
    """Who asks; the middleware has looked whether anybody is signed in."""
    user: User = req.context.user
    return user


def partner_of(req: Request) -> Partner:
    """The partner whose page it is; the middleware has looked whether the user may see it."""
    partner: Partner = req.context.partner
    return partner


def actor_of(req: Request) -> Actor:
    """Who asks for this, as the audit trail has it."""
    context = req.context
    key = context.user and context.user.key
    kind = "key" if key else "operator"
    return Actor(kind, key.prefix if key else "", context.request_id, context.client or "")


def require_change(req: Request) -> None:
    """Raises Forbidden if the user may only look."""
    if not user_of(req).may_change:
        raise Forbidden(read_only=True)


def local_path(text: str | None) -> str:
    """The page of ours that is meant, or the first one: never an address elsewhere."""
    if text is None or len(text) > _LONGEST_PATH or not _LOCAL_PATH.fullmatch(text):
        return HOME
    return HOME if "/." in unquote(text) else text  # which browsers take for a way up


def path_of(req: Request) -> str:
    """The page that was asked for, as `local_path` takes it."""
    return f"{req.path}?{req.query_string}" if req.query_string else req.path


def is_from_our_page(req: Request) -> bool:
    """Whether a page of ours sent this: browsers say so, and others cannot make them lie."""
    site = req.get_header("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    # On plain HTTP, except to the machine itself, browsers send this one only.
    origin, host = req.get_header("Origin"), req.get_header("Host")
    return (
        origin is not None and host is not None and origin in (f"http://{host}", f"https://{host}")
    )


# The cookie ---------------------------------------------------------------------------------------


def _cookie_name(req: Request) -> str:
    """`__Host-` binds it to this host and to TLS. Browsers do not take that over plain HTTP from
    the machine itself, where there is nobody between. There the ports of a host share its cookies.
    """
    return f"tether-console-{_port(req)}" if _is_local(req) else "__Host-tether-console"


def _set_cookie(req: Request, resp: Response, token: str, max_age_s: int) -> None:
    secure = "" if _is_local(req) else "; Secure"
    resp.append_header(
        "Set-Cookie",
        f"{_cookie_name(req)}={token}; Max-Age={max_age_s}; Path=/; HttpOnly{secure}; "
        "SameSite=Strict",
    )


def _is_local(req: Request) -> bool:
    """Whether a browser on this machine asks without TLS."""
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


def base_of(req: Request) -> str:
    """What stands before our paths in a browser, behind a proxy that shows us below a path."""
    base: str = req.context.base
    return base
