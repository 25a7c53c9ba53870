"""`tether audit`: shows the audit trail."""

from typing import Any

import click
import msgspec

from tether.cli import stores
from tether.cli.display.output import show_line, show_table
from tether.cli.options import SINCE, WholeNumber, database_option
from tether.domain.audit import ACTION, AuditEntry, AuditRow, audit_view
from tether.domain.errors import SetupError
from tether.domain.models import to_json
from tether.server import admin
from tether.server.store import Store

AT_ONCE = 1_000


@click.command()
@click.option("--partner", metavar="PARTNER", help="Only what concerns this partner.")
@click.option("--since", "from_ms", type=SINCE,
              help="From when on: a date, a date-time with a zone, or 7d, 12h ago.")  # fmt: skip
@click.option("--action", metavar="ACTION", help="Only this action, such as key.revoke.")
@click.option("--limit", type=WholeNumber(1), metavar="N", help="Only the newest N.")
@click.option("--csv", "format", flag_value="csv", help="As CSV.")
@click.option("--ndjson", "format", flag_value="ndjson", help="As JSON, an entry a line.")
@click.option("--json", "format", flag_value="json", help="As one JSON array.")
@database_option
def audit(
    partner: str | None,
    from_ms: int | None,
    action: str | None,
    limit: int | None,
    format: str | None,
    database: str,
) -> None:
    """Show who changed keys and settings, withdrew data, signed in.

    The oldest first. Entries without a partner, such as a refused sign-in with an unknown key, are
    shown, too, unless --partner names one.
    """
    if action is not None and not ACTION.fullmatch(action):
        raise SetupError(f"{action!r} is no action: write one such as key.revoke.")

    async def find(store: Store, now_ms: int) -> tuple[list[AuditRow], dict[int, str]]:
        from tether.storage.audit import AuditFilter

        owner = None if partner is None else (await admin.find_partner(store, partner)).id
        wanted = AuditFilter(owner, action, from_ms or 0)
        found: list[AuditRow] = []
        after = None
        while limit is None or len(found) < limit:
            size = AT_ONCE if limit is None else min(AT_ONCE, limit - len(found))
            page = await store.audit.page(wanted, after, size, descending=True)
            found += page
            if len(page) < size:
                break
            after = page[-1].at_ms, page[-1].id
        return found[::-1], {partner.id: partner.name for partner in await store.partners.all()}

    found, names = stores.in_store(database, find, announce=format is None)
    entries = [(audit_view(row, to_partner=False), names.get(row.partner)) for row in found]
    if format is None:
        show_table(
            ("Time", "Partner", "Who", "Action", "What", "Before", "After", "From"),
            [_row(entry, name) for entry, name in entries],
            wrapped=("Before", "After", "Partner"),
            empty="There are no such entries.",
        )
    elif format == "json":
        show_line(to_json(_objects(entries)))
    elif format == "ndjson":
        for entry in _objects(entries):
            show_line(to_json(entry))
    else:
        _show_csv(entries)


def _objects(entries: list[tuple[AuditEntry, str | None]]) -> list[dict[str, Any]]:
    return [
        msgspec.to_builtins(entry) | ({} if name is None else {"partner": name})
        for entry, name in entries
    ]


def _show_csv(entries: list[tuple[AuditEntry, str | None]]) -> None:
    from tether.files.csv_dialect import csv_line, text_cell
    from tether.files.csv_table import AUDIT_COLUMNS, audit_csv

    click.echo(csv_line((*AUDIT_COLUMNS, "partner")), nl=False)
    for entry, name in entries:
        click.echo(
            audit_csv(entry).rstrip("\n") + "," + csv_line([text_cell(name or "")]), nl=False
        )


def _row(entry: AuditEntry, name: str | None) -> tuple[str, ...]:
    before, after = (
        to_json(state).decode() if state else "" for state in (entry.before, entry.after)
    )
    return (
        entry.at, name or "", f"{entry.key}…" if entry.key else entry.actor, entry.action,
        entry.target, before, after, entry.address or "",
    )  # fmt: skip
