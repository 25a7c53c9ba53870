"""Rows of what is added up by time and by groups, and pages of them."""

from typing import Generic, NamedTuple, Protocol, TypeVar

from tether.domain.calendar import Bucket
from tether.domain.summary import Measured, Sums

BEHIND = "!"  # in the place of a group: all of that part are done. No id has it, and no area


class RowPosition(NamedTuple):
    """Where a row is: the beginning of its part of time, and its group."""

    from_ms: int
    key: str


class Total(Protocol):
    """What is added up."""

    def add(self, session: Measured, bucket: Bucket) -> None:
        """Takes in what the session has there."""


T = TypeVar("T", bound=Total)


class Row(NamedTuple, Generic[T]):
    """What a group has in a part of time."""

    bucket: Bucket
    key: str
    total: T

    @property
    def position(self) -> RowPosition:
        """Where it is."""
        return RowPosition(self.bucket.from_ms, self.key)


class SummaryPage(NamedTuple):
    """Rows; `stop` is the position behind them if more may follow."""

    rows: list[Row[Sums]]
    stop: RowPosition | None
