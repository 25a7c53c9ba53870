"""The epoch of the database: which of its histories the places in cursors belong to.

A new one begins when something may be lost that was acknowledged, such as by restoring a backup.
From then on a cursor of before stands behind something else than what its owner has had.
"""

import logging
import re
import time
from secrets import token_hex
from typing import NamedTuple

from tether.domain.timestamps import now_ms
from tether.storage.engine import Engine

log = logging.getLogger(__name__)  # structlog takes a while to load

REMEMBERED_S = 1.0
READ = "SELECT id, began_ms FROM epoch"
BEGIN = "UPDATE epoch SET id = $1, began_ms = $2"
# Instants of the servers' clocks, of which none is later than now.
NEWEST_INSTANT = """
SELECT max(at_ms) FROM (
    SELECT max(updated_ms) AS at_ms FROM derivations
    UNION ALL SELECT max(created_ms) FROM keys
    UNION ALL SELECT max(last_used_ms) FROM keys
    UNION ALL SELECT began_ms FROM epoch
) newest
"""
ID = re.compile(r"[0-9a-f]{12}|")


class Epoch(NamedTuple):
    """`id` stands in cursors: 12 hexadecimal digits, or nothing in those of before epochs."""

    id: str
    began_ms: int


class Known(NamedTuple):
    """`ends`: the database is a restored copy, so that a new epoch begins when it is served."""

    epoch: Epoch
    ends: bool


def new_epoch() -> Epoch:
    """One that was never there, which begins now."""
    return Epoch(token_hex(6), now_ms())


def tell_of_copy() -> None:
    """Says in the log why cursors are refused from now on."""
    log.warning("This database is a restored copy: a new epoch begins.")


class Epochs:
    """What epoch it is, as of a second ago at the most."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: Epoch | None = None
        self._read_at = 0.0

    async def current(self) -> Epoch:
        """The epoch. Raises Unavailable."""
        if self._known is None or time.monotonic() - self._read_at >= REMEMBERED_S:
            asked_at = time.monotonic()
            ((id, began_ms),) = await self._engine.read(READ)
            self._known, self._read_at = Epoch(id, began_ms), asked_at
        return self._known
