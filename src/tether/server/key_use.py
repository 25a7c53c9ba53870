"""When each key was used last, and from where: noted by requests, written now and then."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

import structlog

from tether.domain.errors import Unavailable

log = structlog.get_logger()

PERIOD_S = 10.0

Uses: TypeAlias = "Mapping[str, tuple[int, str | None]]"  # ms since 1970 and address, by digest


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
            await asyncio.sleep(PERIOD_S)
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
