"""Partners, whose chargers, vehicles and events are kept apart from all others'."""

from typing import NamedTuple


class Partner(NamedTuple):
    """An organisation that uses the API; `created_ms` in ms since 1970."""

    id: int
    name: str
    created_ms: int


class Holdings(NamedTuple):
    """How much of what a partner has."""

    chargers: int
    vehicles: int
    events: int
    keys: int
