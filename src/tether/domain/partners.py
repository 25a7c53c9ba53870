"""Partners. Each sees only its own chargers, vehicles and events."""

from typing import NamedTuple

from tether.domain.timestamps import DAY_MS


class Partner(NamedTuple):
    """An organisation that uses the API; `created_ms` in ms since 1970."""

    id: int
    name: str
    created_ms: int


class Holdings(NamedTuple):
    """The number of each kind of object of a partner."""

    chargers: int
    vehicles: int
    events: int
    keys: int


class RetentionPeriods(NamedTuple):
    """The retention of a partner's data, in ms: 0 means for ever, None the server's default.

    Events before `horizon_ms` are refused. Everything before `expired_ms` has expired.
    """

    events_ms: int | None = None
    requests_ms: int | None = None
    attempts_ms: int | None = None
    horizon_ms: int | None = None
    expired_ms: int | None = None


def retention_in_words(age_ms: int | None) -> str:
    """The retention in words: `400 days`, `for ever` or `as the server says`."""
    if age_ms is None:
        return "as the server says"
    days = age_ms / DAY_MS
    return f"{days:g} day{'' if days == 1 else 's'}" if age_ms else "for ever"
