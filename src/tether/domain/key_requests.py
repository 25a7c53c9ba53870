"""Requests for an API key: the form, and the state of a request."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from tether.domain.errors import Invalid, Missing
from tether.domain.keys import Rate
from tether.domain.timestamps import DAY_MS, HOUR_MS

WAITS_MS = 30 * DAY_MS
"""How long a request waits for a decision."""
KEPT_MS = 14 * DAY_MS
"""How long a decided request is shown, and can be claimed."""
MAX_OF_CLIENT, CLIENT_WINDOW_MS = 5, HOUR_MS
MAX_WAITING = 200

LONGEST = {"organisation": 100, "email": 254, "purpose": 1_000, "fleet": 100}
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


class RequestForm(NamedTuple):
    """The form of a request. It is untrusted text."""

    organisation: str
    email: str
    purpose: str
    fleet: str
    """The size of the fleet, in the requester's words."""


class Limits(NamedTuple):
    """The limits of the key of an approved request. `lasts_ms` counts from the claim."""

    rate: Rate
    burst: int
    lasts_ms: int | None
    is_test: bool


class RequestState(StrEnum):
    """The state of a request."""

    WAITING = "waiting"
    DECLINED = "declined"
    APPROVED = "approved"
    CLAIMED = "claimed"


class KeyRequest(NamedTuple):
    """A request for a key. Instants in ms since 1970."""

    digest: str
    """The SHA-256 of the token in the requester's link; its beginning is the request's id."""
    created_ms: int
    expires_ms: int
    client: str
    form: RequestForm
    decided_ms: int | None
    partner: int | None
    partner_name: str | None
    claimed_ms: int | None
    limits: Limits | None

    @property
    def id(self) -> str:
        """The id that the operator uses."""
        return self.digest[:10]

    @property
    def state(self) -> RequestState:
        """The state of the request."""
        if self.decided_ms is None:
            return RequestState.WAITING
        if self.partner is None:
            return RequestState.DECLINED
        return RequestState.APPROVED if self.claimed_ms is None else RequestState.CLAIMED


def checked_form(form: Mapping[str, str]) -> RequestForm:
    """Validates the form. Raises Invalid with the field's name."""
    values = {name: form.get(name, "").replace("\r", "").strip() for name in RequestForm._fields}
    for name, text in values.items():
        if not text:
            raise Missing(name, "Fill it in.")
        if len(text) > LONGEST[name]:
            raise Invalid(name, f"It has at most {LONGEST[name]:,} characters.")
    if not _EMAIL.fullmatch(values["email"]):
        raise Invalid("email", "Write an address such as name@example.com.")
    return RequestForm(**values)
