"""The audit trail: who changed configuration, took back data or signed in, and when."""

import re
import secrets
from collections.abc import Mapping
from itertools import count
from typing import Any, NamedTuple

import msgspec

from tether.domain.timestamps import format_instant

NOBODY = 0
"""Whom an entry concerns that concerns no partner that is there."""
MOST_BYTES = 2_000  # of what was before, and of what is after; what is larger is left out
LONGEST_TARGET = 200
DEFAULT_DAYS = 400
_numbers = count()  # so that the entries of an instant are in the order in which they were made
ACTION = re.compile(r"[a-z_]{1,30}\.[a-z_]{1,30}")


class Actor(NamedTuple):
    """Who did something: `kind` is `key`, `operator` or `system`."""

    kind: str
    key_prefix: str = ""
    request_id: str = ""
    address: str = ""


OPERATOR = Actor("operator")
SYSTEM = Actor("system")


class Entry(NamedTuple):
    """An entry as it is stored; `before` and `after` are JSON, or nothing."""

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
    """An entry as it is shown.

    `actor` is `key`, `operator` or `system`, `key` the first characters of the key. `target` names
    what was changed, `before` and `after` what of it differs, where that is small. `address` is
    that of the client.
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


def entry(
    partner: int,
    at_ms: int,
    by: Actor,
    action: str,
    target: str,
    *,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> Entry:
    """A new entry. `action` is what was done, such as `key.revoke`, to the `target`.

    Of `before` and `after` only the members are kept that differ, where there are both. Neither may
    have the id of a vehicle in it, nor the target: what is erased must be nowhere.
    """
    assert ACTION.fullmatch(action), action
    if before is not None and after is not None:
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        before = {name: before[name] for name in names if name in before}
        after = {name: after[name] for name in names if name in after}
    entry_id = f"{next(_numbers) & 0xFFFFFF:06x}{secrets.token_hex(5)}"
    return Entry(
        partner, at_ms, entry_id, by.kind, by.key_prefix, action,
        target[:LONGEST_TARGET], _small(before), _small(after), by.request_id, by.address,
    )  # fmt: skip


def shown(stored: Entry, *, to_partner: bool) -> AuditEntry:
    """The entry as it is shown; partners are not told the operator's address."""
    own = stored.actor == "key" or not to_partner
    return AuditEntry(
        id=stored.id,
        at=format_instant(stored.at_ms),
        actor=stored.actor,
        key=stored.key_prefix or None,
        action=stored.action,
        target=stored.target,
        before=msgspec.json.decode(stored.before) if stored.before else None,
        after=msgspec.json.decode(stored.after) if stored.after else None,
        request_id=stored.request_id or None,
        address=(own and stored.address) or None,
    )


def _small(values: Mapping[str, object] | None) -> str:
    """The JSON of these values; nothing where it is large."""
    if not values:
        return ""
    text = msgspec.json.encode(values)
    return text.decode() if len(text) <= MOST_BYTES else ""
