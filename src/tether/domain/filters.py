"""What lists can be asked for."""

from typing import NamedTuple


class EventFilter(NamedTuple):
    """Which events of a partner a list shows; None means all. Instants in ms since 1970."""

    type: str | None = None
    charger_id: str | None = None
    vehicle_id: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None

    @property
    def has_window(self) -> bool:
        """Whether only events from a time, or to one, are wanted."""
        return self.from_ms is not None or self.to_ms is not None

    @property
    def is_selective(self) -> bool:
        """Whether more events may be read than are shown: no index has those that are wanted."""
        both = self.charger_id is not None and self.vehicle_id is not None
        return both or self.type is not None or self.has_window


class SessionFilter(NamedTuple):
    """Which sessions of a partner a list shows; None, or no id, means all. Instants in ms since
    1970.

    Windows reach from their first instant to before their last one. Sessions began in that of
    `from_ms`, have ended in that of `ended_from_ms`, and lasted at some time in that of
    `overlapping_from_ms`. What may change in a session is not for lists of changes.
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
