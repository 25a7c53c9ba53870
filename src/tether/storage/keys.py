"""API keys: the SHA-256 of each, and what it may do, never the key itself."""

from collections.abc import Mapping

from tether.domain.keys import Key, Rate
from tether.domain.models import to_json
from tether.storage.engine import Engine, Row, Statement

KEY_COLUMNS = """
k.digest, k.prefix, k.partner, p.name, k.name, k.rate_requests, k.rate_window_s, k.burst,
k.read_only, k.created_ms, k.expires_ms, k.revoked_ms, k.last_used_ms, k.last_used_from
"""
_SELECT = f"SELECT {KEY_COLUMNS} FROM keys k JOIN partners p ON p.id = k.partner"
FIND = f"{_SELECT} WHERE k.digest = $1"
LIST = f"{_SELECT} ORDER BY p.name, k.created_ms, k.prefix"
USE = """
SELECT partner, sum(CASE WHEN revoked_ms IS NULL AND coalesce(expires_ms, $1 + 1) > $1
                         THEN 1 ELSE 0 END), max(last_used_ms)
FROM keys GROUP BY partner
"""
OF_PARTNER = f"{_SELECT} WHERE k.partner = $1 ORDER BY k.created_ms DESC, k.prefix LIMIT $2"

ADD = """
INSERT INTO keys (digest, prefix, partner, name, rate_requests, rate_window_s, burst, read_only,
                  created_ms, expires_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""
REVOKE = "UPDATE keys SET revoked_ms = $2 WHERE digest = $1 AND revoked_ms IS NULL"
EXPIRE = """
UPDATE keys SET expires_ms = $2 WHERE digest = $1 AND (expires_ms IS NULL OR expires_ms > $2)
"""
SET = """
UPDATE keys SET name = $2, rate_requests = $3, rate_window_s = $4, burst = $5, expires_ms = $6
WHERE digest = $1
"""
# $1 is a JSON object: instant and address by digest. An older instant does not replace a newer one.
NOTE_USED = """
UPDATE keys SET last_used_ms = used.at_ms, last_used_from = used.client
FROM (SELECT key AS digest, CAST(value ->> 0 AS BIGINT) AS at_ms, value ->> 1 AS client
      FROM jsonb_each($1)) used
WHERE keys.digest = used.digest AND coalesce(keys.last_used_ms, 0) < used.at_ms
"""


def key_of(row: Row) -> Key:
    """The key of a row of KEY_COLUMNS."""
    digest, prefix, partner, partner_name, name, requests, window_s, burst, read_only, *times = row
    return Key(
        digest, prefix, partner, partner_name, name, Rate(requests, window_s), burst,
        bool(read_only), *times,
    )  # fmt: skip


def add_statement(key: Key) -> Statement:
    """The statement that stores a new key."""
    return Statement(
        ADD,
        (key.digest, key.prefix, key.partner, key.name, key.rate.requests, key.rate.window_s,
         key.burst, int(key.read_only), key.created_ms, key.expires_ms),
    )  # fmt: skip


class Keys:
    """The keys of all partners. Every method raises Unavailable.

    Methods that change a key run the statements `also` in the same transaction: audit entries.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def find(self, digest: str) -> Key | None:
        """The key with this SHA-256, also if it is revoked or expired."""
        rows = await self._engine.read(FIND, digest)
        return key_of(rows[0]) if rows else None

    async def all(self) -> list[Key]:
        """All keys, by partner and age."""
        return [key_of(row) for row in await self._engine.read(LIST)]

    async def of_partner(self, partner: int, limit: int) -> list[Key]:
        """The partner's newest keys, including expired and revoked ones."""
        rows = await self._engine.read(OF_PARTNER, partner, limit)
        return [key_of(row) for row in rows]

    async def use_by_partner(self, now_ms: int) -> dict[int, tuple[int, int | None]]:
        """For each partner: how many keys work, and when one was last used."""
        rows = await self._engine.read(USE, now_ms)
        return {partner: (int(working), last_ms) for partner, working, last_ms in rows}

    async def add(self, key: Key, *also: Statement) -> None:
        """Stores a new key."""
        await self._engine.write_all(add_statement(key), *also)

    async def revoke(self, key: Key, at_ms: int, *also: Statement) -> None:
        """Revokes the key for good. A second call keeps the first instant."""
        await self._engine.write_all(Statement(REVOKE, (key.digest, at_ms)), *also)

    async def expire(self, key: Key, at_ms: int, *also: Statement) -> None:
        """The key stops working at this instant at the latest."""
        await self._engine.write_all(Statement(EXPIRE, (key.digest, at_ms)), *also)

    async def set(self, key: Key, *also: Statement) -> None:
        """Stores the name, rate, burst and end of this key."""
        row = (
            key.digest, key.name, key.rate.requests, key.rate.window_s, key.burst, key.expires_ms,
        )  # fmt: skip
        await self._engine.write_all(Statement(SET, row), *also)

    async def note_used(self, uses: Mapping[str, tuple[int, str | None]]) -> None:
        """These keys, by digest, were used at this instant and from this address."""
        await self._engine.write(NOTE_USED, to_json(uses).decode())
