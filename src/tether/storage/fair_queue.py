"""Of all that waits, what belongs to the partner that has had the least goes on first."""

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

MOST_REMEMBERED = 1_000  # of which it is known what they took

P = TypeVar("P", bound=Hashable)  # what tells a partner from others
T = TypeVar("T")


class FairQueue(Generic[P, T]):
    """What waits, of each partner in its order.

    Whose comes next is decided by what the partners took. One that comes back is put level with the
    one that was let in last, so that nobody can save up. All who are not known count as one.
    """

    def __init__(self) -> None:
        self._waiting: dict[P, deque[T]] = {}
        self._count = 0
        self._taken: dict[P, float] = {}
        self._level = 0.0

    def __len__(self) -> int:
        return self._count

    def of(self, partner: P) -> int:
        """How many wait of this partner."""
        return len(self._waiting.get(partner, ()))

    def put(self, partner: P, item: T) -> None:
        """It waits from now on."""
        if partner not in self._waiting:
            self._waiting[partner] = deque()
            self._taken[partner] = max(self._level, self._taken.get(partner, 0.0))
        self._waiting[partner].append(item)
        self._count += 1

    def first(self, partner: P) -> T:
        """What is next of this partner, of which some wait."""
        return self._waiting[partner][0]

    def pop(self, may: Callable[[P], bool] = lambda partner: True) -> tuple[P, T] | None:
        """The next one, and whose it is, of the partners that may; None if there is none."""
        those = [*filter(may, self._waiting)]
        if not those:
            return None
        partner = min(those, key=self._taken.__getitem__)
        self._level = max(self._level, self._taken[partner])
        return partner, self._take_out(partner, self._waiting[partner][0])

    def remove(self, partner: P, item: T) -> None:
        """It waits no more. Raises ValueError if it does not wait."""
        if partner not in self._waiting:
            raise ValueError
        self._take_out(partner, item)

    def charge(self, partner: P, amount: float) -> None:
        """The partner took so much; less than nothing gives back."""
        self._taken[partner] = self._taken.get(partner, self._level) + amount
        if len(self._taken) > MOST_REMEMBERED:  # those below the level would be put there anyway
            self._taken = {
                one: taken
                for one, taken in self._taken.items()
                if taken > self._level or one in self._waiting
            }

    def _take_out(self, partner: P, item: T) -> T:
        waiting = self._waiting[partner]
        if waiting[0] is item:
            waiting.popleft()
        else:
            waiting.remove(item)
        self._count -= 1
        if not waiting:
            del self._waiting[partner]
        return item
