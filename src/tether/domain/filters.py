"""Filters of lists."""

from typing import NamedTuple


class EventFilter(NamedTuple):
    """Selects events of a partner; None means all. Instants in ms since 1970."""

    type: str | None = None
    charger_id: str | None = None
    vehicle_id: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None

    @property
    def has_window(self) -> bool:
        """Whether it has a beginning or an end in time."""
        return self.from_ms is not None or self.to_ms is not None

    @property
    def is_selective(self) -> bool:
        """Whether no index selects just these events, so other events must be read, too."""
        both = self.charger_id is not None and self.vehicle_id is not None
        return both or self.type is not None or self.has_window


class SessionFilter(NamedTuple):
    """Selects sessions of a partner; None, or no id, means all. Instants in ms since 1970.

    Windows include their first instant and exclude their last one. Sessions began between `from_ms`
    and `to_ms`, ended between `ended_from_ms` and `ended_to_ms`, and lasted at some time between
    `overlapping_from_ms` and `overlapping_to_ms`. Lists of changes only filter by what never
    changes in a session.
    """

    charger_ids: tuple[str, ...] = ()
    vehicle_ids: tuple[str, ...] = ()
    from_ms: int | None = None
    to_ms: int | None = None
    active: bool | None = None
    updated_from_ms: int | None = None
    ended_from_ms: int | None = None
    ended_to_ms: int | None = None
    overlapping_from_ms: int | None = None
    overlapping_to_ms: int | None = None
    flag: str | None = None
    estimated: bool | None = None
