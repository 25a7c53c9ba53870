"""Keys of a partner: create, rotate and revoke them, and see how much each is used."""

import asyncio
from typing import NamedTuple

from falcon.asgi import Request

from tether.console.pages import FormPage, split_page
from tether.console.rendering import Renderer
from tether.console.request import actor_of, choice, partner_of, user_of
from tether.domain.errors import NotFound, SetupError
from tether.domain.keys import DEFAULT_RATE, Key, Rate, parse_rate
from tether.domain.timestamps import DAY_MS, HOUR_MS
from tether.server import admin
from tether.server.store import Store
from tether.storage.console_sessions import ConsoleSession
from tether.storage.key_hours import Use

MAX_SHOWN = 200  # the newest keys
MAX_WORKING = 20  # keys that a partner may have by creating them itself
OVERLAPS_MS = {"0": 0, "1h": HOUR_MS, "24h": DAY_MS, "7d": 7 * DAY_MS}
LIFETIMES_MS = {"": None, "30d": 30 * DAY_MS, "90d": 90 * DAY_MS, "365d": 365 * DAY_MS}
GREATEST_BURST = 10**9
UNUSED = Use(0, 0, 0, 0, 0)


class KeyRow(NamedTuple):
    """A key in the table. `is_own`: the user signed in with it."""

    key: Key
    state: str
    is_own: bool
    use: Use
    """In the last 24 hours."""

    @property
    def share(self) -> float:
        """How much of its rate the key used in its busiest window, in percent."""
        return 100 * self.use.busiest / self.key.rate.requests

    @property
    def share_now(self) -> float:
        """The same for this hour."""
        return 100 * self.use.busiest_now / self.key.rate.requests


class CreatedKey(NamedTuple):
    """A key that was just created. Only now the page can show its secret."""

    secret: str
    key: Key
    old: Key | None = None
    """The key that it replaces."""


class KeysPage(FormPage):
    """`…/keys`."""

    template = "keys.html"

    def __init__(self, store: Store, renderer: Renderer) -> None:
        super().__init__(store, renderer)
        self._lock = asyncio.Lock()  # keeps concurrent requests from exceeding MAX_WORKING
        self.changes = {"create": self._create, "rotate": self._rotate, "revoke": self._revoke}

    async def values(self, req: Request) -> dict[str, object]:
        partner, own, now_ms = partner_of(req), user_of(req).key, self._now_ms()
        found = await self._store.keys.of_partner(partner.id, MAX_SHOWN + 1)
        keys, last = split_page(found, MAX_SHOWN)
        uses = await self._store.key_hours.of_partner(partner.id, now_ms)
        return {
            "keys": [
                KeyRow(key, _state(key, now_ms),
                       own is not None and own.digest == key.digest, uses.get(key.digest, UNUSED))
                for key in keys
            ],
            "is_cut": last is not None,
            "overlaps": OVERLAPS_MS,
            "lifetimes": LIFETIMES_MS,
            "rate": own.rate if own else DEFAULT_RATE,
        }  # fmt: skip

    async def _create(self, req: Request, form: dict[str, str]) -> dict[str, object]:
        user, now_ms = user_of(req), self._now_ms()
        async with self._lock:
            await self._check_count(user, partner_of(req).id)
            lifetime_ms = lifetime_of(form)
            rate, burst = _limits(user, form)
            secret, key = await admin.create_key(
                self._store,
                now_ms,
                partner_of(req).name,
                name=form.get("name", ""),
                rate=rate,
                burst=burst,
                expires_ms=_no_later(user, None if lifetime_ms is None else now_ms + lifetime_ms),
                read_only="read_only" in form,
                test="test" in form,
                by=actor_of(req),
            )
        return {"created": CreatedKey(secret, key)}

    async def _rotate(self, req: Request, form: dict[str, str]) -> dict[str, object]:
        user, partner, now_ms = user_of(req), partner_of(req), self._now_ms()
        overlap_ms = OVERLAPS_MS[choice(form, "overlap", OVERLAPS_MS, "24h")]
        async with self._lock:
            old = await self._find(partner.id, form)
            _check_reach(user, old)
            await self._check_count(user, partner.id)
            # A partner cannot extend the lifetime of its keys.
            ends_ms = None if user.is_operator else old.expires_ms
            created = await admin.rotate_key(
                self._store, now_ms, old, overlap_ms, ends_ms, by=actor_of(req)
            )
        return {"created": CreatedKey(*created)}

    async def _revoke(self, req: Request, form: dict[str, str]) -> str:
        key = await self._find(partner_of(req).id, form)
        await admin.revoke_key(self._store, self._now_ms(), key, by=actor_of(req))
        return req.path

    async def _find(self, partner: int, form: dict[str, str]) -> Key:
        """The partner's key with the SHA-256 in the form. Raises NotFound."""
        key = await self._store.keys.find(form.get("key", ""))
        if key is None or key.partner != partner:
            raise NotFound
        return key

    async def _check_count(self, user: ConsoleSession, partner: int) -> None:
        if user.is_operator:
            return
        now_ms = self._now_ms()
        found = await self._store.keys.of_partner(partner, MAX_SHOWN)
        if sum(key.works_at(now_ms) for key in found) >= MAX_WORKING:
            raise SetupError(
                f"You have {MAX_WORKING} keys that work, and may not make more: revoke one first."
            )


def _limits(user: ConsoleSession, form: dict[str, str]) -> tuple[Rate, int | None]:
    """Rate and burst of a new key. A partner's new key gets those of its sign-in key."""
    return limits_of(form) if user.key is None else (user.key.rate, user.key.burst)


def limits_of(form: dict[str, str]) -> tuple[Rate, int | None]:
    """The rate and burst in the operator's form. Raises SetupError."""
    try:
        rate = parse_rate(form["rate"]) if form.get("rate") else DEFAULT_RATE
    except ValueError as error:
        raise SetupError(str(error)) from None
    burst = form.get("burst", "")
    if burst and not (burst.isdecimal() and 0 < int(burst[:10]) <= GREATEST_BURST):
        raise SetupError("The burst must be a whole number, 1 or more.")
    return rate, int(burst[:10]) if burst else None


def lifetime_of(form: dict[str, str]) -> int | None:
    """The lifetime of a new key in ms; None for ever. Raises Invalid."""
    return LIFETIMES_MS[choice(form, "lives", LIFETIMES_MS)]


def _check_reach(user: ConsoleSession, old: Key) -> None:
    """Raises SetupError if `old` lasts longer or is faster than the partner's sign-in key."""
    own = user.key
    if own is None or own.digest == old.digest:
        return
    outlasts = own.expires_ms is not None and (
        old.expires_ms is None or old.expires_ms > own.expires_ms
    )
    is_faster = old.rate.per_second > own.rate.per_second or old.burst > own.burst
    if outlasts or is_faster:
        raise SetupError(
            f"Key {old.prefix} lasts longer, or has a higher rate, than the one that you signed in "
            "with: sign in with it to rotate it, or revoke it."
        )


def _no_later(user: ConsoleSession, expires_ms: int | None) -> int | None:
    """The end of a new key. A partner's key ends no later than its sign-in key."""
    own = user.key.expires_ms if user.key else None
    ends = [end for end in (expires_ms, own) if end is not None]
    return min(ends, default=None)


def _state(key: Key, now_ms: int) -> str:
    state = key.state_at(now_ms)
    return "ends" if state == "active" and key.expires_ms is not None else state
