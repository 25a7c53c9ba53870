"""How far the endpoints of this process are, which is written for many in one transaction."""

from collections import Counter
from collections.abc import Iterable
from time import monotonic

from tether.domain.errors import Unavailable
from tether.domain.webhooks import Attempt
from tether.storage.webhooks import MOST_ATTEMPTS, Parked, Progress, Webhooks

LEASE_S = 8.0
RENEWED_S = 2.0
ATTEMPTS_OF_EACH = 25  # that succeeded, between two writes; those that failed are all kept


class ProgressWriter:
    """What this process did under its leases, and has not been written yet."""

    def __init__(self, stored: Webhooks, lease: str) -> None:
        self.lease = lease
        self._stored = stored
        self._renewed_at = monotonic()
        self._since_forgotten: Counter[tuple[int, str]] = Counter()
        self._begin()

    def _begin(self) -> None:
        self._progress: dict[tuple[int, str], Progress] = {}
        self._parked: dict[tuple[int, str, str], Parked | None] = {}
        self._attempts: list[Attempt] = []
        self._attempts_of: Counter[tuple[int, str]] = Counter()

    def has_lease(self, claimed_at: float) -> bool:
        """Whether a lease that was taken then has surely not run out."""
        return monotonic() - max(claimed_at, self._renewed_at) < LEASE_S - RENEWED_S / 2

    async def renew_leases(self, held: Iterable[tuple[int, str]], until_ms: int) -> None:
        """Keeps the leases of these endpoints, if it is time to. Others of this process run out:
        what was claimed is not known if the answer was lost.
        """
        began = monotonic()
        if began - self._renewed_at >= RENEWED_S:
            await self._stored.renew(self.lease, held, until_ms)
            self._renewed_at = began

    def add(self, progress: Progress) -> None:
        """An endpoint is so far now."""
        self._progress[progress.partner, progress.id] = progress

    def park(self, parked: Parked) -> None:
        """The message is tried again, apart from the queue."""
        self._parked[parked.partner, parked.webhook, parked.id] = parked

    def unpark(self, parked: Parked) -> None:
        """The message is not tried any more."""
        self._parked[parked.partner, parked.webhook, parked.id] = None

    def add_attempt(self, attempt: Attempt) -> None:
        """Keeps the attempt, unless enough of the endpoint succeeded just now."""
        key = attempt.partner, attempt.webhook
        if attempt.error or self._attempts_of[key] < ATTEMPTS_OF_EACH:
            self._attempts_of[key] += 1
            self._attempts.append(attempt)

    async def write(self) -> None:
        """Writes it. What cannot be written is written next time, but for attempts."""
        progress, parked, attempts = self._progress, self._parked, self._attempts
        attempts_of = self._attempts_of
        if not (progress or parked or attempts):
            return
        self._begin()
        try:
            await self._stored.save(
                self.lease,
                [*progress.values()],
                [one for one in parked.values() if one is not None],
                [key for key, one in parked.items() if one is None],
                attempts,
            )
        except Unavailable:
            self._progress = progress | self._progress
            self._parked = parked | self._parked
            raise
        for key, count in attempts_of.items():
            self._since_forgotten[key] += count
            if self._since_forgotten[key] > MOST_ATTEMPTS // 2:
                del self._since_forgotten[key]
                await self._stored.forget_attempts(*key)
