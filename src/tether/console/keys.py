"""Keys of a partner: create, rotate and revoke them, and see which are used."""

import asyncio
from dataclasses import replace
from typing import NamedTuple

from falcon.asgi import Request, Response

from tether.console.forms import change_of, read_form
from tether.console.views import Views, address
from tether.console.visits import Visit, actor_of, base_of, partner_of, require_change, visit_of
from tether.domain.errors import Invalid, NotFound, SetupError
from tether.domain.keys import DEFAULT_RATE, TEST, Key, Rate, parse_rate
from tether.server import admin
from tether.server.store import Store
from tether.storage.key_hours import Use

SHOWN = 200  # of a partner's keys, the newest
WORKING = 20  # keys of a partner that work, where the partner makes them itself
OVERLAPS_MS = {"0": 0, "1h": 3_600_000, "24h": 86_400_000, "7d": 7 * 86_400_000}
LIVES_MS = {"": None, "30d": 30 * 86_400_000, "90d": 90 * 86_400_000, "365d": 365 * 86_400_000}
GREATEST_BURST = 10**9
UNUSED = Use(0, 0, 0, 0, 0)


class Shown(NamedTuple):
    """A key in the table. `is_own` signed in here."""

    key: Key
    state: str
    is_test: bool
    is_own: bool
    use: Use
    """In the last 24 hours."""

    @property
    def share(self) -> float:
        """Of the rate that it used at most, in percent."""
        return 100 * self.use.busiest / self.key.rate.requests

    @property
    def share_now(self) -> float:
        """The same in this hour."""
        return 100 * self.use.busiest_now / self.key.rate.requests


class Made(NamedTuple):
    """A key that has just been made: the only time that it is shown."""

    secret: str
    key: Key
    old: Key | None = None
    """The one that it replaces."""


class KeysPage:
    """`…/keys`."""

    def __init__(self, store: Store, views: Views) -> None:
        self._store = store
        self._views = views
        self._changing = asyncio.Lock()  # else many at once would all find room for one more

    async def on_get(self, req: Request, resp: Response) -> None:
        await self._show(req, resp)

    on_head = on_get

    async def on_post(self, req: Request, resp: Response) -> None:
        require_change(req)
        form = await read_form(req)
        changes = {"create": self._create, "rotate": self._rotate, "revoke": self._revoke}
        change = change_of(form, changes)
        try:
            async with self._changing:
                made = await change(req, form)
        except (SetupError, Invalid) as error:
            await self._show(req, resp, status=400, problem=error.message, form=form)
            return
        if made is None:
            resp.status = 303
            resp.set_header("Location", base_of(req) + address(partner_of(req), "keys"))
        else:
            await self._show(req, resp, made=made)

    async def _show(
        self,
        req: Request,
        resp: Response,
        *,
        status: int = 200,
        made: Made | None = None,
        problem: str = "",
        form: dict[str, str] | None = None,
    ) -> None:
        partner, own, now_ms = partner_of(req), visit_of(req).key, self._views.now_ms()
        found = await self._store.keys.of_partner(partner.id, SHOWN + 1)
        used = await self._store.key_hours.of_partner(partner.id, now_ms)
        await self._views.show(
            req,
            resp,
            "keys.html",
            status=status,
            keys=[
                Shown(key, _state(key, now_ms), key.prefix.startswith(TEST),
                      own is not None and own.digest == key.digest, used.get(key.digest, UNUSED))
                for key in found[:SHOWN]
            ],
            is_cut=len(found) > SHOWN,
            made=made,
            problem=problem,
            form=form or {},
            overlaps=list(OVERLAPS_MS),
            lives=[life for life in LIVES_MS if life],
            rate=own.rate if own else DEFAULT_RATE,
        )  # fmt: skip

    async def _create(self, req: Request, form: dict[str, str]) -> Made:
        visit, partner, now_ms = visit_of(req), partner_of(req), self._views.now_ms()
        await self._check_count(visit, partner.id)
        lives = form.get("lives", "")
        if lives not in LIVES_MS:
            raise Invalid("lives", f"It must be one of {', '.join(filter(None, LIVES_MS))}.")
        length_ms = LIVES_MS[lives]
        rate, burst = _limits(visit, form)
        secret, key = await admin.create_key(
            self._store,
            now_ms,
            partner.name,
            name=form.get("name", ""),
            rate=rate,
            burst=burst,
            expires_ms=_no_later(visit, None if length_ms is None else now_ms + length_ms),
            read_only="read_only" in form,
            test="test" in form,
            by=actor_of(req),
        )
        return Made(secret, key)

    async def _rotate(self, req: Request, form: dict[str, str]) -> Made:
        visit, partner, now_ms = visit_of(req), partner_of(req), self._views.now_ms()
        overlap = form.get("overlap", "24h")
        if overlap not in OVERLAPS_MS:
            raise Invalid("overlap", f"It must be one of {', '.join(OVERLAPS_MS)}.")
        old = await self._find(partner.id, form)
        _check_reach(visit, old)
        await self._check_count(visit, partner.id)
        # A partner does not make its keys last longer, nor gets more of one than it had.
        ends_ms = None if visit.is_operator else old.expires_ms
        secret, key = await admin.rotate_key(
            self._store, now_ms, old, OVERLAPS_MS[overlap], ends_ms, by=actor_of(req)
        )
        ends = now_ms + OVERLAPS_MS[overlap]
        if old.expires_ms is not None:
            ends = min(ends, old.expires_ms)
        return Made(secret, key, replace(old, expires_ms=ends))

    async def _revoke(self, req: Request, form: dict[str, str]) -> None:
        key = await self._find(partner_of(req).id, form)
        await admin.revoke_key(self._store, self._views.now_ms(), key, by=actor_of(req))

    async def _find(self, partner: int, form: dict[str, str]) -> Key:
        """The key that the form names by its SHA-256, if it is the partner's."""
        key = await self._store.keys.find(form.get("key", ""))
        if key is None or key.partner != partner:
            raise NotFound
        return key

    async def _check_count(self, visit: Visit, partner: int) -> None:
        if visit.is_operator:
            return
        now_ms = self._views.now_ms()
        found = await self._store.keys.of_partner(partner, SHOWN)
        if sum(key.works_at(now_ms) for key in found) >= WORKING:
            raise SetupError(
                f"You have {WORKING} keys that work, and may not make more: revoke one first."
            )


def _limits(visit: Visit, form: dict[str, str]) -> tuple[Rate, int | None]:
    """Rate and burst of a new key. A partner's new key gets those of the key that signed in."""
    return limits_of(form) if visit.key is None else (visit.key.rate, visit.key.burst)


def limits_of(form: dict[str, str]) -> tuple[Rate, int | None]:
    """The rate and burst that the operator gives. Raises SetupError."""
    try:
        rate = parse_rate(form["rate"]) if form.get("rate") else DEFAULT_RATE
    except ValueError as error:
        raise SetupError(str(error)) from None
    burst = form.get("burst", "")
    if burst and not (burst.isdecimal() and 0 < int(burst[:10]) <= GREATEST_BURST):
        raise SetupError("The burst must be a whole number, 1 or more.")
    return rate, int(burst[:10]) if burst else None


def _check_reach(visit: Visit, old: Key) -> None:
    """Raises SetupError if a partner would get a key that may do more than the one it came with."""
    own = visit.key
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


def _no_later(visit: Visit, expires_ms: int | None) -> int | None:
    """A partner's new key ends no later than the key that signed in."""
    own = visit.key.expires_ms if visit.key else None
    ends = [end for end in (expires_ms, own) if end is not None]
    return min(ends, default=None)


def _state(key: Key, now_ms: int) -> str:
    if key.works_at(now_ms):
        return "active" if key.expires_ms is None else "ends"
    return "expired" if key.revoked_ms is None else "revoked"
