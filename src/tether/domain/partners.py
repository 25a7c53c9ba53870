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


DAY_MS = 86_400_000


class Ages(NamedTuple):
    """For how long what is of a partner is kept, in ms: 0 for ever, None as the server says.

    Events before `horizon_ms` are refused; all that could go before `expired_ms` is gone.
    """

    events_ms: int | None = None
    requests_ms: int | None = None
    attempts_ms: int | None = None
    horizon_ms: int | None = None
    expired_ms: int | None = None


def age_in_words(age_ms: int | None) -> str:
    """Such as `400 days`, `for ever` or `as the server says`."""
    if age_ms is None:
        return "as the server says"
    days = age_ms / DAY_MS
    return f"{days:g} day{'' if days == 1 else 's'}" if age_ms else "for ever"
