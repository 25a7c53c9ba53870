"""`GET /stream`: every event once, in order, then the states that follow from it."""

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from time import sleep
from typing import Any

import httpx
import pytest

from tests.api.helpers import (
    ON_ONE_ENGINE,
    create_both,
    create_charger,
    create_event,
    create_vehicle,
    message,
    refused_parameter,
)
from tests.conftest import Server
from tests.sse import Message, events_in, states_in, streaming, up_to, without_age
from tether.http.handlers.stream import MAX_STREAMS

VEHICLES = ("V1", "V2", "V3")


@pytest.fixture
def site(client: httpx.Client) -> httpx.Client:
    """A partner with two chargers and three vehicles."""
    for charger in ("C1", "C2"):
        create_charger(client, charger)
    for vehicle in VEHICLES:
        create_vehicle(client, vehicle)
    return client


def report(client: httpx.Client, count: int, first: int = 0) -> None:
    """That many events, of the vehicles in turn and at both chargers."""
    for number in range(first, first + count):
        create_event(
            client,
            chargerId=f"C{1 + number // 3 % 2}",
            vehicleId=VEHICLES[number % 3],
            stateOfCharge=number,
            timestamp=f"2026-01-05T10:{number:02}:00Z",
        )


def all_events(client: httpx.Client, **query: str) -> Any:
    return client.get("/events", params={"limit": "1000", **query}).json()


def all_states(client: httpx.Client) -> dict[str, Any]:
    return {id: without_age(client.get(f"/vehicles/{id}/state").json()) for id in VEHICLES}


def last_place(client: httpx.Client) -> str:
    client.get("/vehicles?include=state")  # waits until all is derived
    with streaming(client) as found:
        return next(found).id


def told(client: httpx.Client, last_id: str | None = None, **query: str) -> list[Message]:
    """The messages of the stream up to now."""
    end = last_place(client)
    with streaming(client, last_id, **query) as found:
        return up_to(found, end)


def test_it_begins_at_once_with_its_place_and_shows_what_comes(site: httpx.Client) -> None:
    report(site, 3)
    site.get("/vehicles?include=state")  # waits until all is derived
    with site.stream("GET", "/stream") as answer:
        head = answer.headers
        assert answer.status_code == 200
        assert head["content-type"] == "text/event-stream"
        assert head["cache-control"] == "no-store"
        assert head["x-accel-buffering"] == "no"
        assert "content-length" not in head
        lines = answer.iter_lines()
        assert list(islice(lines, 2)) == [": connected", "retry: 1000"]
        assert next(lines).startswith("id: ")
        assert next(lines) == ""
        event_id = create_event(site, vehicleId="V1", timestamp="2026-01-05T11:00:00Z")
        assert next(lines) == "event: event"
        assert next(lines).startswith("id: ")
        assert next(lines) == f"data: {site.get(f'/events/{event_id}').text}"
        assert next(lines) == ""
        assert next(lines) == "event: state"
        assert next(lines).startswith("id: ")
        assert '"timestamp":"2026-01-05T11:00:00.000Z"},"lastEventAge"' in next(lines)


def test_every_event_comes_once_in_order_and_the_states_are_those_of_the_vehicles(
    site: httpx.Client,
) -> None:
    report(site, 30)
    found = told(site, cursor="start")
    assert events_in(found) == all_events(site)
    assert states_in(found) == all_states(site)


def test_cut_anywhere_it_goes_on_without_a_gap_or_an_event_repeated(site: httpx.Client) -> None:
    report(site, 12)
    whole = told(site, cursor="start")
    report(site, 1, first=12)  # meanwhile
    events, states = all_events(site), all_states(site)
    for cut in range(1, len(whole) + 1):
        begin = whole[:cut]
        rest = told(site, last_id=begin[-1].id)
        assert events_in([*begin, *rest]) == events, cut
        assert states_in([*begin, *rest]) == states, cut


def test_portions_follow_each_other(site: httpx.Client) -> None:
    line = (
        '{{"type":"VEHICLE_CONNECTED","chargerId":"C1","vehicleId":"V{}","timestamp":'
        '"2026-01-05T10:{:02}:{:02}Z"}}\n'
    )
    events = "".join(line.format(1 + n % 3, n // 60, n % 60) for n in range(450))
    assert site.post("/events/bulk", content=events).status_code == 200
    found = told(site, cursor="start")
    assert events_in(found) == all_events(site)
    assert states_in(found) == all_states(site)
    assert sum(one.name == "state" for one in found) >= 5 * 3
    middle = found[len(found) // 2]
    rest = told(site, last_id=middle.id)
    assert events_in([*found[: len(found) // 2 + 1], *rest]) == all_events(site)


@pytest.mark.parametrize(
    "query",
    [
        {"vehicleId": "V2"},
        {"chargerId": "C2"},
        {"type": "VEHICLE_DISCONNECTED"},
        {"chargerId": "C1", "vehicleId": "V1", "type": "VEHICLE_CONNECTED"},
        {"vehicleId": "nobody"},
    ],
)
def test_filters_are_those_of_events(site: httpx.Client, query: dict[str, str]) -> None:
    report(site, 7)
    end = {"vehicleId": "V2", "chargerId": "C2", "timestamp": "2026-01-05T12:00:00Z"}
    create_event(site, type="VEHICLE_DISCONNECTED", **end)
    wanted = all_events(site, **query)
    vehicles = {event["vehicleId"] for event in wanted}
    states = {id: state for id, state in all_states(site).items() if id in vehicles}
    with streaming(site, cursor="start", **query) as found:
        got = [next(found)]
        while states_in(got) != states:
            got.append(next(found))
    assert events_in(got) == wanted


def test_a_cursor_of_the_list_of_events_is_a_place(site: httpx.Client) -> None:
    report(site, 5)
    link = site.get("/events", params={"limit": "3"}).links["next"]["url"]
    cursor = httpx.URL(link).params["cursor"]
    assert events_in(told(site, cursor=cursor)) == all_events(site)[3:]
    after = told(site, cursor="start")[-1].id
    report(site, 1, first=5)
    # A browser that reconnects sends both, and its last id counts.
    assert events_in(told(site, last_id=after, cursor=cursor)) == all_events(site)[5:]


def test_a_late_event_shows_what_it_changed(site: httpx.Client) -> None:
    create_event(site, timestamp="2026-01-05T10:00:00Z")
    begin = told(site, cursor="start")
    late = create_event(site, timestamp="2026-01-05T09:00:00Z", stateOfCharge=40)
    event, state = told(site, last_id=begin[-1].id)
    assert event.data["id"] == late
    assert (state.data["pluggedInSince"], state.data["stateOfCharge"]) == (
        "2026-01-05T09:00:00.000Z", 40,
    )  # fmt: skip


@ON_ONE_ENGINE
@pytest.mark.parametrize("text", ["", "0", "MA==", "LTE", "MCAx", "eA", "ü", "MTIzNDU2Nzg5"])
def test_what_is_no_place_is_refused(site: httpx.Client, text: str) -> None:
    create_event(site)
    answer = site.get("/stream", params={"cursor": text})
    assert refused_parameter(answer) == "cursor"
    if text.isascii() and text:
        answer = site.get("/stream", params={"cursor": "start"}, headers={"Last-Event-ID": text})
        assert refused_parameter(answer) == "Last-Event-ID"
    for path in ("/stream?limit=1", "/stream?type=x", "/stream?vehicleId=a%20b"):
        assert site.get(path).status_code == 400


@ON_ONE_ENGINE
def test_other_methods_are_answered_as_everywhere(site: httpx.Client, server: Server) -> None:
    answer = site.head("/stream")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == "text/event-stream"
    assert "content-length" not in answer.headers
    assert site.head("/stream", params={"cursor": "x"}).status_code == 400
    assert site.options("/stream").headers["allow"] == "GET, HEAD"
    assert site.post("/stream").status_code == 405
    assert httpx.get(f"{server.url}/stream", verify=False).status_code == 403
    assert site.get("/chargers").status_code == 200  # on the same connection


def test_a_partner_sees_its_own_only(site: httpx.Client, server: Server) -> None:
    with server.client() as other, streaming(other) as found:
        create_both(other)
        place = next(found)
        report(site, 5)
        ids = {create_event(other)}
        event, state = islice(found, 2)
        assert {event.data["id"], state.data["lastEvent"]["id"]} == ids
        # Nor does an id show how many events other partners have.
        far = last_place(site)
        answer = other.get("/stream", headers={"Last-Event-ID": far})
        assert refused_parameter(answer) == "Last-Event-ID"
        assert told(other, last_id=place.id)[0].data["id"] in ids


@ON_ONE_ENGINE
def test_a_key_has_a_limit_of_streams_and_gets_a_place_back(
    site: httpx.Client, server: Server
) -> None:
    secret = server.key(read_only=True)

    def counted(client: httpx.Client) -> Iterator[str]:
        page = client.get("/metrics").text
        return (line for line in page.splitlines() if line.startswith("tether_open_streams "))

    with ExitStack() as stack, server.client(secret) as client:
        streams = [stack.enter_context(streaming(client)) for _ in range(MAX_STREAMS)]
        for stream in streams:
            next(stream)
        answer = client.get("/stream")
        assert (answer.status_code, message(answer)) == (429, "Too Many Requests")
        assert int(answer.headers["retry-after"]) > 0
        with streaming(site) as others:
            next(others)
        assert client.head("/stream").status_code == 200
        stack.close()
        while list(counted(client)) != ["tether_open_streams 0.0"]:
            sleep(0.05)
        with streaming(client) as found:
            next(found)


def test_of_an_erased_vehicle_there_is_a_withdrawal_but_no_state(site: httpx.Client) -> None:
    report(site, 3)
    assert site.delete("/vehicles/V3?events=erase").status_code == 204
    found = told(site, cursor="start")
    assert [one.data["vehicleId"] for one in found if one.name == "withdrawal"] == ["erased"]
    assert states_in(found).keys() == {"V1", "V2"}
