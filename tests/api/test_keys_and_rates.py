"""Keys as the API sees them, and their rate limits."""

import math
import re
import time

import httpx
import pytest

from tests.api.helpers import CHARGER, CONNECTED, ON_ONE_ENGINE, create_both, message
from tests.conftest import Server
from tether.domain.keys import Rate

NO_VALID_KEY = "Forbidden. Send your key in the header x-api-key."
MAY_ONLY_READ = "Forbidden. This key may only read."


def limits(answer: httpx.Response) -> tuple[int, int]:
    """The header `RateLimit`: the requests left, and the seconds until all are available again."""
    found = re.fullmatch(r'"default";r=([0-9]+);t=([0-9]+)', answer.headers["ratelimit"])
    assert found, answer.headers["ratelimit"]
    return int(found[1]), int(found[2])


def test_every_answer_to_a_key_shows_its_limit(server: Server) -> None:
    with server.client(server.key(rate=Rate(100, 60))) as client:
        create_both(client)
        answers = [
            client.get("/chargers/C1"),
            client.get("/chargers/nobody"),
            client.get("/nowhere"),
            client.delete("/chargers"),
            client.put("/chargers/C1", content="nonsense"),
            client.put("/chargers/C1", content=b" " * 2_000_000),
            client.post("/events", json=CONNECTED),
            client.post("/events", json=CONNECTED | {"stateOfCharge": 1}),
            client.get("/chargers/C1", headers={"If-None-Match": "*"}),
            client.head("/events"),
            client.options("/events"),
        ]
        assert [answer.status_code for answer in answers] == [
            200, 404, 404, 405, 400, 413, 201, 409, 304, 200, 200,
        ]  # fmt: skip
        for number, answer in enumerate(answers):
            assert answer.headers["ratelimit-policy"] == '"default";q=100;w=60'
            remaining, reset_s = limits(answer)
            # Some tokens may have come back meanwhile: 1 in 0.6 s.
            assert 97 - number <= remaining < 100
            assert 1 <= reset_s <= 60


def test_a_429_says_when_to_come_back_and_that_is_true(server: Server) -> None:
    with server.client(server.key(rate=Rate(2, 1), burst=3)) as client:
        statuses = [client.get("/chargers").status_code for _ in range(3)]
        refused = client.get("/chargers")
        while refused.status_code != 429:  # a slow machine: tokens came back meanwhile
            refused = client.get("/chargers")
        assert statuses == [200, 200, 200]
        assert message(refused) == "Too Many Requests"
        assert limits(refused)[0] == 0
        assert refused.headers["ratelimit-policy"] == '"default";q=2;w=1'
        wait_s = int(refused.headers["retry-after"])
        assert 1 <= wait_s <= 2
        time.sleep(wait_s)
        assert client.get("/chargers").status_code == 200


def test_a_refused_request_changes_nothing(server: Server) -> None:
    key = server.key("rate-limited twice", rate=Rate(1, 3600))
    with server.client(key) as client, server.client(server.key("rate-limited twice")) as other:
        assert client.get("/chargers").status_code == 200
        answer = client.put("/chargers/C1", json=CHARGER)
        assert answer.status_code == 429
        assert 3500 <= int(answer.headers["retry-after"]) <= 3600
        assert other.get("/chargers/C1").status_code == 404


def test_a_burst_may_be_used_at_once_and_comes_back_at_the_rate(server: Server) -> None:
    with server.client(server.key(rate=Rate(1, 60), burst=5)) as client:
        answers = [client.get("/chargers") for _ in range(7)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
        assert [limits(answer)[0] for answer in answers] == [4, 3, 2, 1, 0, 0, 0]
        assert all(limits(answer)[1] <= 5 * 60 for answer in answers)
        assert math.isclose(limits(answers[4])[1], 300, abs_tol=5)


def test_keys_of_one_partner_have_a_limit_each_and_see_the_same_things(server: Server) -> None:
    first = server.client(server.key("two keys", rate=Rate(1, 3600)))
    second = server.client(server.key("two keys"))
    with first, second:
        assert first.put("/chargers/C1", json=CHARGER).status_code == 201
        assert first.get("/chargers/C1").status_code == 429
        assert second.get("/chargers/C1").status_code == 200
        assert second.put("/chargers/C1", json=CHARGER).status_code == 200


def test_a_test_key_works_like_a_live_one(server: Server) -> None:
    key = server.key(test=True)
    assert key.startswith("ttr_test_")
    with server.client(key) as client:
        create_both(client)


def test_a_read_only_key_reads_and_nothing_else(server: Server) -> None:
    with (
        server.client(server.key("reads and writes")) as writer,
        server.client(server.key("reads and writes", read_only=True)) as reader,
    ):
        create_both(writer)
        event_id = writer.post("/events", json=CONNECTED).json()["id"]
        for path in ("/chargers", "/chargers/C1", "/vehicles/V1", "/events", f"/events/{event_id}"):
            assert reader.get(path).text == writer.get(path).text
            assert reader.head(path).status_code == reader.options(path).status_code == 200
        for method, path in (("PUT", "/chargers/C1"), ("PUT", "/chargers/C2"),
                             ("PATCH", "/vehicles/V1"), ("POST", "/events"), ("DELETE", "/events"),
                             ("POST", "/nowhere")):  # fmt: skip
            answer = reader.request(method, path, json=CHARGER)
            assert (answer.status_code, message(answer)) == (
                403,
                "Forbidden. This key may only read.",
            )
        assert [charger["id"] for charger in reader.get("/chargers").json()] == ["C1"]


@ON_ONE_ENGINE  # tests/abuse/test_clocks.py has both
def test_a_key_stops_working_when_it_expires(server: Server) -> None:
    soon_ms = time.time_ns() // 1_000_000 + 3_000
    with server.client(server.key(expires_ms=soon_ms)) as client:
        assert client.get("/chargers").status_code == 200
        time.sleep(3.1)
        answer = client.get("/chargers")
        assert (answer.status_code, message(answer)) == (
            403,
            "Forbidden. Send your key in the header x-api-key.",
        )
        assert "ratelimit" not in answer.headers


@pytest.mark.parametrize("place", [9, 20, 38, 39, 44])
def test_a_key_with_one_wrong_character_is_no_key(server: Server, place: int) -> None:
    key = server.key()
    wrong = key[:place] + ("a" if key[place] != "a" else "b") + key[place + 1 :]
    for bad in (wrong, key[:-1], key + "a", key.upper(), key + " x", f"Bearer {key}"):
        answer = httpx.get(f"{server.url}/chargers", headers={"x-api-key": bad}, verify=False)
        assert answer.status_code == 403


def test_no_key_is_ever_logged(server: Server) -> None:
    key = server.key()
    with server.client(key) as client:
        client.get("/chargers")
        client.get(f"/chargers/{key}")
        client.put(f"/chargers/C1?{key}", content=f'{{"{key}": 1}}')
        client.post("/events", headers={"X-Request-Id": "a-request-to-look-for"})
    deadline = time.monotonic() + 60
    while not any("a-request-to-look-for" in line for line in server.log):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not any(key in line for line in server.log)
    assert any(key[:17] in line for line in server.log)
