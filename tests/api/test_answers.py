"""Status codes, headers and bodies of answers, and the order of the checks."""

import re

import httpx
import pytest

from tests.api.helpers import (
    CHARGER,
    CONNECTED,
    ON_ONE_ENGINE,
    create_both,
    create_charger,
    message,
)
from tests.conftest import Server
from tether.domain.keys import Rate

pytestmark = ON_ONE_ENGINE

NO_VALID_KEY = "Forbidden. Send your key in the header x-api-key."
NO_KEY = "ttr_live_" + "0" * 36
PATHS = {
    "/chargers": "GET, HEAD, OPTIONS",
    "/chargers/C1": "DELETE, GET, HEAD, OPTIONS, PATCH, PUT",
    "/vehicles": "GET, HEAD, OPTIONS",
    "/vehicles/V1": "DELETE, GET, HEAD, OPTIONS, PATCH, PUT",
    "/events": "GET, HEAD, OPTIONS, POST",
    "/events/0188ac4b-9dfa-7c3e-a51b-2f8e6d0b4c97": "DELETE, GET, HEAD, OPTIONS",
}
OPEN = [
    "/",
    "/docs",
    "/guides/sdk",
    "/openapi.json",
    "/health",
    "/ready",
    "/metrics",
    "/static/docs.js",
]
NOWHERE = ["/charger", "/Chargers", "/chargers/C1/events", "/chargers//", "/chargers/C1/", "/x",
           "/health/", "/api/chargers", "/%63hargers", "/chargers.json", "/.env",
           "/static/docs.js/x"]  # fmt: skip


# Bodies and their absence -----------------------------------------------------------------------


def test_put_answers_201_with_the_id_and_then_200_with_nothing(client: httpx.Client) -> None:
    created = client.put("/chargers/C1", json=CHARGER)
    assert (created.status_code, created.text) == (201, '{"id":"C1"}')
    assert created.headers["content-type"] == "application/json"
    replaced = client.put("/chargers/C1", json=CHARGER)
    assert (replaced.status_code, replaced.content) == (200, b"")
    patched = client.patch("/chargers/C1", json={"chargePowers": [7]})
    assert (patched.status_code, patched.content) == (200, b"")
    for empty in (replaced, patched):
        assert "content-type" not in empty.headers
        assert empty.headers["content-length"] == "0"


def test_an_event_is_answered_with_its_id_alone(client: httpx.Client) -> None:
    create_both(client)
    answer = client.post("/events", json=CONNECTED)
    assert answer.status_code == 201
    assert re.fullmatch(r'\{"id":"[0-9a-f-]{36}"\}', answer.text)
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", NOWHERE)
def test_what_is_nowhere_is_404(shared: httpx.Client, path: str) -> None:
    for method in ("GET", "POST", "DELETE", "PROPFIND"):
        answer = shared.request(method, path)
        slash = path.rstrip("/") in ("/chargers", "/chargers/C1", "/health") and path[-1] == "/"
        hint = f"no trailing slash: {path.rstrip('/')}." if slash else "no such path: see /docs."
        assert (answer.status_code, message(answer)) == (404, f"Not Found. There is {hint}")


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [
        ("GET", "/chargers/", 404, "Not Found"),
        ("GET", "/vehicles/", 404, "Not Found"),
        ("GET", "/events/", 404, "Not Found"),
        ("GET", "/vehicles/V1/state/", 404, "Not Found"),
        ("POST", "/events/bulk/", 404, "Not Found"),
        ("POST", "/events/", 405, "Method Not Allowed"),
        ("POST", "/chargers/", 405, "Method Not Allowed"),
        ("PATCH", "/vehicles//", 404, "Not Found"),
    ],
)
def test_a_trailing_slash_is_named(
    shared: httpx.Client, method: str, path: str, status: int, name: str
) -> None:
    answer = shared.request(method, path)
    said = f"{name}. There is no trailing slash: {path.rstrip('/')}."
    assert (answer.status_code, message(answer)) == (status, said)


def test_only_the_pages_own_assets_are_served(shared: httpx.Client) -> None:
    for name in ("", "app.py", "..%2Fapp.py", "..%2F..%2Fapp.py", "%2e%2e%2fopenapi.yaml", "%00"):
        assert shared.get(f"/static/{name}").status_code == 404


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "method", ["GET", "PUT", "PATCH", "POST", "DELETE", "TRACE", "PROPFIND", "PURGE"]
)
def test_another_method_is_405_with_those_that_are_allowed(
    shared: httpx.Client, path: str, method: str
) -> None:
    answer = shared.request(method, path)
    if method in PATHS[path].split(", "):
        assert answer.status_code in (200, 400, 404)
    else:
        said = f"Method Not Allowed. Allowed here: {PATHS[path]}."
        assert (answer.status_code, message(answer)) == (405, said)
        assert answer.headers["allow"] == PATHS[path]


@pytest.mark.parametrize("path", [*PATHS, *OPEN])
def test_options_says_what_a_path_allows(shared: httpx.Client, path: str) -> None:
    answer = shared.options(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert {"GET", "HEAD"} <= set(answer.headers["allow"].split(", "))
    assert set(answer.headers["allow"].split(", ")) <= set(PATHS.get(path, "GET, HEAD").split(", "))


def test_head_answers_like_get_without_the_body(client: httpx.Client) -> None:
    create_both(client)
    event_id = client.post("/events", json=CONNECTED).json()["id"]
    paths = ["/chargers", "/chargers/C1", "/vehicles?limit=1", f"/events/{event_id}", "/events",
             "/chargers/nobody", "/events?limit=x", "/health", "/ready", "/docs",
             "/nowhere"]  # fmt: skip
    for path in paths:
        get, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (get.status_code, b"")
        for name in ("content-type", "content-length", "etag", "link"):
            assert head.headers.get(name) == get.headers.get(name), (path, name)


def test_no_answer_tells_what_it_was_made_with(shared: httpx.Client) -> None:
    for path in ("/chargers", "/nowhere", "/health", "/docs"):
        answer = shared.get(path)
        assert "server" not in answer.headers
        assert "x-powered-by" not in answer.headers


# Every answer can be traced ---------------------------------------------------------------------


def test_every_answer_has_a_request_id_of_its_own(shared: httpx.Client, server: Server) -> None:
    answers = [shared.request(method, path) for path in [*PATHS, *OPEN, "/nowhere"]
               for method in ("GET", "HEAD", "OPTIONS", "DELETE", "PUT")]  # fmt: skip
    answers += [httpx.get(server.url + path, verify=False) for path in ("/chargers", "/nowhere")]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[0-9a-f]{16}", request_id) for request_id in ids)


def test_a_request_id_of_the_client_is_kept_if_it_is_harmless(shared: httpx.Client) -> None:
    for given in ("a", "9f86d081-884c", "trace:1/2=3+4_5", "x" * 128):
        answer = shared.get("/chargers", headers={"X-Request-Id": given})
        assert answer.headers["x-request-id"] == given
    for harmful in ("", "a b", "x" * 129, "<script>", "a,b", '"', "é"):
        answer = shared.get("/chargers", headers={b"X-Request-Id": harmful.encode()})
        assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["x-request-id"])


# key → rate → route → body → state --------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    ["", "nonsense", NO_KEY, "ttr_live_" + "x" * 36, "x" * 5000, "{your-api-key}", "' OR 1=1 --",
     "ttr_live_é"],
)  # fmt: skip
@pytest.mark.parametrize("path", [*PATHS, "/nowhere"])
def test_without_a_good_key_everything_is_403_and_tells_nothing(
    server: Server, shared: httpx.Client, key: str, path: str
) -> None:
    headers = {b"x-api-key": key.encode()}
    for method in ("GET", "PUT", "POST", "DELETE", "OPTIONS", "PROPFIND"):
        answer = shared.request(method, path, headers=headers, content="nonsense")
        assert (answer.status_code, message(answer)) == (403, NO_VALID_KEY)
        assert not {"ratelimit", "ratelimit-policy", "allow", "etag", "www-authenticate"} & set(
            answer.headers
        )


def test_no_key_at_all_or_two_of_them_is_403(server: Server, shared: httpx.Client) -> None:
    assert httpx.get(f"{server.url}/chargers", verify=False).status_code == 403
    key = shared.headers["x-api-key"]
    twice = httpx.get(
        f"{server.url}/chargers", headers=[("x-api-key", key), ("x-api-key", key)], verify=False
    )
    assert twice.status_code == 403
    for name in ("Authorization", "X-Key", "api-key"):
        answer = httpx.get(f"{server.url}/chargers", headers={name: key}, verify=False)
        assert answer.status_code == 403
    assert httpx.get(f"{server.url}/chargers?x-api-key={key}", verify=False).status_code == 403


def test_the_header_s_name_may_be_written_in_any_case(server: Server) -> None:
    key = server.key()
    for name in ("x-api-key", "X-API-KEY", "X-Api-Key"):
        answer = httpx.get(f"{server.url}/chargers", headers={name: key}, verify=False)
        assert answer.status_code == 200


@pytest.mark.parametrize("path", OPEN)
def test_what_needs_no_key_does_not_look_at_one(server: Server, path: str) -> None:
    for headers in ({}, {"x-api-key": NO_KEY}):
        answer = httpx.get(server.url + path, headers=headers, verify=False)
        assert answer.status_code == 200
        assert "ratelimit" not in answer.headers


def test_the_rate_is_checked_after_the_key_and_before_the_route(server: Server) -> None:
    with server.client(server.key(rate=Rate(1, 3600))) as client:
        assert client.get("/chargers").status_code == 200
        for method, path in (("GET", "/nowhere"), ("DELETE", "/chargers"), ("PUT", "/chargers/ä")):
            answer = client.request(method, path, content="nonsense")
            assert (answer.status_code, message(answer)) == (429, "Too Many Requests")
        answer = client.get("/chargers", headers={"x-api-key": NO_KEY})
        assert answer.status_code == 403


def test_a_read_only_key_is_told_so_before_its_rate_and_the_route(server: Server) -> None:
    with server.client(server.key(rate=Rate(1, 3600), read_only=True)) as client:
        for _ in range(3):
            assert client.put("/chargers/C1", content="nonsense").status_code == 403
        assert client.get("/chargers").status_code == 429


def test_the_route_is_checked_before_the_body_and_the_body_before_the_state(
    client: httpx.Client,
) -> None:
    assert client.post("/chargers/C1", content="nonsense").status_code == 405
    assert client.put("/nowhere/C1", content="nonsense").status_code == 404
    assert client.patch("/chargers/nobody", content="nonsense").status_code == 400
    assert client.post("/events", json=CONNECTED | {"colour": 1}).status_code == 400
    assert client.post("/events", json=CONNECTED).status_code == 409
    create_charger(client)
    stale = {"If-Match": '"99"'}
    assert client.put("/chargers/C1", content="nonsense", headers=stale).status_code == 400
    assert client.put("/chargers/C1", json=CHARGER, headers=stale).status_code == 412
    # Too large or in a strange encoding is a matter of the body.
    assert client.put("/chargers/ä", content=b" " * 2_000_000).status_code == 400
