"""The progress of the endpoints of this process. It is written for many endpoints at a time."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import monotonic

from tether.domain.errors import Unavailable
from tether.domain.webhooks import Attempt, Endpoint
from tether.storage.webhooks import MAX_ATTEMPTS, Parked, Webhooks

LEASE_S = 8.0
RENEWED_S = 2.0
ATTEMPTS_OF_EACH = 25  # successful ones between two writes; all failed ones are kept


@dataclass
class _Changes:
    """What is not written yet. A parked message is None if it is not parked any more."""

    reached: dict[tuple[int, str], Endpoint] = field(default_factory=dict)
    parked: dict[tuple[int, str, str], Parked | None] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)
    attempts_of: Counter[tuple[int, str]] = field(default_factory=Counter)


class ProgressWriter:
    """Collects the progress that this process makes under its leases, and writes it."""

    def __init__(self, stored: Webhooks, lease: str) -> None:
        self.lease = lease
        self._stored = stored
        self._renewed_at = monotonic()
        self._attempts_kept: Counter[tuple[int, str]] = Counter()  # since old ones were deleted
        self._changes = _Changes()

    def has_lease(self, claimed_at: float) -> bool:
        """Whether a lease that was claimed then is certainly still valid."""
        return monotonic() - max(claimed_at, self._renewed_at) < LEASE_S - RENEWED_S / 2

    async def renew_leases(self, held: Iterable[tuple[int, str]], until_ms: int) -> None:
        """Renews the leases of these endpoints when it is time. Other leases of this process
        expire: if the answer to a claim is lost, the process does not know of them.
        """
        began = monotonic()
        if began - self._renewed_at >= RENEWED_S:
            await self._stored.renew(self.lease, held, until_ms)
            self._renewed_at = began

    def is_written(self, key: tuple[int, str]) -> bool:
        """Whether the stored position of the endpoint is the one that this process has reached."""
        return key not in self._changes.reached

    def add(self, endpoint: Endpoint) -> None:
        """Replaces what is known of the endpoint."""
        self._changes.reached[endpoint.partner, endpoint.id] = endpoint

    def park(self, parked: Parked) -> None:
        """The message will be tried again, apart from the queue."""
        self._changes.parked[parked.partner, parked.webhook, parked.id] = parked

    def unpark(self, parked: Parked) -> None:
        """The message will not be tried any more."""
        self._changes.parked[parked.partner, parked.webhook, parked.id] = None

    def add_attempt(self, attempt: Attempt) -> None:
        """Keeps the attempt, unless enough successful ones of the endpoint wait already."""
        key, changes = (attempt.partner, attempt.webhook), self._changes
        if attempt.error or changes.attempts_of[key] < ATTEMPTS_OF_EACH:
            changes.attempts_of[key] += 1
            changes.attempts.append(attempt)

    async def write(self) -> None:
        """Writes the changes. If that fails, all but the attempts are written next time."""
        written = self._changes
        if not (written.reached or written.parked or written.attempts):
            return
        self._changes = _Changes()
        try:
            await self._stored.save(
                self.lease,
                [*written.reached.values()],
                [message for message in written.parked.values() if message is not None],
                [key for key, message in written.parked.items() if message is None],
                written.attempts,
            )
        except Unavailable:
            self._changes.reached = written.reached | self._changes.reached
            self._changes.parked = written.parked | self._changes.parked
            raise
        for key, count in written.attempts_of.items():
            self._attempts_kept[key] += count
            if self._attempts_kept[key] > MAX_ATTEMPTS // 2:
                del self._attempts_kept[key]
                await self._stored.delete_oldest_attempts(*key)
