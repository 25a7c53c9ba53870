"""When the SDK tries again, how long it waits, and its errors when it gives up."""

import json
import logging
import pickle
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise

import msgspec
import pytest

from tests.client.calls import KEY
from tests.client.devices import connected, update
from tests.client.scripted import Reply, ScriptedServer
from tether.client import (
    Charger,
    Client,
    Forbidden,
    Invalid,
    NotFound,
    PreconditionFailed,
    RateLimited,
    TetherError,
    Unavailable,
    UnexpectedAnswer,
)
from tether.client.events import EventCalls
from tether.client.exchange import (
    Answer,
    NoAnswer,
    Pause,
    Request,
    RetryPolicy,
    Script,
    exchange,
    path,
)
from tether.client.pagination import next_cursor

CREATED = Reply(201, b'{"id":"an id"}')
HUNG_UP = Reply(None)
CHARGER = Charger(id="C1", charge_powers=[11])


def busy(status: int, **headers: str) -> Reply:
    return Reply(status, b"", {name.replace("_", "-"): value for name, value in headers.items()})


def answer(status: int, body: bytes = b"{}", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, named, body)


def pauses(outcomes: list[Answer | NoAnswer], policy: RetryPolicy) -> list[float]:
    """The seconds that a request with these outcomes waits each time. Raises as the script."""
    script: Script[Answer] = exchange(Request("GET", "/"), policy, 200)
    waited = []
    step = next(script)
    try:
        for outcome in outcomes:
            assert isinstance(step, Request)
            step = script.send(outcome)
            assert isinstance(step, Pause)
            waited.append(step.seconds)
            step = next(script)
    except StopIteration:
        return waited
    raise AssertionError("it asks for more")


@pytest.mark.parametrize("reply", [HUNG_UP, *map(busy, (408, 429, 502, 503, 504))])
def test_temporary_errors_are_retried_with_the_same_request(reply: Reply) -> None:
    with ScriptedServer(reply, reply, CREATED) as server, Client(server.url, KEY) as client:
        assert client.events.post(connected()) == "an id"
    first, *others = server.requests
    assert len(others) == 2
    for other in others:
        assert (other.target, other.body) == (first.target, first.body)
        assert other.headers["x-request-id"] == first.headers["x-request-id"]
    assert "timestamp" in json.loads(first.body)


def test_no_server() -> None:
    with ScriptedServer(CREATED) as server:
        pass
    with Client(server.url, KEY, retries=1) as client, pytest.raises(Unavailable) as caught:
        client.events.post(connected())
    assert caught.value.status is None
    assert caught.value.request_id
    assert caught.value.event is not None
    assert caught.value.event.timestamp


@pytest.mark.parametrize("status", [400, 403, 404, 409, 412, 413])
def test_permanent_errors_are_not_retried(status: int) -> None:
    reply = Reply(status, b'{"message":"No"}', {"X-Request-Id": "7"})
    with ScriptedServer(reply) as server, Client(server.url, KEY) as client:
        with pytest.raises(TetherError) as caught:
            client.chargers.put(CHARGER)
        assert len(server.requests) == 1
    assert type(caught.value) is not TetherError
    assert (caught.value.message, caught.value.status, caught.value.request_id) == (
        "No", status, "7"
    )  # fmt: skip
    assert str(caught.value) == f"No (status {status}, request 7)"
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), str(copy)) == (type(caught.value), str(caught.value))


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b"<html>Log in to the hotel's network</html>"),
        Reply(201, b"[]"),
        Reply(201, b"\xff"),
        Reply(302, b"", {"Location": "http://127.0.0.1:1/"}),
        Reply(404, b"<html>Not Found</html>"),
        Reply(400, b'{"error":"bad"}'),
        Reply(500, b'{"message":"Internal Server Error"}'),
    ],
)
def test_an_answer_of_another_api_is_not_a_refusal(reply: Reply) -> None:
    with ScriptedServer(reply) as server, Client(server.url, KEY) as client:
        with pytest.raises(UnexpectedAnswer):
            client.events.post(connected())
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "reply", [Reply(200, b"<html>Log in</html>"), Reply(201, b"<html>Log in</html>"), Reply(201)]
)
def test_a_login_page_is_not_a_success(reply: Reply) -> None:
    with ScriptedServer(reply) as server, Client(server.url, KEY) as client:
        with pytest.raises(UnexpectedAnswer):
            client.chargers.put(CHARGER)
        with pytest.raises(UnexpectedAnswer):
            client.chargers.patch("C1", latitude=None)


def test_an_event_that_is_too_large_does_not_delay_the_others() -> None:
    stored = Reply(200, b'[{"status":201,"id":"1"},{"status":201,"id":"2"}]')
    far_too_large = "0." + "1" * 9_000_000
    with ScriptedServer(stored) as server, Client(server.url, KEY) as client:
        too_large = msgspec.structs.replace(update(2), charge_power=far_too_large)
        results = client.events.bulk([update(1), too_large, update(3)])
    assert [result.status for result in results] == [201, 413, 201]


def test_backoff_grows_is_random_and_ends() -> None:
    policy = RetryPolicy(retries=8)
    for _ in range(20):
        waited = pauses([NoAnswer("")] * 8 + [answer(200)], policy)
        limits = [0.25, 0.5, 1, 2, 4, 8, 15, 15]
        assert all(0 <= wait <= limit for wait, limit in zip(waited, limits, strict=True))
    assert len({round(wait, 6) for wait in waited}) == 8
    with pytest.raises(Unavailable):
        pauses([NoAnswer("")] * 9, policy)
    with pytest.raises(Unavailable):
        pauses([NoAnswer("")], RetryPolicy(retries=0))
    with pytest.raises(Unavailable):
        pauses([NoAnswer("", final=True)], policy)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_obeyed(status: int) -> None:
    for _ in range(20):
        (wait,) = pauses([answer(status, retry_after="7"), answer(200)], RetryPolicy(8))
        assert 7 <= wait <= 7.25
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    (wait,) = pauses([answer(status, retry_after=moment), answer(200)], RetryPolicy(8))
    assert 28 <= wait <= 31
    for odd in ("soon", "-3", "1e9", ""):
        (wait,) = pauses([answer(status, retry_after=odd), answer(200)], RetryPolicy(8))
        assert 0 <= wait <= 0.25


def test_a_long_retry_after_raises() -> None:
    with pytest.raises(RateLimited) as caught:
        pauses([answer(429, b'{"message":"Too Many Requests"}', retry_after="61")], RetryPolicy(8))
    assert caught.value.retry_after == 61
    with pytest.raises(Unavailable) as unavailable:
        pauses([answer(503, retry_after="3600")], RetryPolicy(8))
    assert unavailable.value.retry_after == 3600


def test_backoff_of_endless_work_is_limited() -> None:
    for wish in (61.0, 3600.0, 251_606_923_023.0):
        assert 60 <= RetryPolicy(0, cap_s=30).backoff(9, wish) <= 90


def test_retry_after_on_the_wire() -> None:
    with (
        ScriptedServer(busy(429, Retry_After="1"), CREATED) as server,
        Client(server.url, KEY) as client,
    ):
        began = time.monotonic()
        client.events.post(connected())
        assert 1 <= time.monotonic() - began < 20  # our own backoff is shorter


# Conditions --------------------------------------------------------------------------------------

FAILED = Reply(412, b'{"message":"Precondition Failed"}')
STORED = Reply(200, b'{"id":"C1","chargePowers":[11.0]}', {"ETag": '"8"'})
OTHER = Reply(200, b'{"id":"C1","chargePowers":[22]}', {"ETag": '"8"'})


def test_a_put_whose_answer_was_lost_does_not_fail_when_retried() -> None:
    with ScriptedServer(HUNG_UP, FAILED, STORED) as server, Client(server.url, KEY) as client:
        saved = client.chargers.put(CHARGER, if_match='"7"')
        assert (saved.created, saved.etag) == (False, '"8"')
        assert [request.method for request in server.requests] == ["PUT", "PUT", "GET"]


@pytest.mark.parametrize(
    ("script", "unsure"),
    [((HUNG_UP, FAILED, OTHER), True), ((busy(429), FAILED), False), ((FAILED,), False)],
)
def test_the_error_of_a_put_says_whether_it_is_unsure(
    script: tuple[Reply, ...], unsure: bool
) -> None:
    with ScriptedServer(*script) as server, Client(server.url, KEY) as client:
        with pytest.raises(PreconditionFailed) as caught:
            client.chargers.put(CHARGER, if_match='"7"')
        assert caught.value.unsure is unsure


def test_the_error_of_a_patch_whose_answer_was_lost_is_unsure() -> None:
    with ScriptedServer(HUNG_UP, FAILED) as server, Client(server.url, KEY) as client:
        with pytest.raises(PreconditionFailed) as caught:
            client.chargers.patch("C1", if_match='"7"', charge_powers=[11])
        assert caught.value.unsure


# Bulk --------------------------------------------------------------------------------------------


def items(*statuses: int) -> Reply:
    shown = [
        {"status": status, "id": f"id {place}"} if status == 201 else
        {"status": status, "message": f"No {status}"}
        for place, status in enumerate(statuses)
    ]  # fmt: skip
    return Reply(200, json.dumps(shown).encode(), {"Retry-After": "0"})


def test_events_that_must_wait_are_sent_again_in_order() -> None:
    script = (items(201, 429, 409, 503, 503), busy(503), items(503, 201, 429), items(201, 201))
    with ScriptedServer(*script) as server, Client(server.url, KEY) as client:
        results = client.events.bulk(update(number) for number in range(5))
    assert [result.status for result in results] == [201, 201, 409, 201, 201]
    assert len({request.body for request in server.requests}) == 3


def test_an_error_in_the_middle_of_bulk_has_the_results_so_far() -> None:
    script = (items(201, 400, 429), Reply(403, b'{"message":"Forbidden"}'))
    with (
        ScriptedServer(*script) as server,
        Client(server.url, KEY) as client,
        pytest.raises(Forbidden) as caught,
    ):
        client.events.bulk(update(number) for number in range(3))
    results = caught.value.results
    assert [result.status for result in results] == [201, 400, 403]
    assert all(result.event.timestamp for result in results)


def test_bulk_does_not_wait_until_all_items_fit() -> None:
    calls = EventCalls(RetryPolicy(retries=1))
    script = calls.bulk.all([update(1), update(2)])
    request = next(script)
    assert isinstance(request, Request)
    status, body, _, _ = items(201, 429)
    pause = script.send(Answer(status or 0, {"retry-after": "9999"}, body))
    assert isinstance(pause, Pause)
    assert 30 <= pause.seconds <= 30.25


def test_bulk_gives_up_without_progress() -> None:
    with ScriptedServer(items(503, 503)) as server, Client(server.url, KEY, retries=2) as client:
        with pytest.raises(Unavailable, match="No 503") as caught:
            client.events.bulk([update(1), update(2)])
        assert len(server.requests) == 3
    assert [result.status for result in caught.value.results] == [503, 503]


def test_bulk_refuses_an_answer_of_another_length() -> None:
    with (
        ScriptedServer(items(201)) as server,
        Client(server.url, KEY) as client,
        pytest.raises(UnexpectedAnswer),
    ):
        client.events.bulk([update(1), update(2)])


# The key, links ----------------------------------------------------------------------------------


def test_the_key_appears_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    shown = []
    with ScriptedServer(busy(503), HUNG_UP, Reply(403, b'{"message":"Forbidden"}')) as server:
        client = Client(server.url.replace("//", "//user:secret@"), KEY)
        with pytest.raises(Forbidden) as caught:
            client.chargers.get("C1")
        shown += [repr(client), repr(client.events), repr(caught.value), str(caught.value)]
        assert server.requests[0].headers["x-api-key"] == KEY
    client.close()
    with Client(server.url, KEY, retries=0) as client, pytest.raises(Unavailable) as unavailable:
        client.chargers.get("C1")
    assert unavailable.value.__cause__ is unavailable.value.__context__ is None
    shown.append(repr(unavailable.value))
    with pytest.raises(TetherError) as bad:
        Client(server.url, KEY + "\nx")
    shown += [repr(bad.value), caplog.text]
    for text in shown:
        assert KEY not in text
        assert KEY[-10:] not in text
        assert "secret" not in text or text is caplog.text
    assert "again in" in caplog.text


def test_only_the_cursor_of_a_link_is_used() -> None:
    page = Reply(
        200,
        b'[{"id":"C1","chargePowers":[11]}]',
        {"Link": '<https://elsewhere.example/x?limit=1&cursor=QzE>; rel="next"'},
    )
    with ScriptedServer(page, Reply(200, b"[]")) as server, Client(server.url, KEY) as client:
        assert [charger.id for charger in client.chargers.list(page_size=1)] == ["C1"]
        assert [request.target for request in server.requests] == [
            "/chargers?limit=1",
            "/chargers?limit=1&cursor=QzE",
        ]


@pytest.mark.parametrize(
    ("link", "cursor"),
    [
        ('<http://a/b?cursor=A-_>; rel="next"', "A-_"),
        ('</b?cursor=A>; rel="prev", <?x=1&cursor=B>; title="x"; rel=next', "B"),
        ('<http://a/b?limit=1>; rel="next"', None),
        ("", None),
        ("nonsense", None),
    ],
)
def test_links(link: str, cursor: str | None) -> None:
    assert next_cursor(answer(200, link=link)) == cursor


def test_paths() -> None:
    assert path("chargers", "a/b?c#d") == "/chargers/a%2Fb%3Fc%23d"
    assert path("chargers", "..") == "/chargers/%2E%2E"


def test_connections_are_used_again() -> None:
    missing = Reply(404, b'{"message":"Not Found"}')
    with ScriptedServer(missing) as server, Client(server.url, KEY) as client:
        for _ in range(3):
            with pytest.raises(NotFound):
                client.chargers.get("C1")
        assert len(client._http._pool.connections) == 1


def test_a_server_url_with_a_path() -> None:
    with ScriptedServer(STORED) as server, Client(server.url + "/tether/", KEY) as client:
        client.chargers.get("C1")
    assert server.requests[0].target == "/tether/chargers/C1"


def test_timestamps_increase_from_event_to_event() -> None:
    with ScriptedServer(CREATED) as server, Client(server.url, KEY) as client:
        for _ in range(50):
            client.events.post(connected())
    timestamps = [json.loads(request.body)["timestamp"] for request in server.requests]
    assert all(one < two for one, two in pairwise(timestamps))


def test_a_value_that_cannot_be_sent_is_not_sent() -> None:
    with ScriptedServer(CREATED) as server, Client(server.url, KEY) as client:
        with pytest.raises(Invalid):
            client.chargers.put(Charger(id="C1", charge_powers=["much"]))
        assert server.requests == []
