"""Requests for an API key: what is asked of whoever wants one, and what becomes of it."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from tether.domain.errors import Invalid, Missing
from tether.domain.keys import Rate

WAITS_MS = 30 * 86_400_000
"""How long a request waits to be decided."""
KEPT_MS = 14 * 86_400_000
"""How long a decided one is shown, and can be claimed."""
OF_AN_ADDRESS, IN_MS = 5, 3_600_000
MOST_WAITING = 200

LONGEST = {"organisation": 100, "email": 254, "purpose": 1_000, "fleet": 100}
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


class Wish(NamedTuple):
    """What the requester says. It is a stranger's text: it may look like anything."""

    organisation: str
    email: str
    purpose: str
    fleet: str
    """How large the fleet is, in the requester's words."""


class Limits(NamedTuple):
    """What the key of an approved request may do. `lasts_ms` from when it is claimed."""

    rate: Rate
    burst: int
    lasts_ms: int | None
    is_test: bool


class RequestState(StrEnum):
    """Where a request stands."""

    WAITING = "waiting"
    DECLINED = "declined"
    APPROVED = "approved"
    CLAIMED = "claimed"


class KeyRequest(NamedTuple):
    """A request for a key. Instants in ms since 1970."""

    digest: str
    """The SHA-256 of the token in the requester's address; its beginning is the request's id."""
    created_ms: int
    expires_ms: int
    client: str
    wish: Wish
    decided_ms: int | None
    partner: int | None
    partner_name: str | None
    claimed_ms: int | None
    limits: Limits | None

    @property
    def id(self) -> str:
        """By which the operator names it."""
        return self.digest[:10]

    @property
    def state(self) -> RequestState:
        """Where it stands."""
        if self.decided_ms is None:
            return RequestState.WAITING
        if self.partner is None:
            return RequestState.DECLINED
        return RequestState.APPROVED if self.claimed_ms is None else RequestState.CLAIMED


def wish_of(form: Mapping[str, str]) -> Wish:
    """What the form wishes. Raises Invalid with the field's name."""
    values = {name: form.get(name, "").replace("\r", "").strip() for name in Wish._fields}
    for name, text in values.items():
        if not text:
            raise Missing(name, "Fill it in.")
        if len(text) > LONGEST[name]:
            raise Invalid(name, f"It has at most {LONGEST[name]:,} characters.")
    if not _EMAIL.fullmatch(values["email"]):
        raise Invalid("email", "Write an address such as name@example.com.")
    return Wish(**values)
