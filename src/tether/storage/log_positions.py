"""Positions in the event logs: their epoch, the last entry of each partner's log, and the last
entry from which its sessions are derived.

An epoch is one history of the database. A new one begins when something may be lost that was
acknowledged, for example when a backup is restored. A cursor of an earlier epoch is then refused:
the events before its position may differ from the events that the client has read.
"""

import logging
import re
import time
from secrets import token_hex
from typing import NamedTuple

from tether.domain.timestamps import now_ms
from tether.storage.engine import Engine, Repository, Statement

log = logging.getLogger(__name__)  # structlog takes a while to load

# Epochs -------------------------------------------------------------------------------------------

EPOCH_REMEMBERED_S = 1.0
EPOCH_ID = re.compile(r"[0-9a-f]{12}|")
READ_EPOCH = "SELECT id, began_ms FROM epoch"
BEGIN_EPOCH = "UPDATE epoch SET id = $1, began_ms = $2"


class Epoch(NamedTuple):
    """`id` stands in cursors: 12 hexadecimal digits, or nothing in cursors from before epochs."""

    id: str
    began_ms: int


class EpochState(NamedTuple):
    """`ends`: the database is a restored copy, so a new epoch begins when it is served."""

    epoch: Epoch
    ends: bool


def new_epoch() -> Epoch:
    """A new epoch, which begins now."""
    return Epoch(token_hex(6), now_ms())


def log_restored_copy() -> None:
    """Logs why cursors are refused from now on."""
    log.warning("This database is a restored copy: a new epoch begins.")


class Epochs(Repository):
    """The epoch of the database, read at most a second ago."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._epoch: Epoch | None = None
        self._read_at = 0.0

    async def current(self) -> Epoch:
        """The epoch. Raises Unavailable."""
        if self._epoch is None or time.monotonic() - self._read_at >= EPOCH_REMEMBERED_S:
            asked_at = time.monotonic()
            ((id, began_ms),) = await self._engine.read(READ_EPOCH)
            self._epoch, self._read_at = Epoch(id, began_ms), asked_at
        return self._epoch


# Derivations --------------------------------------------------------------------------------------

BEGIN_DERIVATION = """
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
HAS_MARK = "(SELECT d.mark FROM derivations d WHERE d.partner = $1) = $3"
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
    """The sessions of a partner contain all events up to the number `seq`, except those that were
    withdrawn by then.

    `updated_ms` is the newest instant at which a session changed. `mark` changes with every write.
    """

    seq: int
    updated_ms: int
    mark: int

    @property
    def unfinished(self) -> bool:
        """Whether sessions of some vehicles contain later events: see `Projector._by_vehicle`."""
        return self.mark < 0


def advancing(
    partner: int, position: Position, to: Position, *, unless_withdrawn: bool
) -> Statement:
    """The statement that moves the position. It changes no row if somebody else has moved it, or,
    `unless_withdrawn`, if events were withdrawn after `to`.
    """
    sql = ADVANCE_UNLESS_WITHDRAWN if unless_withdrawn else ADVANCE
    return Statement(sql, (partner, position.mark, *to))


class Derivations(Repository):
    """How far the sessions of each partner are derived. Every method raises Unavailable."""

    async def progress(self, partner: int) -> Progress:
        """How long the partner's log is, and how far it is derived."""
        ((head, derived),) = await self._engine.read(PROGRESS, partner)
        return Progress(head, derived)

    async def withdrawn_since(self, partner: int, position: Position) -> bool:
        """Whether events were withdrawn that the sessions at this position may still contain."""
        ((last,),) = await self._engine.read(WITHDRAWN, partner)
        return bool(last > position.seq)

    async def position(self, partner: int) -> Position | None:
        """The position of the partner's sessions; None if there is no such partner."""
        rows = await self._engine.read(POSITION, partner)
        if not rows:
            await self._engine.write(BEGIN_DERIVATION, partner)
            rows = await self._engine.read(POSITION, partner)
        return Position(*rows[0]) if rows else None
