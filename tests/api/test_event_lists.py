"""`GET /events`: order, pages, filters, and how a follower continues."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.api.helpers import (
    CONNECTED,
    ID_RULE,
    create_both,
    create_charger,
    create_event,
    create_vehicle,
    message,
)
from tests.conftest import Server
from tests.lists import pages

TYPES = [
    "VEHICLE_CONNECTED",
    "VEHICLE_CHARGE_STARTED",
    "VEHICLE_CHARGE_UPDATED",
    "VEHICLE_CHARGE_STOPPED",
    "VEHICLE_DISCONNECTED",
]


def history(client: httpx.Client) -> list[dict[str, Any]]:
    """36 events of 2 chargers, 3 vehicles, all types; their timestamps are not in order."""
    for number in (1, 2):
        create_charger(client, f"C{number}")
    for number in (1, 2, 3):
        create_vehicle(client, f"V{number}")
    for number in range(36):
        create_event(
            client,
            type=TYPES[number % 5],
            chargerId=f"C{number % 2 + 1}",
            vehicleId=f"V{number % 3 + 1}",
            stateOfCharge=number,
            timestamp=f"2023-05-{number * 7 % 28 + 1:02}T00:00:00Z",
        )
    stored: list[dict[str, Any]] = client.get("/events").json()
    assert [event["stateOfCharge"] for event in stored] == list(range(36))
    return stored


@pytest.fixture(scope="module")
def listed(server: Server) -> tuple[httpx.Client, list[dict[str, Any]]]:
    """A client whose partner has a history, and that history. Not to be changed by a test."""
    client = server.client()
    return client, history(client)


Listed = tuple[httpx.Client, list[dict[str, Any]]]
TIME_FILTERS: list[dict[str, str]] = [
    {"from": "2023-05-10T00:00:00Z"},
    {"to": "2023-05-10T00:00:00Z"},
    {"from": "2023-05-08T00:00:00Z", "to": "2023-05-20T00:00:00Z"},
    {"from": "2023-05-08T02:00:00+02:00", "to": "2023-05-09T00:00:00.001Z"},
    {"from": "2024-01-01T00:00:00Z"},
    {"from": "2023-05-08T00:00:00Z", "to": "2023-05-08T00:00:00Z"},
]
FILTERS: list[dict[str, str]] = [
    {},
    *({"type": kind} for kind in TYPES),
    {"chargerId": "C2"},
    {"vehicleId": "V3"},
    {"chargerId": "nobody"},
    {"chargerId": "C1", "vehicleId": "V2", "type": "VEHICLE_CHARGE_UPDATED"},
    *TIME_FILTERS,
    {"type": "VEHICLE_CONNECTED", **TIME_FILTERS[2]},
    {"chargerId": "C2", **TIME_FILTERS[2]},
    {"vehicleId": "V1", "chargerId": "C1", **TIME_FILTERS[0]},
]


def in_utc(timestamp: str) -> str:
    known = {"2023-05-08T02:00:00+02:00": "2023-05-08T00:00:00Z"}
    timestamp = known.get(timestamp, timestamp)
    return timestamp if "." in timestamp else timestamp.replace("Z", ".000Z")


def matches(event: dict[str, Any], wanted: dict[str, str]) -> bool:
    """A second implementation of the filters: from is inclusive, to is exclusive."""
    return all(
        event["timestamp"] >= in_utc(value)
        if name == "from"
        else event["timestamp"] < in_utc(value)
        if name == "to"
        else event[name] == value
        for name, value in wanted.items()
    )


@pytest.mark.parametrize("wanted", FILTERS, ids=str)
def test_every_filter_shows_what_matches_in_both_orders_in_pages_of_any_size(
    listed: Listed, wanted: dict[str, str]
) -> None:
    client, events = listed
    expected = [event for event in events if matches(event, wanted)]
    for order, ordered in (("asc", expected), ("desc", expected[::-1])):
        for limit in (1, 5, 100):
            found = [*pages(client, "/events", order=order, limit=limit, **wanted)]
            assert [event for page in found for event in page] == ordered
            assert all(len(page) <= limit for page in found)


def test_without_parameters_the_first_hundred_come_oldest_first(client: httpx.Client) -> None:
    create_both(client)
    ids = [create_event(client, timestamp=f"2023-05-11T22:{n // 60:02}:{n % 60:02}Z")
           for n in range(101)]  # fmt: skip
    first = client.get("/events")
    assert [event["id"] for event in first.json()] == ids[:100]
    assert first.headers["content-type"] == "application/json"
    second = client.get(first.links["next"]["url"])
    assert [event["id"] for event in second.json()] == ids[100:]


def test_an_event_in_a_list_is_the_same_as_alone(listed: Listed) -> None:
    client, events = listed
    for event in events[:5]:
        alone = client.get(f"/events/{event['id']}")
        assert alone.json() == event
        assert alone.text in client.get("/events").text


def test_the_link_is_the_absolute_address_of_the_next_page_with_the_same_parameters(
    listed: Listed, server: Server
) -> None:
    client, _ = listed
    wanted = {"limit": "2", "order": "desc", "vehicleId": "V1", "from": "2023-05-01T02:00:00+02:00"}
    answer = client.get("/events", params=wanted)
    link = httpx.URL(answer.links["next"]["url"])
    assert str(link).startswith(f"{server.url}/events?")
    assert {**link.params, "cursor": ""} == {**wanted, "cursor": ""}


@pytest.mark.parametrize(
    ("headers", "start"),
    [
        ({"Host": "api.example.com"}, "<http://api.example.com/events?"),
        ({"Host": "api.example.com:8443"}, "<http://api.example.com:8443/events?"),
        ({"Host": "[::1]:8000"}, "<http://[::1]:8000/events?"),
        ({"Host": "api.example.com", "X-Forwarded-Proto": "https"}, "<https://api.example.com/"),
        ({"Host": "api.example.com", "Forwarded": "proto=https"}, "<https://api.example.com/"),
        ({"Host": "evil>; rel=x"}, "</events?"),
        ({"Host": "a b"}, "</events?"),
        ({"Host": "api.example.com", "X-Forwarded-Proto": "javascript"}, "</events?"),
        ({"Host": "api.example.com", "X-Forwarded-Proto": "h>,<"}, "</events?"),
    ],
)
def test_the_link_follows_how_the_client_addressed_us_if_that_makes_sense(
    listed: Listed, headers: dict[str, str], start: str
) -> None:
    client, _ = listed
    link = client.get("/events?limit=1", headers=headers).headers["link"]
    assert link.startswith(start)
    assert link.endswith('>; rel="next"')
    assert link.count("<") == link.count(">") == 1


def test_the_cursor_of_the_newest_event_leads_to_what_follows(client: httpx.Client) -> None:
    create_both(client)
    new = {name: value for name, value in CONNECTED.items() if name != "timestamp"}
    for _ in range(2):
        client.post("/events", json=new)
    newest = client.get("/events?order=desc&limit=1")
    cursor = httpx.URL(newest.links["next"]["url"]).params["cursor"]
    assert client.get(f"/events?cursor={cursor}").json() == []
    posted = client.post("/events", json=new).json()["id"]
    assert [event["id"] for event in client.get(f"/events?cursor={cursor}").json()] == [posted]


def test_going_backwards_the_last_page_has_no_link_going_forwards_it_has_one(
    listed: Listed,
) -> None:
    client, _ = listed
    assert "link" not in client.get("/events?order=desc&limit=36").headers
    assert "link" in client.get("/events?order=desc&limit=35").headers
    last = client.get("/events?limit=36")
    empty = client.get(last.links["next"]["url"])
    assert (empty.json(), "link" in empty.headers) == ([], False)


def test_a_follower_resumes_with_its_last_address_also_after_an_empty_page(
    client: httpx.Client,
) -> None:
    create_both(client)
    assert client.get("/events").json() == []
    first = create_event(client, timestamp="2023-05-11T01:00:00Z")
    address = client.get("/events").links["next"]["url"]
    assert client.get(address).json() == []
    # Later by commit, earlier by timestamp: it must not be missed.
    second = create_event(client, timestamp="2023-05-10T01:00:00Z")
    page = client.get(address)
    assert [event["id"] for event in page.json()] == [second]
    assert client.get(page.links["next"]["url"]).json() == []
    assert [event["id"] for event in client.get("/events").json()] == [first, second]


def test_following_with_a_filter_resumes_as_well(client: httpx.Client) -> None:
    create_both(client)
    create_event(client)
    query = {"type": "VEHICLE_CONNECTED", "from": "2023-01-01T00:00:00Z", "chargerId": "C1"}
    address = client.get("/events", params=query).links["next"]["url"]
    create_event(client, type="VEHICLE_DISCONNECTED")
    create_event(client, timestamp="2022-12-31T23:59:59.999Z")
    assert client.get(address).json() == []
    wanted = create_event(client, timestamp="2023-01-01T00:00:00Z")
    assert [event["id"] for event in client.get(address).json()] == [wanted]


def test_a_follower_that_keeps_its_cursor_misses_and_repeats_nothing_while_eight_write(
    client: httpx.Client,
) -> None:
    create_both(client)
    writers, each = 8, 60
    done = threading.Event()
    body = {"type": "VEHICLE_CONNECTED", "chargerId": "C1", "vehicleId": "V1"}

    def write(_: int) -> list[str]:
        return [client.post("/events", json=body).json()["id"] for _ in range(each)]

    def follow() -> list[str]:
        seen: list[str] = []
        address = "/events?limit=7"
        while True:
            finished = done.is_set()
            answer = client.get(address)
            seen += [event["id"] for event in answer.json()]
            if "next" in answer.links:
                address = answer.links["next"]["url"]
            elif finished:
                return seen

    with ThreadPoolExecutor(writers + 1) as threads:
        follower = threads.submit(follow)
        written = [event_id for ids in threads.map(write, range(writers)) for event_id in ids]
        done.set()
        seen = follower.result()
    assert len(seen) == len(set(seen)) == writers * each
    assert set(seen) == set(written)
    assert seen == [event["id"] for page in pages(client, "/events", limit=1000) for event in page]


LISTS = {
    "/chargers": "limit, cursor, include, stale",
    "/vehicles": "limit, cursor, include, stale",
    "/events": "limit, cursor, order, type, chargerId, vehicleId, from, to",
}
LIMIT_RULE = "It must be a whole number from 1 to 1000."
CURSOR_RULE = "It must be one that a Link header of this list gave."
TYPE_RULE = (
    "It must be one of VEHICLE_CONNECTED, VEHICLE_DISCONNECTED, VEHICLE_CHARGE_STARTED, "
    "VEHICLE_CHARGE_STOPPED, VEHICLE_CHARGE_UPDATED."
)
INSTANT_RULE = "It must be an RFC 3339 date-time with a zone, such as 2023-05-11T22:06:40.738Z."
BAD_QUERIES = [
    *(("limit", f"limit={value}", LIMIT_RULE)
      for value in ("0", "1001", "-1", "+1", "1.0", "", "ten", "1e2", "%00", "99999999999999",
                    "%D9%A1", "%FF")),
    *(("cursor", f"cursor={value}", CURSOR_RULE)
      for value in ("", "!!!", "%00", "%FF", "QzE*", "QzE=", "QzE%3D", "QzF", "Lg", "Q z", "=",
                    "a", "a" * 1999, "%C3%A9", "QzEv")),
    ("limit", "limit=1&limit=2", "It is given twice."),
    ("limit", "limit=1&%6Cimit=2", "It is given twice."),
    ("cursor", "cursor", CURSOR_RULE),
    ("cursor", f"cursor={'a' * 5000}", "It must have at most 2,000 characters."),
]  # fmt: skip
BAD_EVENT_QUERIES = [
    *(("cursor", f"cursor={value}", CURSOR_RULE)
      for value in ("QzE", "LTE", "MS4w", "MTIzNDU2Nzg5MDEyMzQ1Njc4OQ", "2aE")),
    *(("type", f"type={value}", TYPE_RULE)
      for value in ("", "vehicle_connected", "VEHICLE_CONNECTED%00", "VEHICLE")),
    *(("order", f"order={value}", "It must be asc (oldest first) or desc (newest first).")
      for value in ("", "ASC", "down")),
    *((name, f"{name}={value}", ID_RULE)
      for name in ("chargerId", "vehicleId")
      for value in ("", ".", "a/b", "a%2Fb", "%FF", "%00", "x" * 129, "a%20b")),
    *((name, f"{name}={value}", INSTANT_RULE)
      for name in ("from", "to")
      for value in ("", "2023-05-11", "2023-05-11T00:00:00", "1683849600", "now",
                    "2023-05-11%2000:00:00Z", "2023-05-11T24:00:00Z")),
    *((name, f"{name}=1999-12-31T23:59:59Z", "It must not be before the year 2000.")
      for name in ("from", "to")),
    ("from", "from=2023-05-12T00:00:00Z&to=2023-05-11T00:00:00Z", "It must not be after to."),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "name", "query", "hint"),
    [*((path, *bad) for path in LISTS for bad in BAD_QUERIES),
     *(("/events", *bad) for bad in BAD_EVENT_QUERIES)],
)  # fmt: skip
def test_a_bad_query_parameter_is_refused_by_name(
    listed: Listed, path: str, name: str, query: str, hint: str
) -> None:
    answer = listed[0].get(f"{path}?{query}")
    said = f"Parameter {{{name}}} is invalid. {hint}"
    assert answer.status_code == 400
    assert message(answer) == said or (hint == INSTANT_RULE and message(answer).startswith(said))


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize(
    ("query", "shown"), [("page=1", "page"), ("Limit=1", "Limit"), ("=1", ""), ("a%0Ab=", "a?b"),
                         ("%FF=1", "?"), ("%3Cscript%3E", "?script?")],
)  # fmt: skip
def test_an_unknown_query_parameter_is_refused_and_the_known_ones_are_listed(
    listed: Listed, path: str, query: str, shown: str
) -> None:
    answer = listed[0].get(f"{path}?{query}")
    assert message(answer) == (
        f"Parameter {{{shown}}} is invalid. This list has the parameters {LISTS[path]}."
    )


def test_a_plus_sign_in_a_query_is_a_plus_sign(client: httpx.Client) -> None:
    create_charger(client, "a+b")
    create_vehicle(client)
    create_event(client, chargerId="a+b")
    for query in ("chargerId=a+b", "chargerId=a%2Bb", "from=2023-05-11T23:00:00+01:00"):
        assert len(client.get(f"/events?{query}").json()) == 1


def test_parameters_belong_to_lists_only_and_elsewhere_they_do_nothing(listed: Listed) -> None:
    client, events = listed
    assert client.get(f"/events/{events[0]['id']}?colour=1").json() == events[0]


@pytest.mark.parametrize(
    "event_id",
    ["nobody", "0188ac4b-9dfa-7c3e-a51b-2f8e6d0b4c97", "%00", "%2F", "%FF", "{id}", "urn:uuid:1",
     "0188ac4b9dfa7c3ea51b2f8e6d0b4c97", "x" * 5000],
)  # fmt: skip
def test_an_event_that_does_not_exist_is_404(client: httpx.Client, event_id: str) -> None:
    answer = client.get(f"/events/{event_id}")
    assert (answer.status_code, message(answer)) == (404, "Not Found")


def test_an_event_id_may_be_written_in_capitals(client: httpx.Client) -> None:
    create_both(client)
    event_id = create_event(client)
    assert client.get(f"/events/{event_id.upper()}").json()["id"] == event_id
