"""The operator's operations on partners and keys. Servers may run meanwhile."""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from secrets import randbelow

from tether.domain.audit import NOBODY, OPERATOR, Actor
from tether.domain.errors import SetupError
from tether.domain.keys import (
    DEFAULT_RATE,
    KEY_LENGTH,
    LINK_MS,
    LIVE,
    TEST,
    Key,
    Rate,
    digest_of,
    new_key,
    new_token,
    prefix_of,
)
from tether.domain.partners import Holdings, Partner, RetentionPeriods, retention_in_words
from tether.domain.timestamps import format_optional_instant
from tether.server.authenticator import CACHED_MS
from tether.server.store import Store
from tether.storage.audit import audit_entry
from tether.storage.partners import add_key_statement

LONGEST_NAME = 100

_PARTNER_NAME = re.compile(r"[^\W_](?:[\w .&'()+-]{0,98}[\w.)])?")
# Servers forget a revoked key within CACHED_MS. The other half is for running requests.
_REQUESTS_END_MS = 2 * CACHED_MS


async def create_key(
    store: Store,
    now_ms: int,
    partner_name: str,
    *,
    name: str = "",
    rate: Rate = DEFAULT_RATE,
    burst: int | None = None,
    expires_ms: int | None = None,
    read_only: bool = False,
    test: bool = False,
    by: Actor = OPERATOR,
    on_new_partner: Callable[[str], None] = lambda name: None,
) -> tuple[str, Key]:
    """Creates a key, and its partner if it is new. Returns the key in full, and as it is stored.

    The default of `burst` is the number of requests of the rate. Calls `on_new_partner` with the
    name of a new partner. Raises SetupError.
    """
    _check_end(now_ms, expires_ms)
    _check_name(name)
    partner = await store.partners.find(partner_name)
    if partner is None:
        partner, _ = await new_partner(store, now_ms, partner_name, by)
        on_new_partner(partner_name)
    secret = new_key(test=test)
    key = Key(
        digest=digest_of(secret),
        prefix=prefix_of(secret),
        partner=partner.id,
        partner_name=partner.name,
        name=name,
        rate=rate,
        burst=rate.requests if burst is None else burst,
        read_only=read_only,
        created_ms=now_ms,
        expires_ms=expires_ms,
    )
    entry = audit_entry(partner.id, now_ms, by, "key.create", key.prefix, after=_limits_of(key))
    await store.keys.add(key, entry)
    return secret, key


def _check_end(now_ms: int, expires_ms: int | None) -> None:
    if expires_ms is not None and expires_ms <= now_ms:
        raise SetupError("The key would have expired before it was made: name a later end.")


def _limits_of(key: Key) -> dict[str, object]:
    """The fields of a key in the audit trail."""
    return {
        "name": key.name,
        "rate": f"{key.rate.requests} in {key.rate.window_s} s",
        "burst": key.burst,
        "readOnly": key.read_only,
        "expiresAt": format_optional_instant(key.expires_ms),
    }


async def set_key(
    store: Store,
    now_ms: int,
    key: Key,
    *,
    name: str | None = None,
    rate: Rate | None = None,
    burst: int | None = None,
    expires_ms: int | None = None,
    lasts: bool = False,
) -> Key:
    """Changes the given fields of a key; `lasts` removes its end. Returns the changed key.

    Raises SetupError.
    """
    if key.revoked_ms is not None:
        raise SetupError(f"Key {key.prefix} is revoked, for good: create a new one.")
    changed = replace(
        key,
        name=key.name if name is None else name,
        rate=rate or key.rate,
        burst=_burst(key, rate, burst),
        expires_ms=None if lasts else key.expires_ms if expires_ms is None else expires_ms,
    )
    _check_name(changed.name)
    if expires_ms is not None and expires_ms <= now_ms:
        raise SetupError("The key would end in the past: tether keys revoke stops it now.")
    was, becomes = _limits_of(key), _limits_of(changed)
    if was != becomes:
        entry = audit_entry(
            key.partner, now_ms, OPERATOR, "key.change", key.prefix, before=was, after=becomes
        )
        await store.keys.set(key, changed, entry)
    return changed


async def revoke_key(store: Store, now_ms: int, key: Key, *, by: Actor = OPERATOR) -> None:
    """Stops the key for good, unless it is revoked already."""
    if key.revoked_ms is None:
        entry = audit_entry(key.partner, now_ms, by, "key.revoke", key.prefix)
        await store.keys.revoke(key, now_ms, entry)


def _burst(key: Key, rate: Rate | None, burst: int | None) -> int:
    """The burst for a new rate. If it was the number of the old rate, it follows the new one."""
    if burst is not None:
        return burst
    return rate.requests if rate is not None and key.burst == key.rate.requests else key.burst


async def rotate_key(
    store: Store,
    now_ms: int,
    key: Key,
    overlap_ms: int,
    expires_ms: int | None = None,
    *,
    rate: Rate | None = None,
    burst: int | None = None,
    by: Actor = OPERATOR,
) -> tuple[str, Key, Key]:
    """Creates a key with the rights of `key`, which itself works for `overlap_ms` more. Returns the
    new key in full and as it is stored, and `key` with its end.

    The new key keeps the rate and burst unless others are given. Without `expires_ms` it has the
    same lifetime as the old key. Without an overlap the old key is revoked, which does not depend
    on the clocks of the servers. Raises SetupError.
    """
    if not key.works_at(now_ms):
        raise SetupError(f"Key {key.prefix} does not work any more: create a new one.")
    if expires_ms is None and key.expires_ms is not None:
        expires_ms = now_ms + key.expires_ms - key.created_ms
    _check_end(now_ms, expires_ms)
    secret = new_key(test=key.is_test)
    new = replace(
        key,
        digest=digest_of(secret),
        prefix=prefix_of(secret),
        rate=rate or key.rate,
        burst=_burst(key, rate, burst),
        created_ms=now_ms,
        expires_ms=expires_ms,
        last_used_ms=None,
        last_used_from=None,
    )
    entry = audit_entry(
        key.partner, now_ms, by, "key.rotate", key.prefix,
        after={"key": new.prefix, "overlapSeconds": overlap_ms // 1000, **_limits_of(new)},
    )  # fmt: skip
    ends_ms = now_ms + overlap_ms
    end = store.keys.expire if overlap_ms else store.keys.revoke
    await end(key, ends_ms, add_key_statement(new), entry)
    return secret, new, replace(key, expires_ms=min(ends_ms, key.expires_ms or ends_ms))


async def console_link(store: Store, now_ms: int) -> str:
    """The path of a link to the console for the operator. It works once, within ten minutes."""
    token = new_token()
    entry = audit_entry(NOBODY, now_ms, OPERATOR, "console.link", "operator")
    await store.console_sessions.add_link(digest_of(token), now_ms + LINK_MS, now_ms, entry)
    return f"/console/enter/{token}"


def check_names(partner_name: str, key_name: str) -> None:
    """Raises SetupError if a partner, or a key, can have no such name."""
    _checked_name(partner_name)
    _check_name(key_name)


def _check_name(name: str) -> None:
    if len(name) > LONGEST_NAME or not name.isprintable() or _looks_like_a_key(name):
        raise SetupError(f"A key's name has up to {LONGEST_NAME} printable characters, no key.")


async def find_key(store: Store, beginning: str) -> Key:
    """The one key with this beginning, with or without `ttr_live_`, or a key in full.

    Only the first characters of a key are stored, so only they are compared.
    Raises SetupError if there is no such key, or more than one.
    """
    if not beginning:
        raise SetupError("Give the first characters of a key; see: tether keys list")
    keys = await store.keys.all()
    if len(beginning) >= KEY_LENGTH:
        digest = digest_of(beginning)
        found = [key for key in keys if key.digest == digest]
    else:
        found = [key for key in keys if _matches(key.prefix, beginning)]
        found = found or [key for key in keys if _matches(_random_part(key.prefix), beginning)]
    if len(found) == 1:
        return found[0]
    shown = prefix_of(beginning)
    if not found:
        raise SetupError(f"There is no key {shown!r}; see: tether keys list")
    which = ", ".join(f"{key.prefix} of {key.partner_name}" for key in found[:5])
    more = ", …" if len(found) > 5 else ""
    raise SetupError(f"{shown!r} begins {len(found)} keys ({which}{more}): give more of it.")


def _matches(stored: str, beginning: str) -> bool:
    return stored.startswith(beginning) or beginning.startswith(stored)


def _random_part(prefix: str) -> str:
    return prefix.removeprefix(LIVE).removeprefix(TEST)


async def find_partner(store: Store, name: str) -> Partner:
    """The partner with this name. Raises SetupError."""
    partner = await store.partners.find(name)
    if partner is None:
        raise SetupError(f"There is no partner {name!r}; see: tether partners list")
    return partner


async def rename_partner(
    store: Store, now_ms: int, name: str, new_name: str, *, by: Actor = OPERATOR
) -> None:
    """Renames a partner; its keys and data stay. Raises SetupError."""
    partner = await find_partner(store, name)
    entry = audit_entry(
        partner.id, now_ms, by, "partner.rename", str(partner.id),
        before={"name": name}, after={"name": new_name},
    )  # fmt: skip
    await store.partners.rename(partner, _checked_name(new_name), entry)


async def set_retention(
    store: Store, now_ms: int, partner: Partner, periods: Mapping[str, int | None]
) -> RetentionPeriods:
    """Sets these periods of the partner's RetentionPeriods. Returns all of them."""
    before = await store.retention.get(partner.id)
    after = before._replace(**periods)
    if before != after:
        entry = audit_entry(
            partner.id, now_ms, OPERATOR, "retention.change", str(partner.id),
            before=_in_words(before), after=_in_words(after),
        )  # fmt: skip
        await store.retention.set(partner.id, periods, entry)
    return after


def _in_words(periods: RetentionPeriods) -> dict[str, str]:
    """The fields of the retention in the audit trail."""
    return {
        "events": retention_in_words(periods.events_ms),
        "requests": retention_in_words(periods.requests_ms),
        "attempts": retention_in_words(periods.attempts_ms),
    }


async def erase_partner(
    store: Store,
    now_ms: int,
    partner: Partner,
    progress: Callable[[int], None],
    *,
    by: Actor = OPERATOR,
) -> Holdings:
    """Deletes a partner with its keys and all its data; returns how much that was.

    It revokes the keys first and waits until no server accepts them, so that nothing new arrives.
    It reports deleted events to `progress`. If it is interrupted, the partner still exists and can
    be deleted again. Its audit trail is deleted too; one entry remains, which says who deleted the
    partner with this number.
    """
    keys = await store.keys.all(partner)
    for key in keys:
        await store.keys.revoke(key, now_ms)
    if keys:  # also if all were revoked before: another clock may have set that time
        await asyncio.sleep(_REQUESTS_END_MS / 1000)
    held = await store.partners.holdings(partner)
    entry = audit_entry(
        NOBODY, now_ms, by, "partner.delete", str(partner.id), before=held._asdict()
    )
    await store.partners.erase(partner, progress, entry)
    return held


async def new_partner(
    store: Store, now_ms: int, name: str, by: Actor = OPERATOR
) -> tuple[Partner, bool]:
    """Creates a partner, or finds the one with this name; also returns whether it is new.

    Raises SetupError.
    """
    new = Partner(randbelow(2**47) + 1, _checked_name(name), now_ms)
    entry = audit_entry(new.id, now_ms, by, "partner.create", str(new.id), after={"name": name})
    partner = await store.partners.add(new, entry)
    return partner, partner.id == new.id


def _checked_name(name: str) -> str:
    if _looks_like_a_key(name):
        raise SetupError("This is a key, not a partner's name.")
    if not _PARTNER_NAME.fullmatch(name):
        raise SetupError(
            f"{name!r} cannot be a partner's name: use up to 100 letters, digits, blanks and "
            ". & ' ( ) + - _, with a letter or digit first."
        )
    return name


def _looks_like_a_key(text: str) -> bool:
    return LIVE in text or TEST in text
