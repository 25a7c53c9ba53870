"""Sessions of the console, and links that sign operators in. Tokens are stored as SHA-256."""

from typing import NamedTuple

from tether.domain.keys import LINK_MS, Key, is_current
from tether.storage.engine import Repository, Statement
from tether.storage.partners import KEY_COLUMNS, key_of

SESSIONS_OF_EACH = 50  # for each key, and for the operator; the oldest end first
LINKS = 50  # unused ones

FIND = f"""
SELECT c.expires_ms, c.key_digest, {KEY_COLUMNS}
FROM console_sessions c
LEFT JOIN keys k ON k.digest = c.key_digest LEFT JOIN partners p ON p.id = k.partner
WHERE c.digest = $1
"""
ADD = """
INSERT INTO console_sessions (digest, key_digest, created_ms, expires_ms) VALUES ($1, $2, $3, $4)
"""
END = "DELETE FROM console_sessions WHERE digest = $1"
END_ALL_OF = "DELETE FROM console_sessions WHERE key_digest = $1"
END_EXPIRED = "DELETE FROM console_sessions WHERE expires_ms <= $1"
END_OLDEST = """
DELETE FROM console_sessions WHERE digest IN (
    SELECT digest FROM console_sessions WHERE key_digest = $1
    ORDER BY created_ms DESC, digest LIMIT 1000 OFFSET $2
)
"""
ADD_LINK = "INSERT INTO console_links (digest, expires_ms) VALUES ($1, $2)"
USE_LINK = "DELETE FROM console_links WHERE digest = $1 RETURNING expires_ms"
DELETE_ALL_LINKS = "DELETE FROM console_links"
DELETE_LINKS = """
DELETE FROM console_links WHERE expires_ms <= $1 OR digest IN (
    SELECT digest FROM console_links ORDER BY expires_ms DESC, digest LIMIT 1000 OFFSET $2
)
"""


class ConsoleSession(NamedTuple):
    """A session of the console: a user who has signed in with a key, or the operator."""

    digest: str
    expires_ms: int
    key: Key | None
    """None for the operator."""

    @property
    def is_operator(self) -> bool:
        """Whether the operator has signed in."""
        return self.key is None

    @property
    def may_change(self) -> bool:
        """Whether the user may change data."""
        return self.key is None or not self.key.read_only


class ConsoleSessions(Repository):
    """All sessions of the console. Every method raises Unavailable."""

    async def find(self, digest: str) -> ConsoleSession | None:
        """The session whose token has this SHA-256; None if its key was deleted. The session and
        its key may have expired.
        """
        rows = await self._engine.read(FIND, digest)
        if not rows:
            return None
        expires_ms, key_digest, *key = rows[0]
        if not key_digest:
            return ConsoleSession(digest, expires_ms, None)
        return None if None in key[:4] else ConsoleSession(digest, expires_ms, key_of(key))

    async def add(self, session: ConsoleSession, now_ms: int, *also: Statement) -> None:
        """Stores a new session. Deletes expired ones, and the oldest if there are too many."""
        key_digest = session.key.digest if session.key else ""
        await self._engine.write_all(
            Statement(END_EXPIRED, (now_ms,)),
            Statement(ADD, (session.digest, key_digest, now_ms, session.expires_ms)),
            Statement(END_OLDEST, (key_digest, SESSIONS_OF_EACH)),
            *also,
        )

    async def end(self, digest: str) -> None:
        """Ends the session."""
        await self._engine.write(END, digest)

    async def end_operators(self) -> int:
        """Ends all sessions of the operator, and deletes the links; returns how many ended."""
        ended, _ = await self._engine.write_all(
            Statement(END_ALL_OF, ("",)), Statement(DELETE_ALL_LINKS, ())
        )
        return ended

    async def add_link(self, digest: str, expires_ms: int, now_ms: int, *also: Statement) -> None:
        """Stores a link that signs an operator in once, until it expires."""
        await self._engine.write_all(
            Statement(ADD_LINK, (digest, expires_ms)),
            Statement(DELETE_LINKS, (now_ms, LINKS)),
            *also,
        )

    async def use_link(self, digest: str, now_ms: int) -> bool:
        """Uses up the link; returns whether it existed and had not expired."""
        rows = await self._engine.write_returning(USE_LINK, digest)
        return bool(rows) and is_current(int(rows[0][0]), now_ms, LINK_MS)
