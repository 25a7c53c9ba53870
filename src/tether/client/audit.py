"""What can be asked about the audit trail."""

from typing import TypedDict

from tether.client.entities import Pages
from tether.client.exchange import Patience
from tether.client.models import Instant
from tether.client.values import instant_text
from tether.domain.audit import AuditEntry


class AuditSelection(TypedDict, total=False):
    """Which entries are wanted: of an action such as `key.revoke`, from `from_` to before `to`."""

    action: str | None
    from_: Instant | None
    to: Instant | None


def audit_pages(
    patience: Patience, selection: AuditSelection, order: str, page_size: int
) -> Pages[AuditEntry]:
    """The entries in the order of time."""
    from_, to = selection.get("from_"), selection.get("to")
    return Pages(
        AuditEntry,
        patience,
        "/audit",
        action=selection.get("action"),
        order=None if order == "asc" else order,
        limit=page_size,
        **{"from": None if from_ is None else instant_text("from", from_)},
        to=None if to is None else instant_text("to", to),
    )
