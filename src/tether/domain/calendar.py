"""Divides time into hours, days, weeks and months of a time zone, or into equal steps.

Each bucket begins where the one before it ends, also when the clocks of the zone change. Then a day
has 23 or 25 hours. Where the clocks move by half an hour, two hours are shorter.
"""

from bisect import bisect_left
from collections.abc import Callable
from datetime import date, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from tether.domain.errors import Invalid
from tether.domain.timestamps import HOUR_MS, moment_of, ms_of, parse_instant

_MILLISECOND = timedelta(milliseconds=1)
# These are in the folder of zones, but are not zones of the IANA. `right/` counts leap seconds.
_NO_ZONES = ("posix/", "right/", "posixrules", "localtime", "Factory")


class Bucket(NamedTuple):
    """A part of time, from an instant to before another, in ms since 1970."""

    from_ms: int
    to_ms: int


WHOLE = Bucket(0, 2**62)
LAST_MS = parse_instant("9000-01-01T00:00:00Z")  # Python's calendar ends with the year 9999


class Unit(StrEnum):
    """The units of a calendar."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


Division = Callable[[int], Bucket]
"""Divides time into consecutive buckets: returns the bucket of an instant."""


def undivided(_: int) -> Bucket:
    """All time as one bucket."""
    return WHOLE


def steps(from_ms: int, step_ms: int) -> Division:
    """Equal steps, one of which begins at `from_ms`."""

    def step(at_ms: int) -> Bucket:
        begin_ms = at_ms - (at_ms - from_ms) % step_ms
        return Bucket(begin_ms, begin_ms + step_ms)

    return step


class Calendar:
    """Hours, days, weeks from Monday on, or months, by the clocks of a zone."""

    def __init__(self, unit: Unit, zone: ZoneInfo) -> None:
        self._unit = unit
        self._zone = zone
        self._last = self._previous = Bucket(0, 0)

    def bucket(self, at_ms: int) -> Bucket:
        """The hour, day, week or month of this instant."""
        for known in (self._last, self._previous):
            if known.from_ms <= at_ms < known.to_ms:
                return known
        found = self._hour(at_ms) if self._unit is Unit.HOUR else self._days(at_ms)
        self._last, self._previous = found, self._last
        return found

    def _hour(self, at_ms: int) -> Bucket:
        offset_ms = self._offset_ms(at_ms)
        begin_ms = (at_ms + offset_ms) // HOUR_MS * HOUR_MS - offset_ms
        end_ms = begin_ms + HOUR_MS
        if self._offset_ms(begin_ms) != offset_ms:
            begin_ms = self._change(begin_ms, at_ms)
        if self._offset_ms(end_ms - 1) != offset_ms:
            end_ms = self._change(at_ms, end_ms - 1)
        return Bucket(begin_ms, end_ms)

    def _change(self, before_ms: int, after_ms: int) -> int:
        """The instant between the two at which the clocks change."""
        instants, offset_ms = range(before_ms + 1, after_ms), self._offset_ms(after_ms)
        changed = bisect_left(instants, True, key=lambda at_ms: self._offset_ms(at_ms) == offset_ms)
        return before_ms + 1 + changed

    def _days(self, at_ms: int) -> Bucket:
        first = self._first(self._local(at_ms).date())
        # Where clocks go back over midnight, the day before returns for some minutes.
        while (begin_ms := self._begin_ms(first)) > at_ms:
            first = self._first(first - timedelta(days=1))
        while (end_ms := self._begin_ms(self._next(first))) <= at_ms:
            first, begin_ms = self._next(first), end_ms
        return Bucket(begin_ms, end_ms)

    def _first(self, day: date) -> date:
        """The first day of this day's month or week, or the day itself."""
        if self._unit is Unit.MONTH:
            return day.replace(day=1)
        return day - timedelta(days=day.weekday()) if self._unit is Unit.WEEK else day

    def _next(self, first: date) -> date:
        if self._unit is Unit.MONTH:
            return (first + timedelta(days=31)).replace(day=1)
        return first + timedelta(days=7 if self._unit is Unit.WEEK else 1)

    def _begin_ms(self, day: date) -> int:
        """The first instant of the day: where clocks skip midnight, the instant of the change."""
        return ms_of(datetime(day.year, day.month, day.day, tzinfo=self._zone))

    def _local(self, at_ms: int) -> datetime:
        return moment_of(at_ms).astimezone(self._zone)

    def _offset_ms(self, at_ms: int) -> int:
        offset = self._local(at_ms).utcoffset()
        assert offset is not None
        return offset // _MILLISECOND


@lru_cache(maxsize=1000)  # there are about 600 zones
def zone_of(parameter: str, name: str) -> ZoneInfo:
    """The time zone of this name in the IANA's list. Raises Invalid."""
    try:
        if not name.startswith(_NO_ZONES):
            return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        pass
    raise Invalid(parameter, "It must be the name of a time zone, such as Europe/Berlin.")
