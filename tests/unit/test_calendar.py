"""Hours, days, weeks and months by the clocks of any zone."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from tests.summaries import reference
from tether.domain.calendar import Calendar, Unit, zone_of
from tether.domain.errors import Invalid
from tether.domain.timestamps import HOUR_MS

DAY_MS = 24 * HOUR_MS
# In each, the clocks change on these days: by an hour, by half an hour, at midnight, over midnight,
# by a whole day, from an offset that is no whole hour.
CHANGES = [
    ("Europe/Berlin", "2026-03-27"),
    ("Europe/Berlin", "2026-10-24"),
    ("Australia/Lord_Howe", "2026-04-03"),
    ("Australia/Lord_Howe", "2026-10-02"),
    ("America/Havana", "2026-10-31"),
    ("Asia/Beirut", "2026-03-27"),
    ("America/Sao_Paulo", "2018-02-16"),
    ("Pacific/Apia", "2011-12-28"),
    ("Pacific/Chatham", "2026-04-04"),
    ("Asia/Kathmandu", "2026-01-01"),
    ("America/St_Johns", "2026-10-31"),
]


@pytest.mark.parametrize(("zone", "day"), CHANGES)
@pytest.mark.parametrize("unit", Unit)
def test_each_bucket_is_what_the_clocks_say(zone: str, day: str, unit: Unit) -> None:
    name, from_ms = ZoneInfo(zone), reference.ms_of(f"{day}T00:00:00Z")
    expected = reference.calendar(unit, name, from_ms, from_ms + 4 * DAY_MS)
    for order in (expected, expected[::-1]):
        calendar = Calendar(unit, name)
        for begin_ms, end_ms in order:
            for at_ms in (begin_ms, end_ms - 1, (begin_ms + end_ms) // 2):
                assert calendar.bucket(at_ms) == (begin_ms, end_ms)


def test_days_have_23_24_or_25_hours() -> None:
    calendar = Calendar(Unit.DAY, ZoneInfo("Europe/Berlin"))
    for day, hours in (("2026-03-29", 23), ("2026-03-30", 24), ("2026-10-25", 25)):
        begin_ms, end_ms = calendar.bucket(reference.ms_of(f"{day}T12:00:00Z"))
        assert (end_ms - begin_ms) / HOUR_MS == hours


def test_a_day_that_comes_back_over_midnight_is_one_with_its_follower() -> None:
    """In St. John's clocks went back from 00:01 to 23:01 until 2011."""
    calendar = Calendar(Unit.DAY, ZoneInfo("America/St_Johns"))
    at_ms = reference.ms_of("2010-11-06T12:00:00-02:30")
    end_ms = reference.ms_of("2010-11-08T00:00:00-03:30")
    buckets = []
    while at_ms < end_ms:
        bucket = calendar.bucket(at_ms)
        assert all(calendar.bucket(one) == bucket for one in range(at_ms, bucket.to_ms, 60_000))
        buckets.append(bucket)
        at_ms = bucket.to_ms
    lengths = [(bucket.to_ms - bucket.from_ms) / HOUR_MS for bucket in buckets]
    assert lengths == [24, 25]


@pytest.mark.parametrize(
    "name",
    ["", "Berlin", "Europe", "Europe/Berlin ", "europe/", "../../etc/passwd", "/etc/localtime",
     "right/Europe/Berlin", "posix/Europe/Berlin", "localtime", "tzdata.zi", "zone.tab", "A" * 2000,
     "Europe/Berlin\0", "é", "UTC+1", "."],
)  # fmt: skip
def test_what_is_no_zone_of_the_list_is_refused(name: str) -> None:
    with pytest.raises(Invalid):
        zone_of("timeZone", name)


def test_zones_of_the_list_are_known() -> None:
    for name in ("UTC", "Etc/GMT+12", "America/Argentina/Buenos_Aires", "Asia/Kolkata"):
        assert datetime(2026, 1, 1, tzinfo=zone_of("timeZone", name)).utcoffset() is not None
