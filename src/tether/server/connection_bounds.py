"""Limits for all connections together.

There is no limit for an address, because many clients may share a proxy.
"""

from collections import Counter
from collections.abc import Callable, Hashable


class Bounds:
    """Limits the number of connections, and the bytes in memory that wait for clients: answers that
    clients do not read, and incomplete requests.

    If there are too many bytes, the clients without progress for the longest time are disconnected.
    A buffer that is sent to several clients counts once.
    """

    def __init__(
        self, connections: int, unread_bytes: int, refused: Callable[[str], None] = lambda _: None
    ) -> None:
        """`refused` gets the reason for each connection that is refused or ended."""
        self.connections = connections
        self.unread_bytes = unread_bytes
        self.refused = refused
        self._waiting: dict[Hashable, tuple[Hashable, int, Callable[[], None], str]] = {}
        self._sharing: Counter[Hashable] = Counter()
        self._total = 0

    def hold(
        self,
        who: Hashable,
        size: int,
        end: Callable[[], None],
        what: Hashable = None,
        *,
        reason: str = "unread",
    ) -> None:
        """Notes that so many bytes wait for this client. `end` ends its connection.

        `what` identifies a buffer that is sent to several clients. A new call counts as progress.
        """
        self.release(who)
        what = who if what is None else what
        self._waiting[who] = what, size, end, reason
        self._sharing[what] += 1
        if self._sharing[what] == 1:
            self._total += size
        while self._total > self.unread_bytes:
            slowest = next(iter(self._waiting))
            _, _, end, reason = self._waiting[slowest]
            self.release(slowest)
            self.refused(reason)
            end()

    def release(self, who: Hashable) -> None:
        """Notes that nothing waits for this client any more."""
        what, size, *_ = self._waiting.pop(who, (None, 0))
        if what is None:
            return
        self._sharing[what] -= 1
        if not self._sharing[what]:
            del self._sharing[what]
            self._total -= size
