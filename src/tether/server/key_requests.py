"""Requests for a key: somebody makes one, the operator decides, the requester claims the key."""

from tether.domain.audit import NOBODY, OPERATOR, Actor
from tether.domain.errors import SetupError, TetherError
from tether.domain.key_requests import (
    CLIENT_WINDOW_MS,
    WAITS_MS,
    KeyRequest,
    Limits,
    RequestForm,
    RequestState,
)
from tether.domain.keys import Key, digest_of, new_key, new_token, prefix_of
from tether.domain.partners import Partner
from tether.server import admin
from tether.server.store import Store
from tether.storage.audit import audit_entry


class TooMany(TetherError):
    """There are too many requests for a key, from this address or in total."""

    retry_after_s = CLIENT_WINDOW_MS // 1000

    def __init__(self) -> None:
        super().__init__("Too many keys were asked for of late.")


async def add(store: Store, now_ms: int, form: RequestForm, client: str) -> str:
    """Stores a request. Returns the token of the requester's page. Raises TooMany."""
    token = new_token()
    digest = digest_of(token)
    if not await store.key_requests.add(digest, form, client, now_ms, now_ms + WAITS_MS):
        raise TooMany
    return token


async def find(store: Store, now_ms: int, beginning: str) -> KeyRequest:
    """The one request whose id begins with this text. Raises SetupError."""
    requests = await store.key_requests.all(now_ms)
    found = [asked for asked in requests if beginning and asked.digest.startswith(beginning)]
    if len(found) != 1:
        few = "more than one" if found else "no"
        raise SetupError(
            f"There is {few} key request {beginning!r}; see: tether keys requests list"
        )
    return found[0]


async def approve(
    store: Store,
    now_ms: int,
    request: KeyRequest,
    partner_name: str,
    limits: Limits,
    *,
    is_known: bool = False,
    by: Actor = OPERATOR,
) -> Partner:
    """Lets the requester claim a key of this partner, which is new unless `is_known`.

    Anybody can request a key in another's name. So `is_known` must say that the partner exists.
    Raises SetupError.
    """
    _require_waiting(request)
    if is_known:
        known = await store.partners.find(partner_name)
        if known is None:
            raise SetupError(f"There is no partner {partner_name!r}.")
        partner = known
    else:
        partner, is_new = await admin.new_partner(store, now_ms, partner_name, by)
        if not is_new:
            raise SetupError(
                f"There is a partner {partner_name!r} already, whose data this key would open. If "
                "that is meant, say that the partner is known; else choose another name."
            )
    made = {"rate": f"{limits.rate.requests} in {limits.rate.window_s} s", "burst": limits.burst}
    entry = audit_entry(partner.id, now_ms, by, "key_request.approve", request.id, after=made)
    if not await store.key_requests.decide(
        request.digest, now_ms, entry, partner=partner.id, limits=limits
    ):
        raise SetupError(f"Key request {request.id} was decided meanwhile.")
    return partner


async def decline(store: Store, now_ms: int, request: KeyRequest, by: Actor = OPERATOR) -> None:
    """The requester gets no key. Raises SetupError."""
    _require_waiting(request)
    entry = audit_entry(NOBODY, now_ms, by, "key_request.decline", request.id)
    if not await store.key_requests.decide(request.digest, now_ms, entry):
        raise SetupError(f"Key request {request.id} was decided meanwhile.")


async def claim(store: Store, now_ms: int, request: KeyRequest) -> tuple[str, Key] | None:
    """Creates the key of an approved request, once. Returns it in full, and as it is stored."""
    if request.limits is None or request.partner is None:
        return None
    secret = new_key(test=request.limits.is_test)
    digest, prefix = digest_of(secret), prefix_of(secret)
    entry = audit_entry(
        request.partner, now_ms, Actor("key", prefix), "key_request.claim", request.id
    )
    if not await store.key_requests.claim(request.digest, digest, prefix, now_ms, entry):
        return None
    key = await store.keys.find(digest)
    return None if key is None else (secret, key)


def _require_waiting(request: KeyRequest) -> None:
    if request.state is not RequestState.WAITING:
        raise SetupError(f"Key request {request.id} is {request.state} already.")
