"""Recognises keys: which request carries which key, whether it works, and when it was used last."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from tether.domain.errors import Forbidden, Unavailable
from tether.domain.keys import KEY_LENGTH, Key, digest_if_well_formed

log = logging.getLogger(__name__)  # a command that makes keys need not load more

# A revoked or changed key is known everywhere after at most 2 s; half of that leaves room.
REMEMBERED_MS = 1_000
MOST_REMEMBERED = 10_000
# Anybody can make up keys of the right form. So many that are not remembered are looked up at once:
# those that are do not wait behind them.
STRANGE_AT_ONCE = 4
PATIENCE_S = 5.0
USE_WRITTEN_S = 10.0

Uses: TypeAlias = "Mapping[str, tuple[int, str | None]]"  # ms since 1970 and address, by digest


class ForwardClock:
    """Milliseconds since 1970, which go on as time does when the machine's clock is set back.

    Else a key that has expired would work again. A clock that is set forward is followed.
    """

    def __init__(self, now_ms: Callable[[], int], passed_s: Callable[[], float]) -> None:
        self._now_ms = now_ms
        self._passed_s = passed_s  # since any moment; it never goes back
        self._offset_ms = now_ms() - int(passed_s() * 1000)

    def __call__(self) -> int:
        passed_ms = int(self._passed_s() * 1000)
        now_ms = max(self._now_ms(), passed_ms + self._offset_ms)
        self._offset_ms = now_ms - passed_ms
        return now_ms


class Authenticator:
    """The keys that were used lately, read again from the store every second.

    `now_ms` is a clock that does not go back.
    """

    def __init__(
        self, find: Callable[[str], Awaitable[Key | None]], now_ms: Callable[[], int]
    ) -> None:
        self._find = find
        self._now_ms = now_ms
        self._remembered: dict[str, tuple[int, Key]] = {}
        self._readings: dict[str, asyncio.Future[Key | None]] = {}
        self._strange = asyncio.Semaphore(STRANGE_AT_ONCE)

    async def recognise(self, secret: str | None) -> Key:
        """The key. Raises Forbidden if it is missing, malformed, unknown, expired or revoked."""
        # Anybody can send this: nothing is made or kept of what is no key.
        if secret is None or len(secret) != KEY_LENGTH:
            raise Forbidden
        try:
            digest = digest_if_well_formed(secret)
        except ValueError:
            raise Forbidden from None
        now_ms = self._now_ms()
        read_ms, key = self._remembered.get(digest, (0, None))
        if key is None or now_ms - read_ms >= REMEMBERED_MS:
            # Whoever gives up takes it from nobody else.
            key = await asyncio.shield(self._reading(digest, now_ms))
        if key is None or not key.works_at(now_ms):
            raise Forbidden
        return key

    def partner_of(self, secret: str) -> int | None:
        """Whose key it was when it was used last, if that is remembered. It may work no more."""
        key = self.remembered(secret)
        return key.partner if key else None

    def remembered(self, secret: str) -> Key | None:
        """The key as it was read last, if that was lately. It may work no more."""
        if len(secret) != KEY_LENGTH:
            return None
        try:
            _, key = self._remembered.get(digest_if_well_formed(secret), (0, None))
        except ValueError:
            return None
        return key

    def _reading(self, digest: str, now_ms: int) -> "asyncio.Future[Key | None]":
        """The key from the store, which is asked once by all who want to know it at that time.

        Else every request under way would ask when a busy key is to be read again, and the writes
        would wait behind them for a connection.
        """
        reading = self._readings.get(digest)
        if reading is None:
            reading = asyncio.ensure_future(self._read_now(digest, now_ms))
            self._readings[digest] = reading
            reading.add_done_callback(lambda _: self._readings.pop(digest))
        return reading

    async def _read_now(self, digest: str, now_ms: int) -> Key | None:
        if digest in self._remembered:
            key = await self._find(digest)
        else:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._strange.acquire()
            except TimeoutError as error:
                raise Unavailable from error
            try:
                key = await self._find(digest)
            finally:
                self._strange.release()
        self._remember(digest, now_ms, key)
        return key

    def _remember(self, digest: str, read_ms: int, key: Key | None) -> None:
        if key is None:  # unknown keys are not remembered: anybody can make up millions
            self._remembered.pop(digest, None)
            return
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[digest] = (read_ms, key)


class KeyUse:
    """Notes which keys are used. No request waits for it to be written.

    What cannot be written is kept and tried again; there is one note of each key.
    """

    def __init__(self, write: Callable[[Uses], Awaitable[None]], now_ms: Callable[[], int]) -> None:
        self._write = write
        self._now_ms = now_ms
        self._noted: dict[str, str | None] = {}
        self._unwritten: dict[str, tuple[int, str | None]] = {}

    def note(self, digest: str, client: str | None) -> None:
        """The key is used now, from this address."""
        self._noted[digest] = client

    async def keep_writing(self) -> None:
        """Writes what was noted, again and again."""
        while True:
            await asyncio.sleep(USE_WRITTEN_S)
            await self.write()

    async def write(self) -> None:
        """Writes what was noted, if that is possible."""
        noted, self._noted = self._noted, {}
        now_ms = self._now_ms()
        self._unwritten.update({digest: (now_ms, client) for digest, client in noted.items()})
        if not self._unwritten:
            return
        try:
            await self._write(self._unwritten)
        except Unavailable:
            return
        except Exception as error:  # a note is worth no failure
            log.error("key use not written", exc_info=error)
            return
        self._unwritten = {}
