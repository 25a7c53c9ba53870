"""Partners, and the deletion of a partner with all its data."""

from collections.abc import Callable, Iterable

from tether.domain.errors import NotFound, SetupError
from tether.domain.partners import Holdings, Partner
from tether.storage.engine import Engine, Statement
from tether.storage.turns import giving_way

ERASE_AT_ONCE = 5_000  # events in a batch, so that others do not wait long

PING = "SELECT 1 FROM partners LIMIT 1"

_SELECT = "SELECT id, name, created_ms FROM partners"
FIND = f"{_SELECT} WHERE name = $1"
GET = f"{_SELECT} WHERE id = $1"
LIST = f"{_SELECT} ORDER BY name"
AFTER = f"{_SELECT} WHERE name > $1 ORDER BY name LIMIT $2"

ADD = """
INSERT INTO partners (id, name, created_ms) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING
"""
RENAME = "UPDATE partners SET name = $2 WHERE id = $1"

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
_FIRST_ERASED = (
    "webhooks", "webhook_parked", "webhook_attempts",
    "audit_entries", "erasures", "retention", "refused_requests", "key_hours", "chargers",
    "vehicles", "derivations", "snapshots",
    "session_versions", "sessions", "withdrawals",
)  # fmt: skip


class Partners:
    """All partners. Every method raises Unavailable."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def add(self, partner: Partner, *also: Statement) -> Partner:
        """Stores a new partner; returns the partner of this name, new or not."""
        await self._engine.write_all(Statement(ADD, partner), *also)
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

    async def after(self, name: str, limit: int) -> list[Partner]:
        """The partners that follow this name."""
        return [Partner(*row) for row in await self._engine.read(AFTER, name, limit)]

    async def rename(self, partner: Partner, name: str, *also: Statement) -> None:
        """Gives the partner another name. Raises SetupError if it is taken."""
        if await self.find(name) is not None:
            raise SetupError(f"There is a partner {name!r} already.")
        await self._engine.write_all(Statement(RENAME, (partner.id, name)), *also)

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
        await self._erase_all(partner, _FIRST_ERASED)
        erased = ERASE_AT_ONCE
        while erased == ERASE_AT_ONCE:
            async with giving_way():
                erased = await self._engine.write(ERASE_EVENTS, partner.id, ERASE_AT_ONCE)
                progress(erased)
        # The positions of the event lists go last: without them events would be listed again.
        tables = (*_FIRST_ERASED, *self._engine.dialect.own_tables)
        await self._erase_all(partner, tables)
        # Before the partner itself: if this fails, the deletion can be repeated.
        await self._engine.scrub()
        await self._engine.write_all(Statement(ERASE_PARTNER, (partner.id,)), *also)
        await self._erase_all(partner, tables)  # a server may have begun to derive again

    async def _erase_all(self, partner: Partner, tables: Iterable[str]) -> None:
        for table in tables:
            await self._engine.write(ERASE_ALL.format(table=table), partner.id)
