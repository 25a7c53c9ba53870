"""Timestamps: any RFC 3339 date-time with a zone comes in, one form goes out."""

import calendar
import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.api.helpers import CONNECTED, ON_ONE_ENGINE, create_both, create_event, message

pytestmark = ON_ONE_ENGINE

RULE = "It must be an RFC 3339 date-time with a zone, such as 2023-05-11T22:06:40.738Z."


def stored_timestamp(client: httpx.Client, text: str) -> str:
    if client.get("/chargers/C1").status_code == 404:
        create_both(client)
    event_id = create_event(client, timestamp=text)
    timestamp: str = client.get(f"/events/{event_id}").json()["timestamp"]
    return timestamp


@st.composite
def written_instants(draw: st.DrawFn) -> tuple[str, str]:
    """A date-time in any valid form, and the form of the answer."""
    moment = draw(st.datetimes(datetime(2000, 1, 2), datetime(2024, 1, 1)))
    moment = moment.replace(microsecond=0)
    sign, hours, minutes = draw(
        st.tuples(st.sampled_from("+-"), st.integers(0, 23), st.integers(0, 59))
    )
    in_utc = draw(st.booleans())
    fraction = draw(st.just("") | st.text("0123456789", min_size=1, max_size=12))
    separator, zulu = draw(st.sampled_from([("T", "Z"), ("t", "z"), ("T", "z"), ("t", "Z")]))
    zone = zulu if in_utc else f"{sign}{hours:02}:{minutes:02}"
    dot = "." if fraction else ""
    written = f"{moment:%Y-%m-%d}{separator}{moment:%H:%M:%S}{dot}{fraction}{zone}"
    seconds = calendar.timegm(moment.timetuple())
    if not in_utc:
        seconds -= (1 if sign == "+" else -1) * (hours * 3600 + minutes * 60)
    expected = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return written, f"{expected}.{(fraction + '000')[:3]}Z"


@settings(max_examples=150)
@given(instant=written_instants())
def test_any_rfc_3339_date_time_is_answered_in_the_one_form_of_the_reference(
    client: httpx.Client, instant: tuple[str, str]
) -> None:
    written, expected = instant
    assert stored_timestamp(client, written) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("2000-01-01T00:00:00Z", "2000-01-01T00:00:00.000Z"),
        ("2000-01-01T00:00:00-00:00", "2000-01-01T00:00:00.000Z"),
        ("1999-12-31T23:00:00-01:00", "2000-01-01T00:00:00.000Z"),
        ("2024-02-29T23:59:59.9999999Z", "2024-02-29T23:59:59.999Z"),
        ("2023-05-11t22:06:40.7z", "2023-05-11T22:06:40.700Z"),
        ("2023-01-01T00:00:00+23:59", "2022-12-31T00:01:00.000Z"),
        ("2023-05-11T22:06:40." + "1" * 1000 + "Z", "2023-05-11T22:06:40.111Z"),
    ],
    ids=lambda text: text[:32],
)
def test_the_corners_of_what_is_accepted(client: httpx.Client, written: str, expected: str) -> None:
    assert stored_timestamp(client, written) == expected


@pytest.mark.parametrize(
    "value",
    [
        "", "now", "2023-05-11", "22:06:40Z", "2023-05-11T22:06:40", "2023-05-11 22:06:40Z",
        "2023-05-11T22:06Z", "2023-05-11T22:06:40,738Z", "2023-05-11T22:06:40.Z",
        "2023-05-11T24:00:00Z", "2023-05-11T23:59:60Z", "2016-12-31T23:59:60Z",
        "2023-05-11T22:60:00Z", "2023-05-11T25:00:00Z", "2023-02-29T00:00:00Z",
        "2023-02-30T00:00:00Z", "2023-13-01T00:00:00Z", "2023-00-10T00:00:00Z",
        "2023-01-00T00:00:00Z", "0000-01-01T00:00:00Z", "20230511T220640Z",
        "2023-W19-4T00:00:00Z", "2023-131T00:00:00Z", "2023-05-11T22:06:40+02",
        "2023-05-11T22:06:40+0200", "2023-05-11T22:06:40+24:00", "2023-05-11T22:06:40+02:60",
        "2023-05-11T22:06:40 +02:00", "2023-05-11T22:06:40UTC", "2023-05-11T22:06:40Zulu",
        " 2023-05-11T22:06:40Z", "2023-05-11T22:06:40Z\n", "+2023-05-11T22:06:40Z",
        "\u0662\u0660\u0662\u0663-05-11T22:06:40Z", "2023-05-11T22:06:40.\u0667Z",
        "10000-01-01T00:00:00Z",
        "2023-5-11T22:06:40Z", "2023-05-11T22:06:40[UTC]", 1683842800, 1683842800.738, None,
        True, [], {},
    ],
)  # fmt: skip
def test_what_is_not_an_rfc_3339_date_time_with_a_zone_is_refused(
    shared: httpx.Client, value: object
) -> None:
    answer = shared.post("/events", json=CONNECTED | {"timestamp": value})
    assert answer.status_code == 400
    assert message(answer).startswith(f"Parameter {{timestamp}} is invalid. {RULE}")


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("2023-05-11T22:06:40", "It has no zone: write Z at its end for UTC, or such as +02:00."),
        ("2023-05-11T22:06:40.7", "It has no zone: write Z at its end for UTC, or such as +02:00."),
        ("2023-05-11", "The time and the zone are missing."),
        ("2023-05-11 22:06:40Z", "Write T between day and time, and no blank."),
        ("2023-05-11 22:06:40", "Write T between day and time, and no blank."),
        ("2023-05-11T22:06:40+0200", "Write the zone as +02:00."),
        ("2023-05-11T22:06:40+02", "Write the zone as +02:00."),
        ("2023-05-11T22:06:40 02:00", "Write the zone as +02:00."),
        ("2023-05-11T22:06:40UTC", "Write the zone as Z or such as +02:00."),
        ("2023-05-11T22:06:40Europe/Oslo", "Write the zone as Z or such as +02:00."),
        ("2023-05-11T22:06Z", "The seconds are missing."),
        ("2023-05-11T24:00:00Z", "Write 24:00 as 00:00 of the next day."),
        ("2023-05-11T23:59:60Z", "Write a leap second as :59."),
        ("2023-02-30T00:00:00Z", "There is no such day, time or zone."),
        (1683842800, "Seconds or milliseconds since 1970 are not understood."),
        (1683842800738, "Seconds or milliseconds since 1970 are not understood."),
        ("1683842800", "Seconds or milliseconds since 1970 are not understood."),
    ],
)
def test_a_refusal_says_what_is_wrong_with_the_timestamp(
    shared: httpx.Client, value: object, fault: str
) -> None:
    answer = shared.post("/events", json=CONNECTED | {"timestamp": value})
    assert message(answer) == f"Parameter {{timestamp}} is invalid. {RULE} {fault}"


@pytest.mark.parametrize(
    "value", ["1999-12-31T23:59:59.999Z", "2000-01-01T00:00:00+00:01", "0001-01-01T00:00:00+23:59"]
)
def test_nothing_happened_before_the_year_2000(shared: httpx.Client, value: str) -> None:
    answer = shared.post("/events", json=CONNECTED | {"timestamp": value})
    assert message(answer) == (
        "Parameter {timestamp} is invalid. It must not be before the year 2000."
    )


def test_a_clock_may_be_ahead_by_a_day_but_not_by_more(client: httpx.Client) -> None:
    create_both(client)
    now = datetime.now(UTC)
    create_event(client, timestamp=(now + timedelta(hours=23, minutes=59)).isoformat())
    ahead = now + timedelta(hours=24, minutes=1)
    for value in (ahead.isoformat(), "9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59-23:59"):
        answer = client.post("/events", json=CONNECTED | {"timestamp": value})
        assert message(answer) == (
            "Parameter {timestamp} is invalid. It must not be more than 24 hours in the future."
        )


def test_an_event_without_a_timestamp_gets_the_time_of_the_server(client: httpx.Client) -> None:
    create_both(client)
    body = {"type": "VEHICLE_CONNECTED", "chargerId": "C1", "vehicleId": "V1"}
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    event_id = client.post("/events", json=body).json()["id"]
    text = client.get(f"/events/{event_id}").json()["timestamp"]
    assert before <= datetime.fromisoformat(text) <= datetime.now(UTC)
    assert len(text) == len("2023-05-11T22:06:40.738Z")
