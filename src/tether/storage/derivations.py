"""How far the sessions of each partner are derived from its events."""

from typing import NamedTuple

from tether.storage.engine import Engine, Statement

BEGIN = """
INSERT INTO derivations (partner, seq, updated_ms, mark)
SELECT $1, 0, 0, 0 WHERE EXISTS (SELECT 1 FROM partners WHERE id = $1)
ON CONFLICT (partner) DO NOTHING
"""

_LAST_EVENT = "(SELECT e.seq FROM events e WHERE e.partner = $1 ORDER BY e.seq DESC LIMIT 1)"
LAST_WITHDRAWAL = """
coalesce((SELECT w.seq FROM withdrawals w WHERE w.partner = $1 ORDER BY w.seq DESC LIMIT 1), 0)
"""
HEAD = f"""
(SELECT coalesce(max(x.seq), 0) FROM (
    SELECT {_LAST_EVENT} AS seq UNION ALL SELECT {LAST_WITHDRAWAL}
) x)
"""
DERIVED = "coalesce((SELECT d.seq FROM derivations d WHERE d.partner = $1), 0)"

PROGRESS = f"SELECT {HEAD}, {DERIVED}"
WITHDRAWN = f"SELECT {LAST_WITHDRAWAL}"
POSITION = "SELECT seq, updated_ms, mark FROM derivations WHERE partner = $1"
ADVANCE = """
UPDATE derivations SET seq = $3, updated_ms = $4, mark = $5 WHERE partner = $1 AND mark = $2
"""
ADVANCE_UNLESS_WITHDRAWN = f"{ADVANCE} AND {LAST_WITHDRAWAL} <= $3"


class Progress(NamedTuple):
    """The number of the last entry of a partner's log, and of the last one that is derived."""

    head: int
    derived: int


class Position(NamedTuple):
    """Where the sessions of a partner stand: they contain all events up to `seq`, but for those
    that were taken back by then.

    `updated_ms` is the newest instant of a change of a session; `mark` is another one after every
    change.
    """

    seq: int
    updated_ms: int
    mark: int

    @property
    def unfinished(self) -> bool:
        """Of some vehicles the sessions contain later events, too: see `Projector._by_vehicle`."""
        return self.mark < 0


def advancing(
    partner: int, position: Position, to: Position, *, unless_withdrawn: bool = False
) -> Statement:
    """The statement that moves on; it changes no row if another was at it since `position`, or, if
    that matters, events were taken back behind `to`.
    """
    sql = ADVANCE_UNLESS_WITHDRAWN if unless_withdrawn else ADVANCE
    return Statement(sql, (partner, position.mark, *to))


class Derivations:
    """How far all partners are. Every method raises Unavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def progress(self, partner: int) -> Progress:
        """How far the partner is."""
        ((head, derived),) = await self._engine.read(PROGRESS, partner)
        return Progress(head, derived)

    async def withdrawn_since(self, partner: int, position: Position) -> bool:
        """Whether events were taken back that the sessions may still contain there."""
        ((last,),) = await self._engine.read(WITHDRAWN, partner)
        return bool(last > position.seq)

    async def position(self, partner: int) -> Position | None:
        """Where the partner's sessions stand; None if there is no such partner."""
        rows = await self._engine.read(POSITION, partner)
        if not rows:
            await self._engine.write(BEGIN, partner)
            rows = await self._engine.read(POSITION, partner)
        return Position(*rows[0]) if rows else None
