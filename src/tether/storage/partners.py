"""Partners and their API keys, and the deletion of a partner with all its data.

A key itself is never stored: the database has its SHA-256, its first characters and its limits.
"""

from collections.abc import Callable, Iterable, Mapping

from tether.domain.errors import NotFound, SetupError
from tether.domain.keys import Key, Rate
from tether.domain.models import to_json
from tether.domain.partners import Holdings, Partner
from tether.storage.engine import Repository, Row, Statement, where_found
from tether.storage.tables import TABLES
from tether.storage.turns import throttled

ERASE_AT_ONCE = 5_000  # events in a batch, so that others do not wait long

_SELECT = "SELECT id, name, created_ms FROM partners"
FIND = f"{_SELECT} WHERE name = $1"
GET = f"{_SELECT} WHERE id = $1"
LIST = f"{_SELECT} ORDER BY name"
AFTER = f"""
{_SELECT} WHERE name > $1 AND ($3 = '' OR {{position}}(lower(name), lower($3)) > 0)
ORDER BY name LIMIT $2
"""

ADD = """
INSERT INTO partners (id, name, created_ms) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING
"""
THIS = "SELECT 1 FROM partners WHERE id = $1"
RENAME = """
UPDATE partners SET name = $3 WHERE id = $1 AND name = $2
AND NOT EXISTS (SELECT 1 FROM partners x WHERE x.name = $3)
"""
RENAMED = f"{THIS} AND name = $2"

HOLDINGS = """
SELECT (SELECT count(*) FROM chargers WHERE partner = $1),
       (SELECT count(*) FROM vehicles WHERE partner = $1),
       (SELECT count(*) FROM events WHERE partner = $1),
       (SELECT count(*) FROM keys WHERE partner = $1)
"""

ERASE_SIGNED_IN = """
DELETE FROM console_sessions WHERE key_digest IN (SELECT digest FROM keys WHERE partner = $1)
"""
ERASE_KEY_REQUESTS = "DELETE FROM key_requests WHERE partner = $1"
ERASE_KEYS = "DELETE FROM keys WHERE partner = $1"
ERASE_ALL = "DELETE FROM {table} WHERE partner = $1"
ERASE_EVENTS = """
DELETE FROM events WHERE partner = $1
AND seq IN (SELECT seq FROM events WHERE partner = $1 ORDER BY seq LIMIT $2)
"""
ERASE_PARTNER = "DELETE FROM partners WHERE id = $1"


class Partners(Repository):
    """All partners. Every method raises Unavailable."""

    async def add(self, partner: Partner, *also: Statement) -> Partner:
        """Stores a new partner; returns the partner of this name, new or not."""
        await self._engine.write_all(Statement(ADD, partner), *where_found(also, THIS, partner.id))
        found = await self.find(partner.name)
        assert found is not None
        return found

    async def find(self, name: str) -> Partner | None:
        """The partner of this name."""
        rows = await self._engine.read(FIND, name)
        return Partner(*rows[0]) if rows else None

    async def get(self, partner: int) -> Partner:
        """The partner of this number. Raises NotFound."""
        rows = await self._engine.read(GET, partner)
        if not rows:
            raise NotFound
        return Partner(*rows[0])

    async def all(self) -> list[Partner]:
        """All partners, by name."""
        return [Partner(*row) for row in await self._engine.read(LIST)]

    async def after(self, name: str, limit: int, *, text: str = "") -> list[Partner]:
        """The partners that follow this name, and have the text in theirs, in any case."""
        sql = AFTER.format(position=self._engine.dialect.position)
        rows = await self._engine.read(sql, name, limit, text)
        return [Partner(*row) for row in rows]

    async def rename(self, partner: Partner, name: str, *also: Statement) -> None:
        """Gives the partner another name. Raises SetupError if it is taken."""
        done, *_ = await self._engine.write_all(
            Statement(RENAME, (partner.id, partner.name, name)),
            *where_found(also, RENAMED, partner.id, name),
        )
        if not done and await self.find(name) is not None:
            raise SetupError(f"There is a partner {name!r} already.")
        if not done:
            raise SetupError(f"There is no partner {partner.name!r} any more.")

    async def holdings(self, partner: Partner) -> Holdings:
        """How much data the partner has, by kind."""
        return Holdings(*(await self._engine.scan(HOLDINGS, partner.id))[0])

    async def erase(
        self, partner: Partner, progress: Callable[[int], None], *also: Statement
    ) -> None:
        """Deletes the partner and all its data; reports deleted events to `progress`.

        The keys go first, then the entities that events refer to, so that nothing new arrives.
        Events are deleted in batches, and other partners have their turn in between. In the end
        the database's files contain none of its data. The statements `also` run in the transaction
        that deletes the partner itself.
        """
        await self._engine.write(ERASE_SIGNED_IN, partner.id)
        await self._engine.write(ERASE_KEY_REQUESTS, partner.id)  # nobody can claim one now
        await self._engine.write(ERASE_KEYS, partner.id)
        engines = ("", self._engine.dialect.name)
        tables = {
            name: table.engine
            for name, table in TABLES.items()
            if table.goes_with_partner and table.engine in engines
        }
        await self._erase_all(partner, [name for name, engine in tables.items() if not engine])
        erased = ERASE_AT_ONCE
        while erased == ERASE_AT_ONCE:
            async with throttled():
                erased = await self._engine.write(ERASE_EVENTS, partner.id, ERASE_AT_ONCE)
                progress(erased)
        # The positions of the event lists go last: without them events would be listed again.
        await self._erase_all(partner, tables)
        # Before the partner itself: if this fails, the deletion can be repeated.
        await self._engine.erase_deleted()
        await self._engine.write_all(Statement(ERASE_PARTNER, (partner.id,)), *also)
        await self._erase_all(partner, tables)  # a server may have begun to derive again

    async def _erase_all(self, partner: Partner, tables: Iterable[str]) -> None:
        for table in tables:
            await self._engine.write(ERASE_ALL.format(table=table), partner.id)


# Keys ---------------------------------------------------------------------------------------------

KEY_COLUMNS = """
k.digest, k.prefix, k.partner, p.name, k.name, k.rate_requests, k.rate_window_s, k.burst,
k.read_only, k.created_ms, k.expires_ms, k.revoked_ms, k.last_used_ms, k.last_used_from
"""
_SELECT_KEY = f"SELECT {KEY_COLUMNS} FROM keys k JOIN partners p ON p.id = k.partner"
FIND_KEY = f"{_SELECT_KEY} WHERE k.digest = $1"
LIST_KEYS = f"{_SELECT_KEY} ORDER BY p.name, k.created_ms, k.prefix"
USE_BY_PARTNER = """
SELECT partner, sum(CASE WHEN revoked_ms IS NULL AND coalesce(expires_ms, $1 + 1) > $1
                         THEN 1 ELSE 0 END), max(last_used_ms)
FROM keys GROUP BY partner
"""
KEYS_OF_PARTNER = (
    f"{_SELECT_KEY} WHERE k.partner = $1 ORDER BY k.created_ms DESC, k.prefix LIMIT $2"
)

ADD_KEY = """
INSERT INTO keys (digest, prefix, partner, name, rate_requests, rate_window_s, burst, read_only,
                  created_ms, expires_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""
REVOKE_KEY = "UPDATE keys SET revoked_ms = $2 WHERE digest = $1 AND revoked_ms IS NULL"
EXPIRE_KEY = """
UPDATE keys SET expires_ms = $2 WHERE digest = $1 AND (expires_ms IS NULL OR expires_ms > $2)
"""
# $1 is a JSON object: instant and address by digest. An older instant does not replace a newer one.
RECORD_USE = """
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


def add_key_statement(key: Key) -> Statement:
    """The statement that stores a new key."""
    return Statement(
        ADD_KEY,
        (key.digest, key.prefix, key.partner, key.name, key.rate.requests, key.rate.window_s,
         key.burst, int(key.read_only), key.created_ms, key.expires_ms),
    )  # fmt: skip


def _settings_of(key: Key) -> dict[str, object]:
    """The columns that the operator can change, with their values."""
    return {
        "name": key.name,
        "rate_requests": key.rate.requests,
        "rate_window_s": key.rate.window_s,
        "burst": key.burst,
        "expires_ms": key.expires_ms,
    }


class Keys(Repository):
    """The keys of all partners. Every method raises Unavailable.

    Methods that change a key run the statements `also` in the same transaction: audit entries.
    """

    async def find(self, digest: str) -> Key | None:
        """The key with this SHA-256, also if it is revoked or expired."""
        rows = await self._engine.read(FIND_KEY, digest)
        return key_of(rows[0]) if rows else None

    async def all(self, partner: Partner | None = None) -> list[Key]:
        """All keys, or the keys of a partner, by partner and age."""
        keys = [key_of(row) for row in await self._engine.read(LIST_KEYS)]
        return keys if partner is None else [key for key in keys if key.partner == partner.id]

    async def of_partner(self, partner: int, limit: int) -> list[Key]:
        """The partner's newest keys, including expired and revoked ones."""
        rows = await self._engine.read(KEYS_OF_PARTNER, partner, limit)
        return [key_of(row) for row in rows]

    async def use_by_partner(self, now_ms: int) -> dict[int, tuple[int, int | None]]:
        """For each partner: how many keys work, and when one was last used."""
        rows = await self._engine.read(USE_BY_PARTNER, now_ms)
        return {partner: (int(working), last_ms) for partner, working, last_ms in rows}

    async def add(self, key: Key, *also: Statement) -> None:
        """Stores a new key."""
        await self._engine.write_all(add_key_statement(key), *also)

    async def revoke(self, key: Key, at_ms: int, *also: Statement) -> None:
        """Revokes the key for good. A second call keeps the first instant."""
        await self._engine.write_all(Statement(REVOKE_KEY, (key.digest, at_ms)), *also)

    async def expire(self, key: Key, at_ms: int, *also: Statement) -> None:
        """The key stops working at this instant at the latest."""
        await self._engine.write_all(Statement(EXPIRE_KEY, (key.digest, at_ms)), *also)

    async def set(self, key: Key, changed: Key, *also: Statement) -> None:
        """Stores the name, rate, burst and end of `changed`, as far as they differ from `key`: the
        others may be changed meanwhile.
        """
        was, becomes = _settings_of(key), _settings_of(changed)
        row = {name: value for name, value in becomes.items() if value != was[name]}
        assigned = [f"{name} = ${number}" for number, name in enumerate(row, start=2)]
        sql = f"UPDATE keys SET {', '.join(assigned)} WHERE digest = $1"
        await self._engine.write_all(Statement(sql, (key.digest, *row.values())), *also)

    async def record_use(self, uses: Mapping[str, tuple[int, str | None]]) -> None:
        """Records the last use of keys: the instant and the address, by digest."""
        await self._engine.write(RECORD_USE, to_json(uses).decode())
