"""What all connections together may take of the server, whoever is behind them.

No bound is by the client's address, as many clients come through one proxy.
"""

from collections import Counter
from collections.abc import Callable, Hashable


class Bounds:
    """How many connections there may be, and how many bytes wait for what their clients do.

    These are answers that clients do not read, and requests that are not whole. When more would
    wait, those clients lose first that have taken or sent nothing for the longest time. What
    several connections are sent from one buffer counts once.
    """

    def __init__(
        self, connections: int, unread_bytes: int, refused: Callable[[str], None] = lambda _: None
    ) -> None:
        """`refused` is told the reason of each connection that was refused or ended."""
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
        """From now on so many bytes wait for this client; `end` takes its connection away.

        `what` is the same for all who wait for the same bytes. Holding anew counts as progress.
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
        """The client has taken it, or is gone."""
        what, size, *_ = self._waiting.pop(who, (None, 0))
        if what is None:
            return
        self._sharing[what] -= 1
        if not self._sharing[what]:
            del self._sharing[what]
            self._total -= size
