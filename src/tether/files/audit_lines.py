"""Entries of the audit trail as rows of a CSV."""

from tether.domain.audit import AuditEntry
from tether.domain.models import to_json
from tether.files.csv_form import csv_line, text_cell

AUDIT_COLUMNS = (
    "at", "actor", "key", "action", "target", "before", "after", "requestId", "address", "id",
)  # fmt: skip


def audit_csv(entry: AuditEntry) -> str:
    """The row of an entry. The values before and after are JSON."""
    before, after = (to_json(one).decode() if one else "" for one in (entry.before, entry.after))
    return csv_line(
        [
            entry.at, entry.actor, entry.key or "", entry.action, text_cell(entry.target),
            before, after, text_cell(entry.request_id or ""), entry.address or "", entry.id,
        ]
    )  # fmt: skip
