"""How a stranger comes to a key: it is asked for, the operator decides, the requester claims it."""

from tether.domain.audit import NOBODY, OPERATOR, Actor
from tether.domain.console import digest_of_token, new_token
from tether.domain.errors import SetupError, TetherError
from tether.domain.key_requests import (
    CLIENT_WINDOW_MS,
    WAITS_MS,
    KeyRequest,
    Limits,
    RequestForm,
    RequestState,
)
from tether.domain.keys import Key, digest_of, new_key, prefix_of
from tether.domain.partners import Partner
from tether.server import admin
from tether.server.store import Store
from tether.storage.audit import audit_entry


class TooMany(TetherError):
    """No more requests for a key are taken now: of this address, or of all."""

    retry_after_s = CLIENT_WINDOW_MS // 1000

    def __init__(self) -> None:
        super().__init__("Too many keys were asked for of late.")


async def ask(store: Store, now_ms: int, form: RequestForm, client: str) -> str:
    """The token of the address at which the requester waits. Raises TooMany."""
    token = new_token()
    digest = digest_of_token(token)
    if not await store.key_requests.add(digest, form, client, now_ms, now_ms + WAITS_MS):
        raise TooMany
    return token


async def find(store: Store, now_ms: int, beginning: str) -> KeyRequest:
    """The one request whose id begins so. Raises SetupError."""
    found = await store.key_requests.all(now_ms)
    meant = [one for one in found if beginning and one.digest.startswith(beginning)]
    if len(meant) != 1:
        few = "more than one" if meant else "no"
        raise SetupError(
            f"There is {few} key request {beginning!r}; see: tether keys requests list"
        )
    return meant[0]


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
    """Lets the requester claim a key of this partner, which is a new one unless `is_known`.

    Anybody may ask in anybody's name: that a partner gets one more key has to be meant. Raises
    SetupError.
    """
    _require_waiting(request)
    known = await store.partners.find(partner_name)
    if known is not None and not is_known:
        raise SetupError(
            f"There is a partner {partner_name!r} already, whose data this key would open. If "
            "that is meant, say that the partner is known; else choose another name."
        )
    if known is None and is_known:
        raise SetupError(f"There is no partner {partner_name!r}.")
    partner = known or await admin.new_partner(store, now_ms, partner_name, by)
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
    """The key of an approved request, made now, in full and as it is stored; once."""
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
