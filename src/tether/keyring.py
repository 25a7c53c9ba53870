"""Recognises keys: which request carries which key, and whether that key still works."""

from collections.abc import Awaitable, Callable

from tether.errors import Forbidden
from tether.keys import Key, digest_of, is_well_formed

# A revoked or changed key is known everywhere after at most 2 s; half of that leaves room.
REMEMBERED_MS = 1_000
MOST_REMEMBERED = 10_000


class KeyRing:
    """The keys that were used lately, read again from the store every second."""

    def __init__(
        self, find: Callable[[str], Awaitable[Key | None]], now_ms: Callable[[], int]
    ) -> None:
        self._find = find
        self._now_ms = now_ms
        self._remembered: dict[str, tuple[int, Key]] = {}

    async def recognise(self, secret: str | None) -> Key:
        """The key. Raises Forbidden if it is missing, malformed, unknown, expired or revoked."""
        if not secret:
            raise Forbidden
        now_ms, digest = self._now_ms(), digest_of(secret)
        read_ms, key = self._remembered.get(digest, (0, None))
        if key is None or not 0 <= now_ms - read_ms < REMEMBERED_MS:
            if not is_well_formed(secret):
                raise Forbidden
            key = await self._find(digest)
            self._remember(digest, now_ms, key)
        if key is None or not key.works_at(now_ms):
            raise Forbidden
        return key

    def _remember(self, digest: str, read_ms: int, key: Key | None) -> None:
        if key is None:  # unknown keys are not remembered: anybody can make up millions
            self._remembered.pop(digest, None)
            return
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[digest] = (read_ms, key)
