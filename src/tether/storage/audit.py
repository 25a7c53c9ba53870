"""The audit trail: entries are added, beside what they tell of, and read; none is changed."""

from collections.abc import Sequence
from typing import NamedTuple

from tether.domain.audit import Entry
from tether.storage.engine import Engine, Statement

FORGOTTEN_AT_ONCE = 2_000
END_OF_TIME = 2**62

_COLUMNS = ", ".join(Entry._fields)
ADD = f"""
INSERT INTO audit_entries ({_COLUMNS})
SELECT {", ".join(f"${number}" for number in range(1, len(Entry._fields) + 1))}
"""
FORGET = """
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
    """Which entries are wanted: of a partner, of an action, from an instant to before another."""

    partner: int | None = None
    action: str | None = None
    from_ms: int = 0
    to_ms: int = END_OF_TIME


def noting(*entries: Entry) -> Sequence[Statement]:
    """The statements that add these entries, for the transaction of the change, which may have a
    condition for them: see `where_found`.
    """
    return [Statement(ADD, tuple(entry)) for entry in entries]


class Audit:
    """The entries of all partners, and those of none. Every method raises Unavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def add(self, *entries: Entry) -> None:
        """Stores these entries, which tell of what changed nothing in the database."""
        await self._engine.write_all(*noting(*entries))

    async def page(
        self,
        wanted: AuditFilter,
        after: AuditPosition | None,
        limit: int,
        *,
        descending: bool = False,
    ) -> list[Entry]:
        """The next entries in the order of time, from a place on."""
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
        return [Entry(*row) for row in rows]

    async def forget(self, before_ms: int) -> int:
        """Deletes some entries that are older; how many."""
        return await self._engine.write(FORGET, before_ms, FORGOTTEN_AT_ONCE)
