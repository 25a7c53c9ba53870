"""The audit trail. Entries are added in the transaction of each change, and never changed."""

import secrets
from collections.abc import Mapping
from itertools import count
from typing import NamedTuple

from tether.domain.audit import ACTION, Actor, AuditRow
from tether.domain.models import to_json
from tether.storage.engine import Repository, Statement

DELETED_AT_ONCE = 2_000
END_OF_TIME = 2**62
MAX_BYTES = 2_000  # of `before` and of `after`; larger values are left out
LONGEST_TARGET = 200
_numbers = count()  # orders the entries of the same millisecond

_COLUMNS = ", ".join(AuditRow._fields)
ADD = f"""
INSERT INTO audit_entries ({_COLUMNS})
SELECT {", ".join(f"${number}" for number in range(1, len(AuditRow._fields) + 1))}
"""
DELETE_BEFORE = """
DELETE FROM audit_entries WHERE (partner, at_ms, id) IN (
    SELECT partner, at_ms, id FROM audit_entries WHERE at_ms < $1 ORDER BY at_ms, id LIMIT $2
)
"""
_PAGE = f"""
SELECT {_COLUMNS} FROM audit_entries
WHERE {{whose}} AND (at_ms, id) {{comparison}} ($2, $3) AND at_ms >= $4 AND at_ms < $5 {{more}}
ORDER BY at_ms {{order}}, id {{order}} LIMIT $6
"""

AuditPosition = tuple[int, str]
"""Where an entry is in the order of time: its instant and its id."""


class AuditFilter(NamedTuple):
    """Which entries are wanted: of a partner, of an action, from one instant to before another."""

    partner: int | None = None
    action: str | None = None
    from_ms: int = 0
    to_ms: int = END_OF_TIME


def audit_entry(
    partner: int,
    at_ms: int,
    by: Actor,
    action: str,
    target: str,
    *,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object] | None = None,
) -> Statement:
    """The statement that adds an entry, for the transaction of the change.

    `action` is what was done, such as `key.revoke`, to the `target`. If both `before` and `after`
    are given, only the members that differ are stored. No argument may contain the id of a
    vehicle: an erased vehicle must leave no trace. See also `where_found`.
    """
    assert ACTION.fullmatch(action), action
    if before is not None and after is not None:
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        before = {name: before[name] for name in names if name in before}
        after = {name: after[name] for name in names if name in after}
    entry_id = f"{next(_numbers) & 0xFFFFFF:06x}{secrets.token_hex(5)}"
    entry = AuditRow(
        partner, at_ms, entry_id, by.kind, by.key_prefix, action,
        target[:LONGEST_TARGET], _json(before), _json(after), by.request_id, by.address,
    )  # fmt: skip
    return Statement(ADD, entry)


def _json(values: Mapping[str, object] | None) -> str:
    """The values as JSON. An empty text if there are none, or if they are large."""
    if not values:
        return ""
    text = to_json(values)
    return text.decode() if len(text) <= MAX_BYTES else ""


class Audit(Repository):
    """The entries of all partners, and of no partner. Every method raises Unavailable."""

    async def add(self, *entries: Statement) -> None:
        """Stores entries. Use it only if nothing else in the database was changed."""
        await self._engine.write_all(*entries)

    async def page(
        self,
        wanted: AuditFilter,
        after: AuditPosition | None,
        limit: int,
        *,
        descending: bool = False,
    ) -> list[AuditRow]:
        """The next entries after a position, in the order of time."""
        sql = _PAGE.format(
            whose="$1 = -1" if wanted.partner is None else "partner = $1",
            comparison="<" if descending else ">",
            order="DESC" if descending else "ASC",
            more="" if wanted.action is None else "AND action = $7",
        )
        after = after or ((END_OF_TIME, "") if descending else (-1, ""))
        partner = -1 if wanted.partner is None else wanted.partner
        actions = () if wanted.action is None else (wanted.action,)
        rows = await self._engine.scan(
            sql, partner, *after, wanted.from_ms, wanted.to_ms, limit, *actions
        )
        return [AuditRow(*row) for row in rows]

    async def delete_before(self, before_ms: int) -> int:
        """Deletes some older entries; returns their number."""
        return await self._engine.write(DELETE_BEFORE, before_ms, DELETED_AT_ONCE)
