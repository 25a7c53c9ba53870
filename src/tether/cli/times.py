"""Parses and formats durations and instants for the command line."""

import re
from datetime import UTC, date, datetime, time, tzinfo
from decimal import Decimal

from tether.domain.timestamps import DAY_MS, HOUR_MS, moment_of, ms_of, parse_instant

_UNITS_MS = {"s": 1_000, "m": 60_000, "h": HOUR_MS, "d": DAY_MS, "w": 7 * DAY_MS}
_DURATION = re.compile(r"(?:[0-9]{1,9}[smhdw])+")
LONGEST_MS = 36_525 * _UNITS_MS["d"]


def parse_duration(text: str) -> int:
    """Milliseconds of `90d`, `12h`, `30m`, `1d12h` or `0`; at most 100 years.

    Raises ValueError with a sentence.
    """
    plain = text.strip().lower()
    parts = re.findall(r"([0-9]+)([smhdw])", plain) if _DURATION.fullmatch(plain) else []
    total = sum(int(number) * _UNITS_MS[unit] for number, unit in parts)
    if (not parts and plain != "0") or total > LONGEST_MS:
        raise ValueError(f"{text!r} is not a duration: write 90d, 12h or 30m.")
    return total


def parse_when(text: str, now_ms: int) -> int:
    """The instant of a date (its first moment, UTC), a date-time or a duration from now, in ms.

    Raises ValueError with a sentence.
    """
    plain = text.strip()
    try:
        return now_ms + parse_duration(plain)
    except ValueError:
        pass
    try:
        return parse_time(plain)
    except ValueError:
        raise ValueError(
            f"{text!r} is no point in time: write a date such as 2030-01-31, a date-time such as "
            "2030-01-31T18:00:00Z, or a duration such as 90d, 12h or 30m."
        ) from None


def parse_time(text: str, zone: tzinfo = UTC) -> int:
    """The instant of a date (its first moment in the zone) or of a date-time, in ms.

    Raises ValueError.
    """
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        return parse_instant(text)
    return ms_of(datetime.combine(date.fromisoformat(text), time(), zone))


def format_day(at_ms: int) -> str:
    """The date of the instant in UTC."""
    return moment_of(at_ms).strftime("%Y-%m-%d")


def format_minute(at_ms: int) -> str:
    """Date and time of the instant in UTC, to the minute."""
    return moment_of(at_ms).strftime("%Y-%m-%d %H:%M")


def format_second(instant: str | None) -> str:
    """Date and time of an instant of the API, to the second; empty for None."""
    return "" if instant is None else f"{instant[:10]} {instant[11:19]}"


def format_duration(seconds: Decimal | int) -> str:
    """A duration in a suitable unit, rounded down: `59 s`, `90 min`, `2 d`."""
    whole = int(seconds)
    for length, from_, unit in ((86_400, 172_800, "d"), (3600, 7200, "h"), (60, 120, "min")):
        if whole >= from_:
            return f"{whole // length:,} {unit}"
    return f"{whole} s"


def format_hours(seconds: Decimal) -> str:
    """Hours and minutes, rounded down: `9:38`; less than a minute is `0:00`."""
    minutes = int(seconds) // 60
    return f"{minutes // 60}:{minutes % 60:02}"
