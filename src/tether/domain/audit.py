"""The audit trail: who changed configuration, took back data or signed in, and when."""

import re
from typing import Any, NamedTuple

import msgspec

from tether.domain.timestamps import format_instant

NOBODY = 0
"""The partner of an entry that concerns no existing partner."""
DEFAULT_DAYS = 400
ACTION = re.compile(r"[a-z_]{1,30}\.[a-z_]{1,30}")


class Actor(NamedTuple):
    """Who did something: `kind` is `key`, `operator` or `system`."""

    kind: str
    key_prefix: str = ""
    request_id: str = ""
    address: str = ""


OPERATOR = Actor("operator")
SYSTEM = Actor("system")


class AuditRow(NamedTuple):
    """An entry as it is stored: a row. `before` and `after` are JSON, or empty."""

    partner: int
    at_ms: int
    id: str
    actor: str
    key_prefix: str
    action: str
    target: str
    before: str
    after: str
    request_id: str
    address: str


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """An entry as the API and the console show it.

    `actor` is `key`, `operator` or `system`. `key` has the first characters of the key. `target`
    names the changed object. `before` and `after` have the members that changed, unless they are
    large. `address` is the address of the client.
    """

    id: str
    at: str
    actor: str
    key: str | None = None
    action: str
    target: str
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    request_id: str | None = None
    address: str | None = None


def audit_view(row: AuditRow, *, to_partner: bool) -> AuditEntry:
    """The entry as it is shown. Partners do not see the operator's address."""
    own = row.actor == "key" or not to_partner
    return AuditEntry(
        id=row.id,
        at=format_instant(row.at_ms),
        actor=row.actor,
        key=row.key_prefix or None,
        action=row.action,
        target=row.target,
        before=msgspec.json.decode(row.before) if row.before else None,
        after=msgspec.json.decode(row.after) if row.after else None,
        request_id=row.request_id or None,
        address=(own and row.address) or None,
    )
