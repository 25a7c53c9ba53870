"""Records refused requests, and a sample of others, for the console."""

import asyncio
import logging
import re
from collections.abc import Callable

from tether.domain.errors import Unavailable
from tether.domain.keys import without_keys
from tether.domain.models import with_plain_ids
from tether.storage.erasures import ENDED_MS
from tether.storage.refused_requests import RefusedRequest, RefusedRequests

log = logging.getLogger(__name__)  # not structlog, which would slow commands down

PERIOD_S = 1.0
MAX_REQUESTS, MAX_OF_PARTNER = 200, 40  # in a period
# Requests that waited longer are dropped: their charger or vehicle may have been erased meanwhile.
MAX_DELAY_MS = ENDED_MS // 2
MAX_ANSWER_BYTES, MAX_PATH_BYTES = 4_000, 1_000
_CURSOR = re.compile(r"(?<=[?&]cursor=)[^&]+")  # may have the id of a charger or vehicle
_NUL = str.maketrans({"\0": "\N{REPLACEMENT CHARACTER}"})  # PostgreSQL's text cannot contain NUL


class RequestRecorder:
    """Keeps requests in memory until the next write, so that no request waits for the database.

    Requests beyond the limits, or that cannot be written, are dropped. The log has all.
    """

    def __init__(self, stored: RefusedRequests, now_ms: Callable[[], int]) -> None:
        self._stored = stored
        self._now_ms = now_ms
        self._waiting: dict[int, list[RefusedRequest]] = {}
        self._count = 0
        self._is_running = False
        self.max_body_bytes, self.sample = stored.kept.body_bytes, stored.kept.sample

    def accepts(self, partner: int) -> bool:
        """Whether it would record one more request of this partner."""
        return (
            self._is_running
            and self._stored.kept.rows > 0
            and self._count < MAX_REQUESTS
            and len(self._waiting.get(partner, ())) < MAX_OF_PARTNER
        )

    def record(
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
        """Records a request that was answered just now.

        If `body` is only the beginning, `cut_from` is the length of all of it, or -1 if unknown.
        """
        request = RefusedRequest(
            self._now_ms(), request_id, key_prefix, method[:20],
            _CURSOR.sub("…", _text(path, MAX_PATH_BYTES)), status, int(seconds * 1_000_000), error,
            _text(answer, MAX_ANSWER_BYTES), _text(body, self.max_body_bytes), cut_from,
        )  # fmt: skip
        self._waiting.setdefault(partner, []).append(request)
        self._count += 1

    async def run(self) -> None:
        """Writes the recorded requests every second, until it is cancelled."""
        self._is_running = True
        while True:
            await asyncio.sleep(PERIOD_S)
            await self.write()

    async def write(self) -> None:
        """Writes the recorded requests, or drops them if the database cannot be used."""
        waiting, self._waiting, self._count = self._waiting, {}, 0
        since_ms = self._now_ms() - MAX_DELAY_MS
        try:
            for partner, requests in waiting.items():
                if recent := [request for request in requests if request.at_ms > since_ms]:
                    await self._stored.add(partner, recent, self._now_ms())
        except Unavailable:
            return
        except Exception as error:  # the server must go on
            log.error("refused requests not written", exc_info=error)


def _text(value: bytes | str, max_bytes: int) -> str:
    """The value as text of at most `max_bytes`, without API keys.

    Ids are plain in it, so that an erasure finds them.
    """
    if isinstance(value, bytes):
        value = value[: max_bytes + 100].decode("utf-8", "replace")
    text = without_keys(with_plain_ids(value[: max_bytes + 100])).translate(_NUL)
    return text.encode()[:max_bytes].decode(errors="ignore")
