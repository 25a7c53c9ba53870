"""What the operator does with partners and keys, beside the running server."""

import re
from collections.abc import Callable
from secrets import randbelow

from tether.errors import SetupError
from tether.keys import DEFAULT_RATE, Key, Rate, digest_of, new_key, prefix_of
from tether.store.store import Partner, Store

_PARTNER_NAME = re.compile(r"[^\W_](?:[\w .&'()+-]{0,98}[\w.)])?")


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
) -> tuple[str, Key]:
    """A new key, in full, and what is stored of it; makes the partner if there is none.

    `burst` is the rate's number of requests unless it is given. Raises SetupError.
    """
    if expires_ms is not None and expires_ms <= now_ms:
        raise SetupError("The key would have expired before it was made.")
    partner = await _partner_or_new(store, now_ms, partner_name)
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
    await store.add_key(key)
    return secret, key


async def rotate_key(store: Store, now_ms: int, key: Key, overlap_ms: int) -> tuple[str, Key]:
    """A new key that may do what `key` may, which itself works on for `overlap_ms` only."""
    if not key.works_at(now_ms):
        raise SetupError(f"Key {key.prefix} does not work any more: create a new one.")
    secret, new = await create_key(
        store,
        now_ms,
        key.partner_name,
        name=key.name,
        rate=key.rate,
        burst=key.burst,
        read_only=key.read_only,
        test=key.prefix.startswith("ttr_test_"),
    )
    await store.expire_key(key, now_ms + overlap_ms)
    return secret, new


async def find_key(store: Store, beginning: str) -> Key:
    """The one key that begins so; also a key in full will do. Raises SetupError."""
    digest = digest_of(beginning)
    found = [
        key
        for key in await store.keys()
        if key.digest == digest or (beginning and key.prefix.startswith(beginning))
    ]
    if not found:
        raise SetupError(f"No key begins with {prefix_of(beginning)!r}; see: tether keys list")
    if len(found) > 1:
        which = ", ".join(key.prefix for key in found[:5])
        raise SetupError(f"{len(found)} keys begin so ({which}, …): give more of it.")
    return found[0]


async def find_partner(store: Store, name: str) -> Partner:
    """The partner of this name. Raises SetupError."""
    partner = await store.partner(name)
    if partner is None:
        raise SetupError(f"There is no partner {name!r}; see: tether partners list")
    return partner


async def rename_partner(store: Store, name: str, new_name: str) -> Partner:
    """Gives a partner another name; its keys and data stay. Raises SetupError."""
    partner = await find_partner(store, name)
    await store.rename_partner(partner, _checked_name(new_name))
    return partner._replace(name=new_name)


async def erase_partner(store: Store, name: str, progress: Callable[[int], None]) -> None:
    """Deletes a partner with its keys and everything it has. Raises SetupError."""
    await store.erase_partner(await find_partner(store, name), progress)


async def _partner_or_new(store: Store, now_ms: int, name: str) -> Partner:
    found = await store.partner(_checked_name(name))
    return found or await store.add_partner(Partner(randbelow(2**47) + 1, name, now_ms))


def _checked_name(name: str) -> str:
    if not _PARTNER_NAME.fullmatch(name):
        raise SetupError(
            f"{name!r} cannot be a partner's name: use up to 100 letters, digits, blanks and "
            ". & ' ( ) + - _, with a letter or digit first."
        )
    return name
