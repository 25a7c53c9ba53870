"""Points in time: RFC 3339 on the way in, `yyyy-mm-ddThh:mm:ss.sssZ` on the way out.

Inside Tether an instant is a whole number of milliseconds since 1970-01-01T00:00:00Z.
"""

import re
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_DAY = date(1970, 1, 1)
_MILLISECOND = timedelta(milliseconds=1)


def now_ms() -> int:
    """The clock of this machine. Rules get the time as a parameter."""
    return time.time_ns() // 1_000_000


# datetime.fromisoformat alone admits week dates, missing colons, spaces and missing zones.
_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt]"
    r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
    r"(?:\.[0-9]+)?"
    r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
# The form that we write. Most incoming timestamps have it already.
_CANONICAL = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z"
)
_CANONICAL_LENGTH = len("2023-05-11T22:06:40.738Z")


@lru_cache(maxsize=4096)  # each event is parsed twice: when it is checked and when it is stored
def _canonical_instant(text: str) -> int | None:
    if _CANONICAL.fullmatch(text) is None:
        return None
    try:
        return _since_epoch(text)
    except ValueError:  # 30 February
        return None


def parse_instant(text: str) -> int:
    """Milliseconds since 1970 of an RFC 3339 date-time; digits beyond the millisecond are cut off.

    Raises ValueError for everything else: no zone, `24:00`, a leap second, 30 February.
    """
    # Only short texts are cached: a body may have a mebibyte here.
    if len(text) == _CANONICAL_LENGTH and (at_ms := _canonical_instant(text)) is not None:
        return at_ms
    if _RFC_3339.fullmatch(text) is None:
        raise ValueError(text)
    return _since_epoch(text.upper())


def _since_epoch(text: str) -> int:
    since = datetime.fromisoformat(text) - _EPOCH
    # Dividing by a timedelta would double the time.
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000


def ms_of(at: datetime) -> int:
    """Milliseconds since 1970 of a datetime with a zone; digits beyond them are cut off."""
    return (at - _EPOCH) // _MILLISECOND


def moment_of(at_ms: int) -> datetime:
    """The instant as a datetime in UTC."""
    return _EPOCH + at_ms * _MILLISECOND


def fault_in(value: object) -> str | None:
    """A sentence that says what is wrong with this timestamp, if that is known."""
    if isinstance(value, Decimal) or (isinstance(value, str) and _NUMBER.fullmatch(value)):
        return "Seconds or milliseconds since 1970 are not understood."
    if not isinstance(value, str):
        return None
    return next((words for pattern, words in _FAULTS if pattern.fullmatch(value)), None)


_DAY, _TIME, _ZONE = (
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}",
    r"[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,12})?",
    r"(?:[Zz]|[+-][0-9]{2}:[0-9]{2})",
)
_NUMBER = re.compile(r"-?[0-9]{9,17}(?:\.[0-9]{1,12})?")
_FAULTS = [
    (re.compile(pattern), words)
    for pattern, words in (
        (_DAY, "The time and the zone are missing."),
        (rf"{_DAY}[Tt]{_TIME}", "It has no zone: write Z at its end for UTC, or such as +02:00."),
        (rf"{_DAY} {_TIME} ?(?:{_ZONE})?", "Write T between day and time, and no blank."),
        (rf"{_DAY}[Tt]{_TIME}[ +-][0-9]{{2}}:?(?:[0-9]{{2}})?", "Write the zone as +02:00."),
        (rf"{_DAY}[Tt]{_TIME} ?[A-Za-z/_]{{2,40}}", "Write the zone as Z or such as +02:00."),
        (rf"{_DAY}[Tt][0-9]{{2}}:[0-9]{{2}}{_ZONE}?", "The seconds are missing."),
        (rf"{_DAY}[Tt]24:00:00(?:\.0{{1,12}})?{_ZONE}", "Write 24:00 as 00:00 of the next day."),
        (rf"{_DAY}[Tt][0-9]{{2}}:[0-9]{{2}}:60(?:\.[0-9]{{1,12}})?{_ZONE}",
         "Write a leap second as :59."),
        (rf"{_DAY}[Tt]{_TIME}{_ZONE}", "There is no such day, time or zone."),
    )
]  # fmt: skip


def format_instant(at_ms: int) -> str:
    """The instant as every answer of the API shows it, such as `2023-05-11T22:06:40.738Z`."""
    days, ms = divmod(at_ms, DAY_MS)
    return (
        f"{_day(days)}{_MINUTES[ms // 60_000]}{_SECONDS[ms // 1000 % 60]}{_THOUSANDTHS[ms % 1000]}"
    )


def format_optional_instant(at_ms: int | None) -> str | None:
    """The same, or None if there is no instant."""
    return None if at_ms is None else format_instant(at_ms)


# An answer has several timestamps for each entry. Looking up their parts is fastest.
_MINUTES = [f"T{hour:02}:{minute:02}:" for hour in range(24) for minute in range(60)]
_SECONDS = [f"{second:02}." for second in range(60)]
_THOUSANDTHS = [f"{ms:03}Z" for ms in range(1000)]


@lru_cache(maxsize=4096)
def _day(days: int) -> str:
    return (_FIRST_DAY + timedelta(days)).isoformat()
