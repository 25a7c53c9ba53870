"""What can be asked about the audit trail."""

from typing import TypedDict

from tether.client.entities import Pages
from tether.client.exchange import RetryPolicy
from tether.client.models import Instant
from tether.client.values import instant_or_none
from tether.domain.audit import AuditEntry


class AuditSelection(TypedDict, total=False):
    """Which entries are wanted: of an action such as `key.revoke`, from `from_` to before `to`."""

    action: str | None
    from_: Instant | None
    to: Instant | None


def audit_pages(
    policy: RetryPolicy, selection: AuditSelection, order: str, page_size: int
) -> Pages[AuditEntry]:
    """The entries in the order of time."""
    return Pages(
        AuditEntry,
        policy,
        "/audit",
        action=selection.get("action"),
        order=None if order == "asc" else order,
        limit=page_size,
        from_=instant_or_none("from", selection.get("from_")),
        to=instant_or_none("to", selection.get("to")),
    )
