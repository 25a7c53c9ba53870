"""Sums by time and by group: their rows, and pages of rows."""

from typing import Generic, NamedTuple, Protocol, TypeVar

from tether.domain.calendar import Bucket
from tether.domain.summary import Measured

# Stands for a group in a position: all groups of that bucket are done. No id and no area has it.
ALL_GROUPS = "!"


class RowPosition(NamedTuple):
    """The position of a row: the start of its bucket, and its group."""

    from_ms: int
    key: str


class Total(Protocol):
    """Adds up measures of sessions."""

    def add(self, session: Measured, bucket: Bucket) -> None:
        """Adds the part of the session that lies in the bucket."""


T = TypeVar("T", bound=Total)


class Row(NamedTuple, Generic[T]):
    """The sums of a group in a bucket."""

    bucket: Bucket
    key: str
    total: T

    @property
    def position(self) -> RowPosition:
        """The position of the row."""
        return RowPosition(self.bucket.from_ms, self.key)


class Page(NamedTuple, Generic[T]):
    """Rows; `stop` is the position after them if more may follow."""

    rows: list[Row[T]]
    stop: RowPosition | None
