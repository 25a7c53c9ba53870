"""Requests that are kept for the console: noted when they were answered, written now and then."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from tether.domain.errors import Unavailable
from tether.domain.keys import without_keys
from tether.storage.erasures import ENDED_MS
from tether.storage.refused_requests import RefusedRequest, RefusedRequests

log = logging.getLogger(__name__)  # commands load it, too, and structlog is heavy

PERIOD_S = 1.0
MOST, MOST_OF_EACH = 200, 40  # in a period; a flood is like its beginning
# In memory, where the process stood still: later nobody knows any more what was erased meanwhile.
LONGEST_MS = ENDED_MS // 2
LONGEST_ANSWER, LONGEST_PATH = 4_000, 1_000
_NUL = str.maketrans({"\0": "\N{REPLACEMENT CHARACTER}"})  # which PostgreSQL's text cannot have


class Refusals:
    """Notes requests that were refused, and now and then another one. No request waits for it to be
    written.

    What cannot be written, and what is too much, is lost: the log has it.
    """

    def __init__(self, stored: RefusedRequests, now_ms: Callable[[], int]) -> None:
        self._stored = stored
        self._now_ms = now_ms
        self._noted: list[tuple[int, RefusedRequest]] = []
        self._of_each: Counter[int] = Counter()
        self._is_written = False
        self.longest_body, self.sample = stored.kept.body_bytes, stored.kept.sample

    def takes(self, partner: int) -> bool:
        """Whether one more of this partner would be kept; none is where nobody writes them."""
        room = self._is_written and len(self._noted) < MOST and self._stored.kept.rows > 0
        return room and self._of_each[partner] < MOST_OF_EACH

    def note(
        self,
        partner: int,
        *,
        request_id: str,
        key_prefix: str,
        method: str,
        path: str,
        status: int,
        seconds: float,
        error: str,
        answer: bytes,
        body: bytes,
        cut_from: int = 0,
    ) -> None:
        """The request was answered just now. `cut_from` is the length of a body of which this is
        only the beginning, or -1.
        """
        self._of_each[partner] += 1
        request = RefusedRequest(
            self._now_ms(), request_id, key_prefix, method[:20], _text(path, LONGEST_PATH), status,
            int(seconds * 1_000_000), error, _text(answer, LONGEST_ANSWER),
            _text(body, self.longest_body), cut_from,
        )  # fmt: skip
        self._noted.append((partner, request))

    async def keep_writing(self) -> None:
        """Writes what was noted, again and again."""
        self._is_written = True
        while True:
            await asyncio.sleep(PERIOD_S)
            await self.write()

    async def write(self) -> None:
        """Writes what was noted, if that is possible."""
        noted, self._noted = self._noted, []
        self._of_each.clear()
        of_each: dict[int, list[RefusedRequest]] = {}
        since_ms = self._now_ms() - LONGEST_MS
        for partner, request in noted:
            if request.at_ms > since_ms:
                of_each.setdefault(partner, []).append(request)
        try:
            for partner, requests in of_each.items():
                await self._stored.add(partner, requests, self._now_ms())
        except Unavailable:
            return
        except Exception as error:  # a note is worth no failure
            log.error("refused requests not written", exc_info=error)


def _text(sent: bytes | str, longest: int) -> str:
    """What was sent as text without keys; what is more than so many bytes of it is cut off."""
    if isinstance(sent, bytes):
        sent = sent[: longest + 100].decode("utf-8", "replace")
    text = without_keys(sent[: longest + 100]).translate(_NUL)
    return text.encode()[:longest].decode(errors="ignore")  # what replaces a byte takes three
